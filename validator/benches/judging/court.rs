//! A validator over the stores of this benchmark, fed and timed.

use std::{
    fs,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use prometheus::Registry;
use runtime::{
    clock::Clock,
    egress::{Egress, Policy},
    trace::Tracer,
};
use storage::{
    intake::{Intake, RawFrame, Receipts},
    lane::LaneCount,
    lane_queues::LaneQueues,
    limits::{Limits, Rules},
    memory,
    refusal::Refusals,
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinSet, LocalSet, yield_now},
};
use tokio_util::sync::CancellationToken;
use url::Url;
use validator::{Parts, Validator, identity};

use crate::{
    micros,
    stores::{Counter, ForgetfulLog, stores},
    traffic::Traffic,
};

/// As many lanes as a relay has.
const LANES: NonZeroU32 = NonZeroU32::new(16).expect("16 is not 0");

/// Far longer than any turn takes.
const LIMIT: Duration = Duration::from_secs(300);

/// Who knows the accounts, over all turns; each turn has a validator of its own.
pub(crate) struct Court<'t> {
    traffic: &'t Traffic,
    resolver: identity::Resolver,
    egress: Egress,
    others: &'t Handle,
}

/// One turn.
pub(crate) struct Measured {
    wall: Duration,
    /// Of the judges' threads.
    cpu: Duration,
}

/// A turn's validator and its stores.
struct Turn {
    validator: Validator,
    intake: Arc<LaneQueues>,
    log: Arc<ForgetfulLog>,
    refusals: Arc<Refusals>,
    counter: Arc<Counter>,
}

/// Frames on their way into the lanes. Ends with its value.
struct Pushing {
    frames: u64,
    hosts: JoinSet<Result<(), storage::error::Error>>,
}

impl Measured {
    pub(crate) fn events_per_second(&self, events: u64) -> f64 {
        events as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn micros_per_event(&self, events: u64) -> f64 {
        micros(self.cpu) / events as f64
    }
}

impl<'t> Court<'t> {
    pub(crate) fn open(traffic: &'t Traffic, others: &'t Handle) -> anyhow::Result<Court<'t>> {
        let _in_runtime = others.enter();
        let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
        let mut config = identity::Config::new(Url::parse(traffic.plc_url())?);
        config.per_second = NonZeroU32::new(100_000).expect("100,000 is not 0");
        let identities = memory::open().identities;
        let (resolver, directory) =
            identity::build(config, egress.clone(), Clock::system(), identities, &Registry::new())?;
        others.spawn(directory.run(CancellationToken::new()));
        Ok(Court { traffic, resolver, egress, others })
    }

    /// All commits, on threads of the validator's own. The lanes are filled before: on two cores whoever fills them
    /// meanwhile takes from two judges what one leaves alone.
    pub(crate) fn judge(&self, workers: NonZeroUsize) -> anyhow::Result<Measured> {
        let turn = self.turn(LaneQueues::new(LaneCount(LANES), usize::MAX, usize::MAX))?;
        let introductions = self.push(&turn, self.traffic.routed_introductions(&turn.receipts())?);
        let known = introductions.frames;
        self.at_work(&turn, workers, || turn.wait_for(known))?;
        let commits = self.traffic.routed_commits(&turn.receipts())?;
        let pushed = self.push(&turn, commits);
        let all = known + pushed.frames;
        self.others.block_on(pushed.hosts.join_all()).into_iter().collect::<Result<(), _>>()?;
        let wall = Instant::now();
        let (wall, cpu) = self.at_work(&turn, workers, || {
            turn.wait_for(all)?;
            Ok((wall.elapsed(), judges_cpu()?))
        })?;
        turn.check()?;
        Ok(Measured { wall, cpu })
    }

    /// Lets the validator's threads judge until `done` returns; they are new ones, and have ended then.
    fn at_work<T>(
        &self,
        turn: &Turn,
        workers: NonZeroUsize,
        done: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let shutdown = CancellationToken::new();
        let _stops = shutdown.clone().drop_guard();
        let (validator, stop) = (turn.validator.clone(), shutdown.clone());
        let running = self.others.spawn(async move { validator.run_workers(workers, stop).await });
        let result = done()?;
        shutdown.cancel();
        self.others.block_on(running)??;
        Ok(result)
    }

