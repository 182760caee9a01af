//! The injector does what it says, and nothing where nothing is planned.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use storage::{
    Stores,
    conformance::{Backend, Running, Setup, sample},
    error::Error,
    faults::{Call, Fault, Faults, Gate},
    log::{LogHealth, ReadError},
    memory,
    seq::Seq,
};

fn last(stores: &Stores) -> Seq {
    stores.log.window().borrow().last
}

#[tokio::test]
async fn a_determinate_fault_does_not_happen() {
    let (stores, faults) = Faults::wrap(memory::open());
    let planned = faults.plan(Call::Append, Fault::Determinate).after(1).times(2);
    stores.log.append(sample::batch(1, 1, 200)).await.unwrap();
    for _ in 0..2 {
        let failed = stores.log.append(sample::batch(2, 1, 200)).await;
        assert!(matches!(failed, Err(Error::Determinate { what: "append to the log", .. })));
    }
    stores.log.append(sample::batch(2, 1, 200)).await.unwrap();
    assert_eq!(planned.fired(), 2);
    assert_eq!(last(&stores), Seq(2));
    faults.assert_all_fired();
}

#[tokio::test]
async fn a_lost_answer_has_happened_and_a_lost_call_has_not() {
    let (stores, faults) = Faults::wrap(memory::open());
    faults.plan(Call::Append, Fault::LostAnswer);
    faults.plan(Call::Append, Fault::LostCall).after(1);
    let lost = stores.log.append(sample::batch(1, 1, 200)).await;
    assert!(matches!(lost, Err(Error::Indeterminate { .. })));
    assert_eq!(last(&stores), Seq(1));
    stores.log.append(sample::batch(2, 1, 200)).await.unwrap();
    let lost = stores.log.append(sample::batch(3, 1, 200)).await;
    assert!(matches!(lost, Err(Error::Indeterminate { .. })));
    assert_eq!(last(&stores), Seq(2));
    faults.assert_all_fired();
}

#[tokio::test]
async fn a_gate_holds_a_call_until_it_is_opened() {
    let (stores, faults) = Faults::wrap(memory::open());
    let gate = Gate::new();
    faults.plan(Call::Append, Fault::Hold(gate.clone()));
    let (appended, ()) = tokio::join!(stores.log.append(sample::batch(1, 1, 200)), async {
        gate.reached().await;
        assert_eq!(last(&stores), Seq(0));
        assert_eq!(stores.repos.count().await.unwrap(), 0);
        gate.open();
    });
    appended.unwrap();
    assert_eq!(last(&stores), Seq(1));
}

#[tokio::test(start_paused = true)]
async fn a_delay_delays() {
    let (stores, faults) = Faults::wrap(memory::open());
    let by = std::time::Duration::from_secs(3600);
    faults.plan(Call::HostCount, Fault::Delay(by));
    let began = tokio::time::Instant::now();
    assert_eq!(stores.hosts.count().await.unwrap(), 0);
    assert_eq!(began.elapsed(), by);
    faults.assert_all_fired();
}

#[tokio::test]
async fn reads_fail_as_stores_do() {
    let (stores, faults) = Faults::wrap(memory::open());
    let always = faults.plan(Call::Read, Fault::Damaged).always();
    for _ in 0..3 {
        let failed = stores.log.read(Seq(0), 100).await;
        assert!(matches!(failed, Err(ReadError::Store(Error::Damaged { .. }))));
    }
    always.cancel();
    assert_eq!(stores.log.read(Seq(0), 100).await.unwrap(), []);
    faults.plan(Call::RepoGet, Fault::Closed);
    assert!(matches!(stores.repos.get(&sample::did(1)).await, Err(Error::Closed)));
    assert_eq!(stores.log.health(), LogHealth::Ready);
}

#[tokio::test]
#[should_panic(expected = "never fired")]
async fn a_fault_that_never_fires_fails_the_test() {
    let (stores, faults) = Faults::wrap(memory::open());
    faults.plan(Call::HostAdd, Fault::Determinate);
    stores.hosts.count().await.unwrap();
    faults.assert_all_fired();
}

/// With nothing planned, it is the backend behind it.
mod nothing_planned {
    use super::*;

    pub(super) struct Transparent;

    struct Open(Stores);

    #[async_trait::async_trait]
    impl Backend for Transparent {
        async fn open(&self, setup: Setup) -> Box<dyn Running> {
            let inner = memory::open_with(memory::Config {
                lanes: setup.lanes,
                lane_bytes_max: setup.lane_bytes_max,
                window_bytes: setup.window_bytes,
                seq_start: setup.seq_start,
                ..memory::Config::default()
            });
            Box::new(Open(Faults::wrap(inner).0))
        }
    }

    #[async_trait::async_trait]
    impl Running for Open {
        fn stores(&self) -> Stores {
            self.0.clone()
        }

        async fn reopen(self: Box<Self>) -> Option<Box<dyn Running>> {
            None
        }

        async fn crash(self: Box<Self>) -> Option<Box<dyn Running>> {
            None
        }
    }
}

storage::conformance_suite!(crate::nothing_planned::Transparent);
