//! Lanes on a real broker, with rows in memory.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use atproto::{event::Kind, syntax::Did};
use prometheus::Registry;
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use storage::{
    conformance::sample,
    intake::{Action, Command, CommandReceipt, Declined, Intake, Position, RawFrame, Receipts, Taken, Work},
    repos::{LocalStatus, RepoState},
    seq::Seq,
};
use testservers::Kafka;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::DropGuard;

use super::*;
use crate::{
    admin,
    config::{self, Config, Cql, Plan, Replication},
    intake::{self, RawIntake},
    kafka::{client, topics},
    recovery::Recovery,
    room::{self, Room},
    rows::Answer,
    sequence,
    testing::wait_until,
    wire::raw::CommandId,
};

const LONG: Duration = Duration::from_secs(60);

/// Rows that keep what has the highest offset.
#[derive(Default)]
struct MemoryRows {
    states: Mutex<HashMap<Did, (RepoState, i64)>>,
    answers: Mutex<HashMap<CommandId, Answer>>,
}

#[async_trait]
impl LaneRows for MemoryRows {
    fn own(&self, _lane: Lane) {}

    fn disown(&self, _lane: Lane) {}

    async fn apply(&self, _lane: Lane, events: &[(Did, RepoState, i64)]) -> Result<(), Error> {
        let mut states = self.states.lock().unwrap();
        for (did, state, offset) in events {
            let is_late = states.get(did).is_some_and(|(_, at)| at > offset);
            if !is_late {
                states.insert(did.clone(), (state.clone(), *offset));
            }
        }
        Ok(())
    }

    async fn state(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        Ok(self.states.lock().unwrap().get(did).map(|(state, _)| state.clone()))
    }

    async fn answer(&self, id: &CommandId, answer: &Answer) -> Result<(), Error> {
        self.answers.lock().unwrap().insert(*id, answer.clone());
        Ok(())
    }

    async fn find(&self, id: &CommandId) -> Result<Option<Answer>, Error> {
        Ok(self.answers.lock().unwrap().get(id).cloned())
    }
}

/// Counts.
#[derive(Default)]
struct Told(AtomicU64);

impl Receipts for Told {
    fn taken(&self, _upstream_seq: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A cluster's topics, with nobody on them.
struct Topics {
    config: Config,
    lanes: LaneCount,
    rows: Arc<MemoryRows>,
}

impl Topics {
    async fn make(name: &str, lanes: u32) -> Topics {
        let bootstrap = tokio::task::spawn_blocking(|| Kafka::shared().bootstrap()).await.unwrap();
        let login = config::Kafka { brokers: vec![bootstrap], tls: None, sasl: None };
        let cql = Cql {
            contact_points: Vec::new(),
            datacenter: None,
            login: None,
            tls: None,
            patience: Duration::from_secs(1),
        };
        let config = Config { name: name.to_owned(), kafka: login, cql, limits: Limits::default() };
        let admin: AdminClient<DefaultClientContext> = client::settings(&config.kafka, "test").create().unwrap();
        let lanes = LaneCount(NonZeroU32::new(lanes).unwrap());
        let replication = Replication { kafka: 1, cql: 1 };
        let specs = topics::specs(name, &Plan { lanes, replication, ..Plan::default() });
        topics::create(&admin, &specs, 1).await.unwrap();
        Topics { config, lanes, rows: Arc::default() }
    }

    /// A sequencer that trims all the time. Before anybody judges: the order is begun where nothing was ever written.
    async fn sequencer(&self) -> (sequence::Metrics, DropGuard) {
        let plan = Plan { lanes: self.lanes, replication: Replication { kafka: 1, cql: 1 }, ..Plan::default() };
        let made = admin::init::topics(&self.config, &plan, Seq(1)).await.unwrap();
        assert_eq!(made.began_at, Some(Seq(1)), "{:?}", made.differs);
        let limits = sequence::Limits { trim_every: Duration::from_millis(100), ..sequence::Limits::default() };
        let config = sequence::Config::of(&self.config, self.lanes, Clock::system());
        let metrics = sequence::Metrics::register(&Registry::new()).unwrap();
        let sequencer = sequence::Sequencer::new(sequence::Config { limits, ..config }, metrics.clone());
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "it ends with the guard")]
        drop(tokio::spawn(sequencer.run(stop.clone())));
        (metrics, stop.drop_guard())
    }