    /// All commits, on this thread, those alone inside [`judge_all_here`]. The lanes are filled before.
    pub(crate) fn judge_here(&self) -> anyhow::Result<Duration> {
        let turn = self.turn(LaneQueues::new(LaneCount(LANES), usize::MAX, usize::MAX))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let shutdown = CancellationToken::new();
        let lanes: Vec<_> = turn.intake.lanes().all().collect();
        let (validator, stop) = (turn.validator.clone(), shutdown.clone());
        let local = LocalSet::new();
        let judging = local.spawn_local(async move {
            let lanes = lanes.into_iter().map(|lane| validator.run_lane(lane, stop.clone()));
            try_join_all(lanes).await
        });
        let introductions = self.push(&turn, self.traffic.routed_introductions(&turn.receipts())?);
        runtime.block_on(local.run_until(turn.until(introductions.frames)));
        // Nobody judges while this fills the lanes: this thread is in no runtime of theirs.
        let pushed = self.push(&turn, self.traffic.routed_commits(&turn.receipts())?);
        self.others.block_on(pushed.hosts.join_all()).into_iter().collect::<Result<(), _>>()?;
        let began = Instant::now();
        judge_all_here(&runtime, &local, &turn, introductions.frames + pushed.frames);
        let took = began.elapsed();
        turn.check()?;
        shutdown.cancel();
        runtime.block_on(local.run_until(judging))??;
        Ok(took)
    }

    fn turn(&self, intake: LaneQueues) -> anyhow::Result<Turn> {
        let (intake, log, refusals) = (Arc::new(intake), Arc::new(ForgetfulLog::new()), Arc::new(Refusals::default()));
        let parts = Parts {
            stores: stores(Arc::clone(&intake), Arc::clone(&log)),
            resolver: self.resolver.clone(),
            egress: self.egress.clone(),
            limits: Limits::new(Rules::default(), true),
            refusals: Arc::clone(&refusals),
            clock: Clock::system(),
            tracer: Tracer::off(),
        };
        let validator = Validator::build(validator::Config::default(), parts, &Registry::new())?;
        Ok(Turn { validator, intake, log, refusals, counter: Arc::default() })
    }

    /// Begins to push.
    fn push(&self, turn: &Turn, by_host: Vec<Vec<RawFrame>>) -> Pushing {
        let frames = by_host.iter().map(|frames| frames.len() as u64).sum();
        let mut hosts = JoinSet::new();
        for frames in by_host {
            let intake = Arc::clone(&turn.intake);
            let push_all = async move {
                for frame in frames {
                    intake.push(frame).await?;
                }
                Ok(())
            };
            hosts.spawn_on(push_all, self.others);
        }
        Pushing { frames, hosts }
    }
}

/// The name is what callgrind's `--toggle-collect` looks for.
#[inline(never)]
fn judge_all_here(runtime: &Runtime, local: &LocalSet, turn: &Turn, taken: u64) {
    runtime.block_on(local.run_until(turn.until(taken)));
}

impl Turn {
    fn receipts(&self) -> Arc<dyn Receipts> {
        self.counter.clone()
    }

    /// Waits until so many frames are judged; lanes of this thread go on meanwhile.
    async fn until(&self, taken: u64) {
        while self.counter.taken() < taken {
            yield_now().await;
        }
    }

    fn wait_for(&self, taken: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.counter.taken() < taken {
            ensure!(began.elapsed() < LIMIT, "{} of {taken} frames judged in {LIMIT:?}", self.counter.taken());
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A refusal is cheaper than a verdict: a turn with one is none.
    fn check(&self) -> anyhow::Result<()> {
        let refused: u64 = self.refusals.totals().map(|(_, count)| count).sum();
        ensure!(refused == 0, "{refused} frames were refused");
        ensure!(self.log.appended() == self.counter.taken(), "some frames were taken for repeats");
        Ok(())
    }
}

/// CPU time of the threads named `judge-…` so far.
fn judges_cpu() -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task").context("the threads' times are read from /proc")? {
        let folder = task?.path();
        if !fs::read_to_string(folder.join("comm"))?.starts_with("judge-") {
            continue;
        }
        let stat = fs::read_to_string(folder.join("schedstat"))?;
        let spent: u64 = stat.split_whitespace().next().unwrap_or_default().parse()?;
        nanos += spent;
    }
    Ok(Duration::from_nanos(nanos))
}
