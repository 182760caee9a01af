//! What a crash, a failing disk or a stray hand leaves of the log: a torn tail is cut and said, damage is refused and
//! mended when told to.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use loadtest::{
    judge::{Extent, Fault, Judge, Report},
    network::{Config, Mix, Network, Pace},
    relay_process::{self, RelayProcess},
};
use rand::{Rng, RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::harness::{LONG, Scene, all_connected, alone, mainstem, replay, seed, subscriber_of};

/// A network and what a relay has kept of it when it was ended.
struct Past {
    network: Network,
    relay: relay_process::Config,
    /// Removed with its value.
    _folder: tempfile::TempDir,
}

impl Past {
    /// `events` events, all passed on; then the relay is ended, in good order or by SIGKILL.
    async fn of(events: u64, kill: bool) -> Past {
        let config = Config {
            hosts: 2,
            accounts: 20,
            pace: Pace::ByHand,
            mix: Mix::STRICT,
            remember: true,
            ..Config::default()
        };
        let Scene { network, relay, subscriber, folder: _folder } = Scene::open(config).await;
        network.generate(events).await.unwrap();
        assert!(subscriber.wait_for(network.truth().to_pass() as u64, LONG).await);
        subscriber.stop().await;
        let config = relay.config().clone();
        if kill {
            relay.kill().await.unwrap();
        } else {
            let (status, _) = relay.terminate(Duration::from_secs(30)).await.unwrap();
            assert!(status.success(), "{}", config.log_tail(20));
        }
        Past { network, relay: config, _folder }
    }

    /// Runs the relay again on what is left, adds `events`, and reads everything from the first event on. Gives the
    /// judge's report and the seqs that are not there.
    async fn go_on(&self, events: u64) -> (Report, BTreeSet<u64>) {
        let relay = RelayProcess::start(self.relay.clone()).await.unwrap();
        all_connected(&self.network).await;
        let before = self.network.truth().to_pass() as u64;
        let live = subscriber_of(&relay);
        self.network.generate(events).await.unwrap();
        let truth = self.network.truth();
        let added = truth.to_pass() as u64 - before;
        let last = truth.events().last().unwrap().digest;
        let arrived = crate::harness::wait_until(LONG, || {
            live.look(|reading| reading.received.iter().any(|received| received.digest == last))
                && live.events() >= added
        });
        assert!(arrived.await, "{}", self.relay.log_tail(20));
        live.stop().await;
        let replayed = replay(&relay, added).await;
        let seqs: BTreeSet<u64> = replayed.received.iter().map(|received| received.seq).collect();
        let missing = (1..=seqs.last().copied().unwrap_or(0)).filter(|seq| !seqs.contains(seq)).collect();
        (Judge::new(truth).reading(&replayed.received, Extent::Whole), missing)
    }

    /// The newest segment of the log.
    fn newest_segment(&self) -> PathBuf {
        let segments = fs::read_dir(self.relay.data_dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
        let segments = segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
        segments.max().unwrap()
    }
}

fn repair(dir: &Path, mend: bool) -> Output {
    let mut command = Command::new(mainstem());
    command.arg("repair").arg(dir).args(mend.then_some("--mend"));
    let output = command.output().unwrap();
    println!("repair{}: {}\n{}", if mend { " --mend" } else { "" }, output.status, said(&output));
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The seqs that `mainstem repair` says are lost: `lost event 7`, `lost events 7 to 9`.
fn said_to_be_lost(output: &Output) -> BTreeSet<u64> {
    let said = said(output);
    let ranges = said.split("lost event").skip(1).map(|rest| {
        let mut numbers = rest.trim_start_matches('s').lines().next().unwrap().split(" to ");
        let mut number = || numbers.next().and_then(|number| number.trim().parse::<u64>().ok());
        let first = number().unwrap();
        first..=number().unwrap_or(first)
    });
    ranges.flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut_and_said() {
    let _alone = alone().await;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    let past = Past::of(400, true).await;
    // What a write that never came to its end leaves behind.
    let segment = past.newest_segment();
    let mut torn = vec![0; rng.random_range(1..5_000)];
    rng.fill_bytes(&mut torn);
    fs::File::options().append(true).open(&segment).unwrap().write_all(&torn).unwrap();
    let (report, missing) = past.go_on(100).await;
    assert!(report.is_clean() && missing.is_empty(), "{report}");
    let log = past.relay.log_tail(200);
    assert!(log.contains("cut") && log.contains("tail"), "nothing is said about the tail:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_refuses_to_start_until_it_is_mended() {
    let _alone = alone().await;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed());
    let past = Past::of(600, false).await;
    let segment = past.newest_segment();
    let mut bytes = fs::read(&segment).unwrap();
    // Somewhere in the middle: behind the header, well before the end.
    let at = rng.random_range(bytes.len() / 4..bytes.len() / 2);
    let bit = rng.random_range(0..8);
    println!("bit {bit} of byte {at} of {}", segment.display());
    bytes[at] ^= 1 << bit;
    fs::write(&segment, &bytes).unwrap();

    match RelayProcess::start(past.relay.clone()).await {
        Err(relay_process::Error::Ended { status, log }) => {
            assert!(!status.success());
            assert!(log.contains("mainstem repair"), "it does not say what to do:\n{log}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it started on damaged data"),
    }

    let lost = said_to_be_lost(&repair(&past.relay.data_dir, false));
    assert!(!lost.is_empty(), "it does not say what is lost");
    assert_eq!(fs::read(&segment).unwrap(), bytes, "a look has changed the data");
    assert!(RelayProcess::start(past.relay.clone()).await.is_err(), "a look has mended the data");
    let mended = repair(&past.relay.data_dir, true);
    assert!(mended.status.success());
    assert_eq!(said_to_be_lost(&mended), lost);

    let (report, missing) = past.go_on(100).await;
    println!("{report}");
    // What was said to be lost is, and nothing else.
    assert_eq!(missing, lost);
    assert_eq!(report.count(Fault::Lost), lost.len(), "{report}");
    assert!(report.faults.keys().all(|fault| matches!(fault, Fault::Lost | Fault::SeqGap)), "{report}");
}
