//! A cluster on real servers, two processes of each role, each of which is killed, stands still and is restarted under
//! load. The long run with all other faults is `make chaos`.

use std::time::Duration;

use loadtest::{
    chaos::{self, Fault, Options},
    cluster::Role,
};

use crate::harness::{alone, mainstem, seed};

/// Less than the long run has: debug builds share two cores with the servers.
const EVENTS_PER_SECOND: f64 = 200.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_stands_still_or_leaves_nothing_is_lost_and_nothing_comes_twice() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let by_role = [Fault::Kill, Fault::Freeze, Fault::Restart].into_iter().flat_map(|fault| Role::ALL.map(fault));
    let options = Options {
        program: mainstem().to_owned(),
        seed: seed(),
        rate: EVENTS_PER_SECOND,
        brokers: 1,
        lanes: 8,
        faults: by_role.map(|fault| (fault, 1)).collect(),
        rounds_max: usize::MAX,
        time_max: Duration::MAX,
        kafka_gone: Duration::ZERO,
        folder: folder.path().to_owned(),
    };
    let report = chaos::run(&options, &|said| println!("{said}")).await.unwrap();
    println!("{}", report.markdown());
    // How long the stream stood still depends on the machine; the long run judges it.
    assert!(report.is_clean());
}