    /// A process that judges.
    fn judge(&self) -> Judge {
        let (mut judge, member) = self.process();
        judge.member = Some(member.join().unwrap());
        judge
    }

    /// A process that may join those that judge.
    fn process(&self) -> (Judge, Member) {
        self.process_with_room(u64::MAX)
    }

    /// The same, which waits while `raw` holds this much.
    fn process_with_room(&self, raw_bytes_max: u64) -> (Judge, Member) {
        let (Config { name, kafka, limits, .. }, lanes) = (&self.config, self.lanes);
        let settings = client::settings(kafka, "test");
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let topics = topics::Topics::of(name);
        let producer = Arc::new(Producer::new(&settings, 64 << 20).unwrap());
        let raw = Room::watch(room::Parts {
            settings: settings.clone(),
            topic: topics.raw.clone(),
            lanes,
            bytes_max: raw_bytes_max,
            metrics: room::Metrics::register(&Registry::new()).unwrap(),
        });
        let parts = Parts {
            reader: Arc::new(Reader::new(&settings, name, limits.read_ahead_bytes).unwrap()),
            producer: Arc::clone(&producer),
            settings,
            name: name.clone(),
            lanes,
            topics: topics.clone(),
            rows: Arc::clone(&self.rows) as _,
            limits: *limits,
            clock: Clock::system(),
            metrics: metrics.clone(),
        };
        let reader = Arc::clone(&parts.reader);
        let (lanes_here, member) = Lanes::new(parts);
        let lanes_here = Arc::new(lanes_here);
        let intake = RawIntake::new(intake::Parts {
            topic: topics.raw,
            lanes,
            producer,
            rows: Arc::clone(&self.rows) as _,
            metrics,
            bytes_max: limits.pushed_bytes_max,
            raw: Some(raw.unwrap()),
            judged: Some(Arc::clone(&lanes_here)),
        });
        let (held, told) = (BTreeSet::new(), Arc::default());
        (Judge { lanes: lanes_here, intake, member: None, reader, held, told }, member)
    }
}

struct Judge {
    lanes: Arc<Lanes>,
    intake: RawIntake,
    member: Option<Running>,
    reader: Arc<Reader>,
    held: BTreeSet<u32>,
    told: Arc<Told>,
}

impl Judge {
    async fn change(&mut self) {
        match timeout(LONG, self.lanes.next()).await.expect("the group stands still").unwrap() {
            Change::Given(lane) => assert!(self.held.insert(lane.0), "given twice"),
            Change::Gone(lane) => {
                self.lanes.released(lane).await;
                assert!(self.held.remove(&lane.0), "it was not given");
            }
        }
    }

    async fn until_held(&mut self, count: usize) {
        while self.held.len() != count {
            self.change().await;
        }
    }

    async fn push(&self, account: u64, number: u64) {
        let did = sample::did(account);
        let (bytes, seq_slot) = sample::frame(&did, number, 300);
        let frame = RawFrame {
            host: sample::host(account),
            host_epoch: 0,
            upstream_seq: number,
            received_at_micros: 1,
            did,
            kind: Kind::Identity,
            seq_slot,
            bytes,
            receipts: Arc::clone(&self.told) as _,
        };
        self.intake.push(frame).await.unwrap();
    }

    /// Exactly so many.
    async fn pull(&self, lane: Lane, count: usize) -> Vec<Taken> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(timeout(LONG, self.intake.pull(lane, 1 << 20)).await.expect("nothing comes").unwrap());
        }
        assert_eq!(all.len(), count);
        all
    }

    async fn leave(mut self) {
        let member = self.member.take().unwrap();
        let mut left = tokio::task::spawn_blocking(move || member.leave());
        loop {
            tokio::select! {
                done = &mut left => return done.unwrap(),
                () = self.change() => {}
            }
        }
    }
}

fn numbers(taken: &[Taken]) -> Vec<u64> {
    let number = |taken: &Taken| match &taken.work {
        Work::Frame(frame) => frame.upstream_seq,
        Work::Command(_) => 0,
    };
    taken.iter().map(number).collect()
}

/// The event that a frame becomes.
fn accept(taken: &Taken) -> Accepted {
    let Work::Frame(frame) = &taken.work else { panic!("a command") };
    let mut event = sample::accepted(0, frame.upstream_seq, 300);
    event.did = frame.did.clone();
    event.position = Some(taken.position);
    event
}

