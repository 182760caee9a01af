//! The directory of identities is down for a time, with traffic of accounts that are known and of new ones.

use std::{collections::HashSet, time::Duration};

use atproto::syntax::Did;
use loadtest::{
    judge::{Extent, Judge},
    network::{Action, Config, Fault, Kind, Mix, Pace},
    relay_process::RelayProcess,
};

use crate::harness::{LONG, Scene, all_connected, alone, replay};

/// How the directory is down: at first, and after the relay was started again in the middle of it.
const OUTAGES: [(Fault, Fault); 2] =
    [(Fault::Hang, Fault::Status(503)), (Fault::Status(429), Fault::Delay(Duration::from_secs(60)))];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_accounts_flow_on_new_ones_wait_and_nothing_is_lost() {
    let _alone = alone().await;
    for (first, second) in OUTAGES {
        let config = Config {
            hosts: 4,
            accounts: 80,
            pace: Pace::ByHand,
            mix: Mix::COMMITS,
            remember: true,
            ..Config::default()
        };
        let Scene { network, relay, subscriber, folder: _folder } = Scene::open(config).await;
        let accounts = network.accounts();
        for account in 0..accounts.len() / 2 {
            network.act(account, Action::Create(Kind::Post)).unwrap();
        }
        assert!(subscriber.wait_for(network.truth().to_pass() as u64, LONG).await);
        let known: HashSet<Did> = accounts[..accounts.len() / 2].iter().cloned().collect();
        let of_known = || network.truth().events().iter().filter(|sent| known.contains(&sent.did)).count() as u64;

        network.directory().set_fault(Some(first));
        network.generate(400).await.unwrap();
        assert!(subscriber.wait_for(of_known(), LONG).await, "{first:?}: {} of {}", subscriber.events(), of_known());

        // What was learnt outlives the process, and what waited is read again.
        let config = relay.config().clone();
        let (status, _) = relay.terminate(Duration::from_secs(60)).await.unwrap();
        assert!(status.success(), "{status}: {}", config.log_tail(20));
        network.directory().set_fault(Some(second));
        let relay = RelayProcess::start(config).await.unwrap();
        all_connected(&network).await;
        network.generate(400).await.unwrap();
        assert!(subscriber.wait_for(of_known(), LONG).await, "{second:?}: {} of {}", subscriber.events(), of_known());
        let truth = network.truth();
        assert!(of_known() < truth.to_pass() as u64, "new accounts have sent nothing");
        assert_eq!(subscriber.events(), of_known(), "new accounts wait");

        network.directory().set_fault(None);
        let all = truth.to_pass() as u64;
        let arrived = subscriber.wait_for(all, LONG).await;
        subscriber.wait_for_quiet(Duration::from_millis(500), LONG).await;
        let live = subscriber.stop().await;
        let replayed = replay(&relay, all).await;
        let mut judge = Judge::new(truth);
        for (name, reading) in [("live", live), ("replay", replayed)] {
            let report = judge.reading(&reading.received, Extent::Whole);
            assert!(arrived && report.is_clean(), "{first:?}, {name}: {report}\n{}", relay.config().log_tail(20));
        }
        relay.kill().await.unwrap();
        network.stop().await;
    }
}