/// The numbers of a lane's events that count.
async fn valid(judge: &Judge, topic: &str, lane: Lane, through: u64) -> Vec<u64> {
    let reading = judge.reader.open(topic, client::partition(lane), 0).unwrap();
    let mut recovery = Recovery::new(Resume { raw: 0, verified: 0, claim: None });
    let mut all = Vec::new();
    loop {
        let next = reading.next(|offset, record| Ok(recovery.take(offset, record).unwrap()));
        let state = timeout(LONG, next).await.expect("a record is missing").unwrap();
        all.extend(state.map(|(_, state)| state.upstream_seq));
        if all.last() == Some(&through) {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_move_to_who_comes_and_back_from_who_leaves() {
    let topics = Topics::make("moves", 4).await;
    let mut first = topics.judge();
    first.until_held(4).await;
    for number in 1..=40 {
        first.push(number, number).await;
    }
    let mut counts = HashMap::new();
    for lane in topics.lanes.all() {
        let count = (1..=40).filter(|account| topics.lanes.lane_of(&sample::did(*account)) == lane).count();
        let taken = first.pull(lane, count).await;
        timeout(LONG, first.lanes.append(taken.iter().map(accept).collect())).await.unwrap().unwrap();
        first.intake.cover(lane, taken.last().unwrap().position).await.unwrap();
        counts.insert(lane, taken.last().unwrap().position);
    }
    assert_eq!(topics.rows.states.lock().unwrap().len(), 40);
    let mut second = topics.judge();
    tokio::join!(first.until_held(2), second.until_held(2));
    assert!(first.held.is_disjoint(&second.held));
    // Nothing comes again, and what is new comes to who has the lane.
    for number in 41..=80 {
        first.push(number, number).await;
    }
    for judge in [&first, &second] {
        for lane in &judge.held {
            let lane = Lane(*lane);
            let taken = timeout(LONG, judge.intake.pull(lane, 0)).await.expect("nothing comes").unwrap();
            assert_eq!(taken[0].position, Position(counts[&lane].0 + 1));
            assert!(numbers(&taken)[0] > 40);
        }
    }
    let began = Instant::now();
    let (_, ()) = tokio::join!(second.until_held(4), first.leave());
    println!("handed over in {:?}", began.elapsed());
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_judges_nothing_again_that_is_in_verified() {
    let topics = Topics::make("again", 1).await;
    let lane = Lane(0);
    let mut first = topics.judge();
    first.until_held(1).await;
    for number in 1..=10 {
        first.push(1, number).await;
    }
    let taken = first.pull(lane, 10).await;
    // Numbers 3, 4 and 7 are settled, 1 and 2 covered with them.
    let settled = [0, 1, 2, 3, 6].map(|at| accept(&taken[at]));
    timeout(LONG, first.lanes.append(settled.into())).await.unwrap().unwrap();
    first.intake.cover(lane, taken[1].position).await.unwrap();
    // The rows are lost; whoever takes over writes again what may be missing.
    first.leave().await;
    topics.rows.states.lock().unwrap().clear();
    let mut second = topics.judge();
    second.until_held(1).await;
    assert_eq!(topics.rows.states.lock().unwrap()[&sample::did(1)].0.upstream_seq, 7);
    let left = second.pull(lane, 5).await;
    assert_eq!(numbers(&left), [5, 6, 8, 9, 10]);
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_zombie_writes_does_not_count() {
    let topics = Topics::make("zombie", 1).await;
    let (lane, verified) = (Lane(0), topics::Topics::of("zombie").verified);
    let mut first = topics.judge();
    first.until_held(1).await;
    for number in 1..=9 {
        first.push(1, number).await;
    }
    let theirs = first.pull(lane, 9).await;
    let append = |judge: &Judge, taken: &[Taken]| {
        let (lanes, batch) = (Arc::clone(&judge.lanes), taken.iter().map(accept).collect());
        async move { timeout(LONG, lanes.append(batch)).await.expect("no answer") }
    };
    append(&first, &theirs[..3]).await.unwrap();
    // The group forgets it; it goes on.
    let member = first.member.take().unwrap();
    tokio::task::spawn_blocking(move || member.desert()).await.unwrap();
    let mut second = topics.judge();
    second.until_held(1).await;
    let late = append(&first, &theirs[3..6]).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    let pulled = first.intake.pull(lane, 1000).await;
    assert!(matches!(pulled, Err(Error::Fenced { .. })));
    let ours = second.pull(lane, 6).await;
    assert_eq!(numbers(&ours), [4, 5, 6, 7, 8, 9]);
    // The zombie's records stand between ours and our claim: so the lane is claimed again.
    match append(&second, &ours[..2]).await {
        Ok(()) => append(&second, &ours[2..]).await.unwrap(),
        Err(Error::Fenced { .. }) => {
            second.lanes.released(lane).await;
            second.held.clear();
            second.until_held(1).await;
            let again = second.pull(lane, 4).await;
            assert_eq!(numbers(&again), [6, 7, 8, 9], "what was appended under our claim counts");
            append(&second, &again).await.unwrap();
        }
        other => panic!("{other:?}"),
    }
    second.push(1, 10).await;
    let last = second.pull(lane, 1).await;
    append(&second, &last).await.unwrap();
    let valid = valid(&second, &verified, lane, 10).await;
    assert!(valid.is_sorted() && valid.windows(2).all(|two| two[0] < two[1]), "each once, in order: {valid:?}");
    assert_eq!(topics.rows.states.lock().unwrap()[&sample::did(1)].0.upstream_seq, 10);
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_is_deleted_and_nothing_else() {
    let topics = Topics::make("trims", 1).await;
    let (metrics, _stop) = topics.sequencer().await;
    let lane = Lane(0);
    let mut first = topics.judge();
    first.until_held(1).await;
    for number in 1..=20 {
        first.push(1, number).await;
    }
    let taken = first.pull(lane, 20).await;
    timeout(LONG, first.lanes.append(taken[..10].iter().map(accept).collect())).await.unwrap().unwrap();
    first.intake.cover(lane, taken[4].position).await.unwrap();
    // Of `verified` the claim and what settles the first five.
    let trimmed = || (metrics.trimmed_raw.get(), metrics.trimmed_verified.get());
    wait_until("what is settled is deleted", || trimmed() == (5, 6)).await;
    first.leave().await;
    let mut second = topics.judge();
    second.until_held(1).await;
    let left = second.pull(lane, 10).await;
    assert_eq!(numbers(&left), (11..=20).collect::<Vec<_>>());
    assert_eq!(trimmed(), (5, 6));
    timeout(LONG, second.lanes.append(left.iter().map(accept).collect())).await.unwrap().unwrap();
    second.intake.cover(lane, left[9].position).await.unwrap();
    wait_until("all is deleted", || trimmed() == (20, 22)).await;
    assert_eq!(metrics.events.get(), 20);
    second.leave().await;
    // Without the group's positions nobody can say what was judged.
    let admin: AdminClient<DefaultClientContext> = client::settings(&topics.config.kafka, "test").create().unwrap();
    let deleting = async {
        // The last member may not have left yet.
        while admin.delete_groups(&["trims.validators"], &AdminOptions::new()).await.unwrap()[0].is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, deleting).await.expect("the group stays");
    let third = topics.judge();
    let refused = timeout(LONG, third.lanes.next()).await.expect("nobody is told");
    assert!(matches!(&refused, Err(Error::Damaged { what }) if what.contains("no position of lane 0")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_wait_while_raw_is_full_and_nothing_is_lost() {
    const COUNT: u64 = 1_500;
    let topics = Topics::make("full", 1).await;
    let (metrics, _stop) = topics.sequencer().await;
    let lane = Lane(0);
    let mut judge = topics.judge();
    judge.until_held(1).await;
    // Its records are of half a kilobyte, and taken for more before there were many: some of them fill it.
    let (crawler, _) = topics.process_with_room(200_000);
    let room = crawler.intake.raw().unwrap();
    let pushed = AtomicU64::new(0);
    let pushing = async {
        for number in 1..=COUNT {
            crawler.push(1, number).await;
            pushed.store(number, Ordering::SeqCst);
        }
    };
    let judging = async {
        wait_until("raw is full", || room.borrow().is_full()).await;
        let at_limit = pushed.load(Ordering::SeqCst);
        assert!(at_limit < COUNT, "all went in");
        // An operator's word is not held up.
        crawler.intake.push_command(command(2, Action::Takedown).0).await.unwrap();
        let mut numbers_judged = Vec::new();
        while numbers_judged.len() < COUNT as usize {
            let taken = timeout(LONG, judge.intake.pull(lane, 20_000)).await.expect("nothing comes").unwrap();
            let frames: Vec<_> = taken.iter().filter(|taken| matches!(taken.work, Work::Frame(_))).collect();
            judge.lanes.append(frames.iter().map(|taken| accept(taken)).collect()).await.unwrap();
            judge.intake.cover(lane, taken.last().unwrap().position).await.unwrap();
            numbers_judged.extend(numbers(&taken).into_iter().filter(|number| *number > 0));
        }
        assert_eq!(numbers_judged, (1..=COUNT).collect::<Vec<_>>());
    };
    timeout(2 * LONG, async { tokio::join!(pushing, judging) }).await.expect("it does not go on");
    wait_until("all is published", || metrics.events.get() == COUNT).await;
    judge.leave().await;
}

/// Hears how a command ends.
struct Ends(Mutex<Option<oneshot::Sender<Answer>>>);

impl CommandReceipt for Ends {
    fn settled(&self, result: Result<RepoState, Declined>) {
        let _gone = self.0.lock().unwrap().take().unwrap().send(result);
    }
}

fn command(account: u64, action: Action) -> (Command, oneshot::Receiver<Answer>) {
    let (ends, ended) = oneshot::channel();
    let receipt = Arc::new(Ends(Mutex::new(Some(ends))));
    (Command { did: sample::did(account), action, received_at_micros: 1, receipt }, ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_left_no_record_is_not_carried_out_after_its_successor() {
    let topics = Topics::make("successor", 1).await;
    let lane = Lane(0);
    let mut first = topics.judge();
    first.until_held(1).await;
    // The process that gives commands outlives who judges them.
    let (pusher, _) = topics.process();
    // What waits before them holds the cover.
    first.push(1, 1).await;
    while first.told.0.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut ended = Vec::new();
    for action in [Action::Takedown, Action::Takedown, Action::Restore, Action::Takedown] {
        let (command, ends) = command(1, action);
        pusher.intake.push_command(command).await.unwrap();
        ended.push(ends);
    }
    // The first of them, and the third: the second has changed nothing, the last is not judged yet.
    let taken = first.pull(lane, 5).await;
    let events = [(1, LocalStatus::TakenDown), (3, LocalStatus::None)].map(|(at, local)| {
        let mut event = sample::accepted(1, 7, 300);
        (event.state.local, event.position) = (local, Some(taken[at].position));
        event
    });
    timeout(LONG, first.lanes.append(events.into())).await.unwrap().unwrap();
    first.leave().await;
    let mut second = topics.judge();
    second.until_held(1).await;
    let left = second.pull(lane, 2).await;
    assert_eq!([left[0].position, left[1].position], [taken[0].position, taken[4].position]);
    for ends in ended.drain(..3) {
        let state = timeout(LONG, ends).await.expect("nobody is told").unwrap().unwrap();
        assert_eq!(state.local, LocalStatus::None);
    }
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gave_a_command_hears_its_end() {
    let topics = Topics::make("commands", 1).await;
    let mut judge = topics.judge();
    judge.until_held(1).await;
    for leaves in [false, true] {
        let (command, ended) = command(1, Action::Takedown);
        // Whoever gives it lives elsewhere.
        let (pusher, _) = topics.process();
        pusher.intake.push_command(command).await.unwrap();
        let taken = judge.pull(Lane(0), 1).await;
        let Work::Command(command) = &taken[0].work else { panic!("a frame") };
        let mut event = sample::accepted(1, 7, 300);
        event.state.local = LocalStatus::TakenDown;
        event.position = Some(taken[0].position);
        let state = event.state.clone();
        timeout(LONG, judge.lanes.append(vec![event])).await.unwrap().unwrap();
        if leaves {
            // It is carried out and durable, and nobody was told.
            judge.leave().await;
            judge = topics.judge();
            judge.until_held(1).await;
            let pulling = judge.intake.pull(Lane(0), 1000);
            tokio::select! {
                _ = pulling => panic!("there is nothing to judge"),
                answer = ended => assert_eq!(answer.unwrap(), Ok(state)),
            }
        } else {
            command.receipt.settled(Ok(state.clone()));
            assert_eq!(timeout(LONG, ended).await.unwrap().unwrap(), Ok(state));
            judge.intake.cover(Lane(0), taken[0].position).await.unwrap();
        }
    }
    judge.leave().await;
}
