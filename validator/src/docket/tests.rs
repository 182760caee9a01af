use std::sync::{Arc, Mutex};

use atproto::{
    did_doc::DidDocument,
    event::{self, Event},
    frame::SeqSlot,
};
use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use storage::intake::Receipts;

use super::*;
use crate::verdict::Reason;
use crate::{identity::Absence, places::Standing, refreshes::Refreshes};

const LAG: u64 = 1_000;
/// When the lane began to be judged here.
const SINCE: u64 = 500_000;

/// What the rules would say of a frame, by what it is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Good,
    Bad,
    /// Refused unless the identity is fresh; then good.
    NeedsNewIdentity,
    /// Refused by an old identity, and by a fresh one.
    BadByIdentity,
    /// The host has to be asked; it says active.
    NeedsStatus,
    /// The host has to be asked; it says deactivated.
    Inactive,
}

#[derive(Clone, Debug)]
struct Script {
    did: usize,
    host: usize,
    nature: Nature,
    kind: Kind,
    bytes: usize,
    /// Sent twice: the second must be a repeat if the first was accepted.
    again: bool,
}

struct NoReceipts;

impl Receipts for NoReceipts {
    fn taken(&self, _upstream_seq: u64) {}
}

fn did(n: usize) -> Did {
    Did::parse(&format!("did:plc:{n:024}")).unwrap()
}

fn host(n: usize) -> HostName {
    HostName::parse(&format!("h{n}.example.com")).unwrap()
}

fn document(did: &Did) -> Arc<DidDocument> {
    Arc::new(DidDocument { did: did.clone(), signing_key: None, pds: None, handle: None })
}

/// How commands ended.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<Ended>>>);

type Ended = (Position, Result<RepoState, Declined>);

struct End(Ends, Position);

impl CommandReceipt for End {
    fn settled(&self, result: Result<RepoState, Declined>) {
        self.0.0.lock().unwrap().push((self.1, result));
    }
}

/// What is taken, in order.
#[derive(Clone, Debug)]
enum Item {
    Frame(Script, u64),
    Command(usize, Action),
}

fn state(frame: &RawFrame, before: Option<&RepoState>) -> RepoState {
    RepoState {
        host: frame.host.clone(),
        host_epoch: frame.host_epoch,
        upstream_seq: frame.upstream_seq,
        head: None,
        upstream: AccountStatus::Deactivated,
        local: match before.map(|before| before.local) {
            Some(LocalStatus::TakenDown) => LocalStatus::TakenDown,
            Some(LocalStatus::Throttled) | Some(LocalStatus::None) | None => LocalStatus::None,
        },
    }
}

fn frame(script: &Script, seq: u64, received_at_micros: u64) -> RawFrame {
    RawFrame {
        host: host(script.host),
        host_epoch: 0,
        upstream_seq: seq,
        received_at_micros,
        did: did(script.did),
        kind: script.kind,
        seq_slot: SeqSlot { start: 0, end: 1 },
        bytes: Bytes::from(vec![0; script.bytes]),
        receipts: Arc::new(NoReceipts),
    }
}

/// A judge that follows the script and checks what it is given.
struct Scripted {
    natures: HashMap<u64, Nature>,
    cached: HashMap<Did, Identity>,
    /// The state that the last accepted frame left.
    model: HashMap<Did, RepoState>,
    settled: Vec<(Party, u64, Outcome)>,
    accounts_max: Option<u64>,
    /// Whether the directory is down, so that an announced change can't be looked at.
    directory_is_down: bool,
    refreshes: Refreshes,
}

fn refusal(reason: Reason) -> Refusal {
    Refusal::new(reason, "this", "that")
}

impl Judge for Scripted {
    fn accounts_max(&mut self, _host: &HostName) -> Option<u64> {
        self.accounts_max
    }

    fn identity(&mut self, did: &Did) -> Option<Identity> {
        self.cached.get(did).cloned()
    }

    fn judge(&mut self, frame: &RawFrame, evidence: &Evidence<'_>) -> Verdict {
        match (evidence.state, self.model.get(&frame.did)) {
            (Some(seen), Some(_)) if seen.local == LocalStatus::Throttled => {}
            (Some(seen), Some(last)) => assert_eq!(seen.upstream_seq, last.upstream_seq, "judged by an old state"),
            (None, None) => {}
            // Marked as throttled, and perhaps taken down and restored, before anything of it was accepted.
            (Some(_), None) => {}
            (None, Some(_)) => panic!("its state was forgotten"),
        }
        if frame.kind == Kind::Identity && !self.directory_is_down {
            assert!(evidence.identity.fetched_at_micros >= frame.received_at_micros, "not refreshed");
        }
        let good = Verdict::Accept(Accept { state: state(frame, evidence.state), discontinuous: false });
        match self.natures[&frame.upstream_seq] {
            Nature::Good | Nature::Bad if frame.host == host(0) && evidence.room != Room::Free => {
                Verdict::Refuse(refusal(Reason::AccountThrottled))
            }
            Nature::Good => good,
            Nature::Bad => Verdict::Refuse(refusal(Reason::BadCar)),
            Nature::NeedsNewIdentity if evidence.identity_is_fresh => good,
            Nature::NeedsNewIdentity => Verdict::RefreshIdentity(refusal(Reason::WrongHost)),
            Nature::BadByIdentity if evidence.identity_is_fresh => Verdict::Refuse(refusal(Reason::BadSignature)),
            Nature::BadByIdentity => Verdict::RefreshIdentity(refusal(Reason::BadSignature)),
            Nature::NeedsStatus | Nature::Inactive if !evidence.status_is_fresh => {
                Verdict::AskStatus(refusal(Reason::AccountInactive))
            }
            // Without a state there is nothing that the answer could change.
            Nature::NeedsStatus if evidence.state.is_none_or(|state| state.upstream == AccountStatus::Active) => good,
            Nature::NeedsStatus | Nature::Inactive => Verdict::Refuse(refusal(Reason::AccountInactive)),
        }
    }

    fn may_refresh(&mut self, host: &HostName, now_micros: u64) -> bool {
        self.refreshes.take(host, now_micros)
    }

    fn was_right(&mut self, host: &HostName) {
        self.refreshes.give_back(host);
    }

    fn settled(&mut self, frame: &RawFrame, outcome: Outcome) {
        if let Outcome::Accepted { .. } = outcome {
            self.model.insert(frame.did.clone(), state(frame, None));
        }
        self.settled.push((Party::of_host(frame), frame.upstream_seq, outcome));
    }
}

/// The outside: what is asked and not answered, what is appended and not durable.
struct World {
    docket: Docket,
    judge: Scripted,
    now: u64,
    asks: Vec<(Ask, Option<RepoState>)>,
    appends: VecDeque<Vec<Accepted>>,
    store: HashMap<Did, RepoState>,
    log: Vec<Accepted>,
    commands: Vec<(Position, Did, Action)>,
    ends: Ends,
    taken: Vec<(Position, Party, u64)>,
    covered: Option<Position>,
    /// Whether hosts' accounts are counted without anybody seeing that they were asked for.
    counts_at_once: bool,
}

impl World {
    fn new(limits: Limits) -> World {
        World {
            docket: Docket::new(limits, Arc::default(), SINCE),
            judge: Scripted {
                natures: HashMap::new(),
                cached: HashMap::new(),
                model: HashMap::new(),
                settled: Vec::new(),
                accounts_max: None,
                directory_is_down: false,
                refreshes: Refreshes::new(1_000, 1),
            },
            now: 1_000_000,
            asks: Vec::new(),
            appends: VecDeque::new(),
            store: HashMap::new(),
            log: Vec::new(),
            commands: Vec::new(),
            ends: Ends::default(),
            taken: Vec::new(),
            covered: None,
            counts_at_once: true,
        }
    }

    fn take(&mut self, script: &Script, seq: u64) {
        self.judge.natures.insert(seq, script.nature);
        let frame = frame(script, seq, self.now);
        let position = self.next_position();
        self.taken.push((position, Party::of_host(&frame), seq));
        self.docket.take(Taken { position, work: Work::Frame(frame) }, self.now, &mut self.judge);
        self.after();
    }

    fn next_position(&self) -> Position {
        Position((self.taken.len() + self.commands.len()) as u64 * 3 + 1)
    }

    fn command(&mut self, did: Did, action: Action) {
        let position = self.next_position();
        self.commands.push((position, did.clone(), action));
        let receipt = Arc::new(End(self.ends.clone(), position));
        let command = Command { did, action, received_at_micros: self.now, receipt };
        self.docket.take(Taken { position, work: Work::Command(command) }, self.now, &mut self.judge);
        self.after();
    }

    fn give(&mut self, item: Item) {
        match item {
            Item::Frame(script, seq) => self.take(&script, seq),
            Item::Command(account, action) => self.command(did(account), action),
        }
    }

    /// The events in the log that came from hosts, by their seqs there.
    fn logged(&self) -> Vec<u64> {
        self.log.iter().filter(|event| told(event).is_none()).map(|event| event.state.upstream_seq).collect()
    }

    /// Answers one ask. What a store says may be as old as the question.
    fn answer(&mut self, at: usize, read_late: bool) {
        let (ask, early) = self.asks.remove(at);
        let answer = match ask {
            Ask::State(did) => {
                let state = if read_late { self.store.get(&did).cloned() } else { early };
                Answer::State(did, state)
            }
            Ask::Identity(party, want) => {
                let fetched_at_micros = match want {
                    Want::Any => self.now,
                    Want::Announced { at_micros } | Want::Since { at_micros } => self.now.max(at_micros),
                };
                self.now = fetched_at_micros;
                let identity = Identity { known: Ok(document(&party.did)), fetched_at_micros };
                if read_late {
                    self.judge.cached.insert(party.did.clone(), identity.clone());
                }
                Answer::Identity(party, identity)
            }
            Ask::Status(party, _) => {
                let settled = self.judge.settled.iter().filter(|(by, ..)| *by == party).count();
                let front = self.taken.iter().filter(|(_, of, _)| *of == party).nth(settled);
                let active = self.judge.natures[&front.unwrap().2] == Nature::NeedsStatus;
                let status = if active { AccountStatus::Active } else { AccountStatus::Deactivated };
                Answer::Status(party, Some(status))
            }
            Ask::Places(party, host) => {
                self.count(&host);
                Answer::Places(party)
            }
        };
        self.docket.answer(answer, self.now, &mut self.judge);
        self.after();
    }

    fn count(&mut self, host: &HostName) {
        if self.docket.places.standing(host).is_none() {
            let of_host = self.store.values().filter(|state| state.host == *host);
            let (throttled, taken): (Vec<_>, Vec<_>) = of_host.partition(|state| state.local == LocalStatus::Throttled);
            let standing = Standing { taken: taken.len() as u64, throttled: throttled.len() as u64 };
            self.docket.places.put(host, standing);
        }
    }

    fn hand_out(&mut self) {
        if let Some(batch) = self.docket.next_batch() {
            self.appends.push_back(batch);
        }
        self.after();
    }

    fn make_durable(&mut self) {
        if let Some(batch) = self.appends.pop_front() {
            for event in &batch {
                self.store.insert(event.did.clone(), event.state.clone());
            }
            self.log.extend(batch);
            self.docket.appended();
        }
        self.after();
    }

    /// Collects asks, and checks what must hold at all times.
    fn after(&mut self) {
        while let Some(ask) = self.docket.next_ask() {
            if let Ask::Places(party, host) = &ask
                && self.counts_at_once
            {
                self.count(host);
                self.docket.answer(Answer::Places(party.clone()), self.now, &mut self.judge);
                continue;
            }
            assert!(self.asks.iter().all(|(open, _)| *open != ask), "asked twice: {ask:?}");
            let early = match &ask {
                Ask::State(did) => self.store.get(did).cloned(),
                Ask::Identity(..) | Ask::Status(..) | Ask::Places(..) => None,
            };
            self.asks.push((ask, early));
        }
        while let Some(done) = self.docket.next_done() {
            done.tell();
        }
        for (position, result) in &*self.ends.0.lock().unwrap() {
            let (_, did, action) = self.commands.iter().find(|(of, ..)| of == position).unwrap();
            if let Ok(state) = result {
                assert_eq!(state.local == LocalStatus::TakenDown, *action == Action::Takedown);
                let is_durable = self.log.iter().any(|event| event.did == *did && event.state.local == state.local);
                assert!(is_durable, "told of what is not durable");
            }
        }
        if let Some(position) = self.docket.covered() {
            assert!(Some(position) > self.covered, "the mark went back");
            self.covered = Some(position);
        }
        for (position, party, seq) in &self.taken {
            if self.covered.is_none_or(|covered| *position > covered) {
                continue;
            }
            let (_, _, outcome) =
                self.judge.settled.iter().find(|(by, done, _)| by == party && done == seq).expect("covered unjudged");
            if let Outcome::Accepted { .. } = outcome {
                assert!(self.logged().contains(seq), "covered and not durable");
            }
        }
    }

    fn finish(&mut self) {
        while !self.asks.is_empty() {
            self.answer(0, true);
        }
        self.hand_out();
        while !self.appends.is_empty() {
            self.make_durable();
        }
    }
}

/// What an event of our own says; `None` of a host's event.
fn told(event: &Accepted) -> Option<AccountStatus> {
    match event::parse(&event.frame) {
        Ok(Event::Account(event)) => Some(AccountStatus::from_event(event.active, event.status)),
        Ok(_) | Err(_) => None,
    }
}

/// Whoever reads the log from its beginning knows how each account is before each event, and is told of no change twice.
fn check_what_is_told(log: &[Accepted]) {
    let mut known: HashMap<&Did, (AccountStatus, LocalStatus)> = HashMap::new();
    for event in log {
        let now = (event.state.upstream, event.state.local);
        let before = known.insert(&event.did, now);
        match told(event) {
            Some(status) => {
                assert_eq!(status, event.state.status());
                assert_ne!(before, Some(now), "told twice");
            }
            None => {
                let status = |(upstream, local)| RepoState { upstream, local, ..event.state.clone() }.status();
                assert_eq!(before.map_or(AccountStatus::Active, status), status(now), "changed and not told");
            }
        }
    }
}

fn limits() -> Limits {
    Limits {
        account_bytes_max: 1 << 20,
        lane_bytes_max: 1 << 20,
        batch_bytes_max: 1 << 20,
        states_bytes_max: 1 << 20,
        replica_lag_micros: LAG,
        status_micros: 0,
        web_account_bytes_max: 1 << 20,
    }
}

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let nature = prop_oneof![
        4 => Just(Nature::Good),
        1 => Just(Nature::Bad),
        1 => Just(Nature::NeedsNewIdentity),
        1 => Just(Nature::BadByIdentity),
        1 => Just(Nature::NeedsStatus),
        1 => Just(Nature::Inactive),
    ];
    let kind = prop_oneof![3 => Just(Kind::Commit), 1 => Just(Kind::Identity)];
    let script = (0..3usize, 0..2usize, nature, kind, 1..50usize, any::<bool>()).prop_map(
        |(did, host, nature, kind, bytes, again)| {
            // The second host is nobody's: nothing from it is accepted.
            let nature = match nature {
                Nature::Good | Nature::NeedsNewIdentity if host == 1 => Nature::BadByIdentity,
                Nature::NeedsStatus if host == 1 => Nature::Inactive,
                nature => nature,
            };
            Script { did, host, nature, kind, bytes, again }
        },
    );
    prop::collection::vec(script, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever answers come in whatever order: each frame is settled once, in its party's order, and covered only when
    /// durable (checked in `World::after`).
    #[test]
    fn every_interleaving_settles_all_in_order(
        scripts in scripts(),
        moves in prop::collection::vec((0..4u8, any::<Index>(), any::<bool>()), 0..200),
        states_bytes_max in prop_oneof![Just(0u64), Just(400), Just(1 << 20)],
        commands in prop::collection::vec((any::<Index>(), 0..3usize, any::<bool>()), 0..6),
        accounts_max in prop::option::of(0..4u64),
    ) {
        let mut world = World::new(Limits { states_bytes_max, ..limits() });
        world.judge.accounts_max = accounts_max;
        // So few that hosts are forgotten again and again.
        world.docket.places = Arc::new(Places::new(1));
        world.counts_at_once = false;
        let mut items: VecDeque<Item> = VecDeque::new();
        for (n, script) in scripts.into_iter().enumerate() {
            items.push_back(Item::Frame(script.clone(), n as u64 + 1));
            if script.again {
                items.push_back(Item::Frame(script, n as u64 + 1));
            }
        }
        for (at, account, is_takedown) in commands {
            let action = if is_takedown { Action::Takedown } else { Action::Restore };
            items.insert(at.index(items.len() + 1), Item::Command(account, action));
        }
        for (what, which, flag) in moves {
            world.now += 10;
            match what {
                0 | 1 => if let Some(item) = items.pop_front() {
                    world.give(item);
                },
                2 if !world.asks.is_empty() => {
                    let at = which.index(world.asks.len());
                    world.answer(at, flag);
                }
                2 => world.hand_out(),
                _ => if flag { world.hand_out() } else { world.make_durable() },
            }
        }
        for item in items {
            world.give(item);
        }
        world.finish();

        prop_assert_eq!(world.judge.settled.len(), world.taken.len());
        let last = world.taken.last().map(|(position, ..)| *position);
        prop_assert_eq!(world.covered, last.max(world.commands.last().map(|(position, ..)| *position)));
        prop_assert_eq!(world.docket.parked_bytes(), 0);
        prop_assert_eq!(world.docket.parked_parties(), 0);
        prop_assert_eq!(world.docket.states.held(), 0, "states held for nobody");
        let of_hosts = |states: &HashMap<Did, RepoState>| -> HashMap<Did, (HostName, u64)> {
            states.iter().map(|(did, state)| (did.clone(), (state.host.clone(), state.upstream_seq))).collect()
        };
        let mut seen_only = world.store.clone();
        seen_only.retain(|did, _| !world.judge.model.contains_key(did));
        let is_marked = |state: &RepoState| state.local != LocalStatus::None;
        prop_assert!(seen_only.values().all(is_marked) || !world.commands.is_empty(), "nothing of these was accepted");
        world.store.retain(|did, _| world.judge.model.contains_key(did));
        prop_assert_eq!(of_hosts(&world.store), of_hosts(&world.judge.model));
        let accepted_of = world.judge.model.len() as u64;
        prop_assert!(accounts_max.is_none_or(|max| accepted_of <= max + world.commands.len() as u64));
        if let Some(standing) = world.docket.places.standing(&host(0)) {
            let all = world.store.values().chain(seen_only.values());
            let (throttled, taken): (Vec<_>, Vec<_>) = all.partition(|state| state.local == LocalStatus::Throttled);
            let counted = Standing { taken: taken.len() as u64, throttled: throttled.len() as u64 };
            prop_assert_eq!(standing, counted);
        }
        check_what_is_told(&world.log);
        let mut ended: Vec<Position> = world.ends.0.lock().unwrap().iter().map(|(position, _)| *position).collect();
        ended.sort_unstable();
        let given: Vec<Position> = world.commands.iter().map(|(position, ..)| *position).collect();
        prop_assert_eq!(ended, given, "each command ends once");
        for (_, party, _) in &world.taken {
            let taken: Vec<u64> = world.taken.iter().filter(|(_, of, _)| of == party).map(|(.., seq)| *seq).collect();
            let settled: Vec<u64> =
                world.judge.settled.iter().filter(|(of, ..)| of == party).map(|(_, seq, _)| *seq).collect();
            prop_assert_eq!(taken, settled);
        }
        let accepted: Vec<u64> = world.judge.settled.iter()
            .filter(|(.., outcome)| matches!(outcome, Outcome::Accepted { .. })).map(|(_, seq, _)| *seq).collect();
        let logged = world.logged();
        prop_assert_eq!(&accepted, &logged);
        let mut once = accepted.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), accepted.len(), "accepted twice");
    }
}

fn good(did: usize, host: usize) -> Script {
    Script { did, host, nature: Nature::Good, kind: Kind::Commit, bytes: 100, again: false }
}

#[test]
fn others_overtake_a_parked_account_but_the_mark_waits_for_it() {
    let mut world = World::new(limits());
    world.take(&good(0, 0), 1);
    world.take(&good(0, 0), 2);
    world.take(&good(1, 0), 3);
    assert_eq!(world.asks.len(), 2);
    world.answer(1, true);
    world.answer(1, true);
    world.hand_out();
    world.make_durable();
    assert_eq!(world.logged(), [3], "the second account is through");
    assert_eq!(world.covered, None);
    world.finish();
    assert_eq!(world.logged(), [3, 1, 2]);
    assert_eq!(world.covered, Some(Position(7)));
}

#[test]
fn a_foreign_host_does_not_hold_up_the_account() {
    let mut world = World::new(limits());
    let identity = Identity { known: Ok(document(&did(0))), fetched_at_micros: 0 };
    world.judge.cached.insert(did(0), identity);
    world.take(&Script { nature: Nature::BadByIdentity, ..good(0, 1) }, 1);
    world.answer(0, true);
    assert!(matches!(world.asks[0].0, Ask::Identity(_, Want::Since { .. })));
    world.take(&good(0, 0), 2);
    assert!(world.docket.batch_bytes() >= 100, "judged though the other host's frame waits");
    world.finish();
    assert_eq!(world.logged(), [2]);
}

#[test]
fn asks_twice_at_most_before_it_refuses_for_an_identity() {
    let mut world = World::new(limits());
    world.judge.cached.insert(did(0), Identity { known: Err(Absence::NotFound), fetched_at_micros: 5 });
    let received = world.now;
    world.take(&Script { nature: Nature::BadByIdentity, ..good(0, 0) }, 1);
    world.answer(0, true);
    let party = Party { did: did(0), sender: Sender::Host(host(0)) };
    assert_eq!(world.asks[0].0, Ask::Identity(party.clone(), Want::Since { at_micros: received }));
    world.answer(0, true);
    assert_eq!(world.asks[0].0, Ask::Identity(party.clone(), Want::Since { at_micros: received + LAG }));
    world.answer(0, true);
    assert_eq!(world.judge.settled, [(party, 1, Outcome::Refused(refusal(Reason::BadSignature)))]);
}

#[test]
fn a_frame_read_long_ago_asks_once() {
    let mut world = World::new(limits());
    world.judge.cached.insert(did(0), Identity { known: Err(Absence::NotFound), fetched_at_micros: 5 });
    world.take(&Script { nature: Nature::BadByIdentity, ..good(0, 0) }, 1);
    world.now += LAG;
    world.answer(0, true);
    world.answer(0, true);
    assert_eq!(world.judge.settled.len(), 1);
}

#[test]
fn an_announced_change_is_asked_for_once_though_the_directory_is_down() {
    let mut world = World::new(limits());
    world.judge.directory_is_down = true;
    let old = Identity { known: Ok(document(&did(0))), fetched_at_micros: 5 };
    world.judge.cached.insert(did(0), old.clone());
    world.take(&Script { kind: Kind::Identity, ..good(0, 0) }, 1);
    world.answer(0, true);
    let (party, at_micros) = (Party { did: did(0), sender: Sender::Host(host(0)) }, world.now);
    assert_eq!(world.asks[0].0, Ask::Identity(party.clone(), Want::Announced { at_micros }));
    world.asks.clear();
    world.docket.answer(Answer::Identity(party, old), world.now, &mut world.judge);
    world.after();
    assert_eq!(world.judge.settled.len(), 1);
}

#[test]
fn a_host_that_is_wrong_each_time_is_not_worth_a_fetch_but_its_own_accounts_are() {
    let mut world = World::new(limits());
    let theirs = DidDocument { pds: Some(host(0)), ..(*document(&did(0))).clone() };
    world.judge.cached.insert(did(0), Identity { known: Ok(Arc::new(theirs)), fetched_at_micros: 5 });
    world.take(&good(0, 0), 1);
    world.finish();
    let asked_for = |world: &mut World, script: Script, seq| {
        world.take(&script, seq);
        let asked = !world.asks.is_empty();
        while !world.asks.is_empty() {
            world.answer(0, false);
        }
        asked
    };
    let lie = |kind| Script { nature: Nature::BadByIdentity, kind, ..good(0, 1) };
    world.judge.directory_is_down = true;
    world.judge.refreshes = Refreshes::new(2, 1 << 40);
    let asked: Vec<bool> = [Kind::Commit, Kind::Identity, Kind::Commit, Kind::Identity]
        .into_iter()
        .zip(2..)
        .map(|(kind, seq)| asked_for(&mut world, lie(kind), seq))
        .collect();
    assert_eq!(asked, [true, true, false, false]);
    assert_eq!(world.judge.settled.iter().filter(|(.., outcome)| matches!(outcome, Outcome::Refused(_))).count(), 4);
    for seq in (6..18).step_by(2) {
        assert!(asked_for(&mut world, Script { kind: Kind::Identity, ..good(0, 0) }, seq), "announced by its host");
        assert!(asked_for(&mut world, Script { nature: Nature::NeedsNewIdentity, ..good(0, 0) }, seq + 1));
    }
}

#[test]
fn an_account_whose_own_host_is_silent_fills_no_lane() {
    let mut world = World::new(Limits { account_bytes_max: 100_000, web_account_bytes_max: 10_000, ..limits() });
    let web = Did::parse("did:web:silent.example.com").unwrap();
    for seq in 1..=100 {
        world.judge.natures.insert(seq, Nature::Good);
        let frame = RawFrame { did: web.clone(), ..frame(&Script { bytes: 500, ..good(0, 0) }, seq, world.now) };
        let position = world.next_position();
        world.taken.push((position, Party::of_host(&frame), seq));
        world.docket.take(Taken { position, work: Work::Frame(frame) }, world.now, &mut world.judge);
        world.after();
        if let Some(at) = world.asks.iter().position(|(ask, _)| matches!(ask, Ask::State(_))) {
            world.answer(at, false);
        }
        assert!(!world.docket.is_full() && world.docket.parked_bytes() < 12_000, "{seq}");
    }
    // The oldest went first, by the word of nobody; the newest still wait for an answer.
    let settled: Vec<u64> = world.judge.settled.iter().map(|(_, seq, _)| *seq).collect();
    assert!(settled.len() > 80, "{}", settled.len());
    assert!(settled.iter().copied().eq(1..=settled.len() as u64), "{settled:?}");
    assert_eq!(world.docket.parked_parties(), 1);
}

#[test]
fn a_known_account_is_judged_without_asking() {
    let mut world = World::new(limits());
    world.judge.cached.insert(did(0), Identity { known: Ok(document(&did(0))), fetched_at_micros: 5 });
    world.take(&good(0, 0), 1);
    world.finish();
    world.take(&good(0, 0), 2);
    assert_eq!(world.asks, []);
    assert_eq!(world.judge.settled.len(), 2);
}

#[test]
fn a_host_that_said_inactive_is_not_asked_again_for_a_while() {
    let mut world = World::new(Limits { status_micros: 1_000, ..limits() });
    world.judge.cached.insert(did(0), Identity { known: Ok(document(&did(0))), fetched_at_micros: 0 });
    world.take(&good(0, 0), 1);
    world.answer(0, true);
    for seq in 2..5 {
        world.take(&Script { nature: Nature::Inactive, ..good(0, 0) }, seq);
        if seq == 2 {
            assert_eq!(world.asks.len(), 1);
            world.answer(0, true);
        }
        assert_eq!(world.asks.len(), 0);
    }
    world.now += 1_000;
    world.take(&Script { nature: Nature::Inactive, ..good(0, 0) }, 5);
    assert_eq!(world.asks.len(), 1);
}

#[test]
fn is_full_past_each_bound_and_not_after() {
    let bounds = [
        Limits { account_bytes_max: 1_200, ..limits() },
        Limits { lane_bytes_max: 1_200, ..limits() },
        Limits { batch_bytes_max: 150, ..limits() },
    ];
    for limits in bounds {
        let mut world = World::new(limits);
        world.take(&good(0, 0), 1);
        assert!(!world.docket.is_full());
        world.take(&good(0, 0), 2);
        if limits.batch_bytes_max == 150 {
            world.answer(0, true);
            world.answer(0, true);
        }
        assert!(world.docket.is_full(), "{limits:?}");
        world.finish();
        assert!(!world.docket.is_full());
    }
}

#[test]
fn an_account_that_was_never_seen_is_taken_down_at_the_host_it_names() {
    let mut world = World::new(limits());
    world.command(did(0), Action::Restore);
    world.answer(0, true);
    assert_eq!(world.ends.0.lock().unwrap()[0].1, Err(Declined::UnknownAccount));

    world.command(did(0), Action::Takedown);
    let party = Party { did: did(0), sender: Sender::Operator };
    assert_eq!(world.asks[0].0, Ask::Identity(party.clone(), Want::Any));
    world.asks.clear();
    let named = DidDocument { pds: Some(host(7)), ..(*document(&did(0))).clone() };
    let identity = |known| Identity { known, fetched_at_micros: 5 };
    world.docket.answer(Answer::Identity(party.clone(), identity(Ok(Arc::new(named)))), world.now, &mut world.judge);
    world.after();
    world.finish();
    let state = world.store[&did(0)].clone();
    assert_eq!((&state.host, state.local, state.head), (&host(7), LocalStatus::TakenDown, None));
    assert_eq!(world.ends.0.lock().unwrap()[1].1, Ok(state.clone()));
    assert_eq!(world.log.len(), 1);
    assert_eq!(told(&world.log[0]), Some(AccountStatus::Takendown));

    world.command(did(0), Action::Takedown);
    assert_eq!(world.ends.0.lock().unwrap()[2].1, Ok(state.clone()), "at once, and nothing is written");
    assert!(world.docket.next_batch().is_none());

    world.command(did(0), Action::Restore);
    world.command(did(0), Action::Restore);
    assert_eq!(world.ends.0.lock().unwrap().len(), 3, "not durable yet");
    world.finish();
    assert_eq!(world.ends.0.lock().unwrap().len(), 5);
    assert_eq!(world.log.len(), 2);
    assert_eq!(told(&world.log[1]), Some(AccountStatus::Active));
}

#[test]
fn an_account_without_an_identity_can_not_be_taken_down() {
    let mut world = World::new(limits());
    for (known, expected) in [
        (Ok(document(&did(0))), Declined::NoPds),
        (Err(Absence::Tombstoned), Declined::NoIdentity { why: Absence::Tombstoned.to_string() }),
    ] {
        world.judge.cached.insert(did(0), Identity { known, fetched_at_micros: 5 });
        world.command(did(0), Action::Takedown);
        world.finish();
        assert_eq!(world.ends.0.lock().unwrap().pop().unwrap().1, Err(expected));
    }
    assert_eq!(world.log.len(), 0);
}

#[test]
fn a_host_has_no_more_accounts_than_it_may_and_the_next_event_heals() {
    let mut world = World::new(limits());
    world.judge.accounts_max = Some(1);
    for account in 0..3 {
        let identity = Identity { known: Ok(document(&did(account))), fetched_at_micros: 5 };
        world.judge.cached.insert(did(account), identity);
        world.take(&good(account, 0), account as u64 + 1);
        world.finish();
    }
    let state = |world: &World, account| (world.store[&did(account)].local, world.store[&did(account)].head);
    assert_eq!(world.logged(), [1]);
    assert_eq!(state(&world, 1), (LocalStatus::Throttled, None));
    let told_of = |world: &World| world.log.iter().filter_map(told).collect::<Vec<_>>();
    let throttled = AccountStatus::Throttled { active: false };
    // The scripted host calls its accounts deactivated.
    assert_eq!(told_of(&world), [AccountStatus::Deactivated, throttled, throttled]);

    // Marked once; the same frame again is not a repeat, since it was not taken.
    for seq in [2, 4] {
        world.take(&good(1, 0), seq);
        world.finish();
    }
    assert_eq!(told_of(&world).len(), 3);
    let refused = |world: &World| {
        let is_throttled = |outcome: &Outcome| match outcome {
            Outcome::Refused(refusal) => refusal.reason == Reason::AccountThrottled,
            Outcome::Accepted { .. } | Outcome::Repeat => false,
        };
        world.judge.settled.iter().filter(|(.., outcome)| is_throttled(outcome)).count()
    };
    assert_eq!(refused(&world), 4);

    world.judge.accounts_max = Some(2);
    for (account, seq) in [(1, 5), (2, 6), (1, 7)] {
        world.take(&good(account, 0), seq);
        world.finish();
    }
    assert_eq!(world.logged(), [1, 5, 7]);
    assert_eq!(told_of(&world)[3..], [AccountStatus::Deactivated], "told that it is back, before its commit");
    assert_eq!(state(&world, 2).0, LocalStatus::Throttled);

    // One that is taken down keeps its place, and without a limit there is one for everybody.
    world.command(did(1), Action::Takedown);
    world.finish();
    world.take(&good(2, 0), 8);
    world.judge.accounts_max = None;
    world.take(&good(2, 0), 9);
    world.finish();
    assert_eq!(world.logged(), [1, 5, 7, 9]);
    assert_eq!(world.docket.places.standing(&host(0)), Some(Standing { taken: 3, throttled: 0 }));
    check_what_is_told(&world.log);
}

#[test]
fn an_account_is_not_moved_back_by_an_identity_from_before_the_lane_was_ours() {
    let mut world = World::new(limits());
    world.take(&good(0, 1), 1);
    world.finish();
    let older = DidDocument { pds: Some(host(0)), ..(*document(&did(0))).clone() };
    for fetched_at_micros in [SINCE - 1, SINCE] {
        let identity = Identity { known: Ok(Arc::new(older.clone())), fetched_at_micros };
        world.judge.cached.insert(did(0), identity);
        world.take(&good(0, 0), fetched_at_micros);
        let asked: Vec<_> = world.asks.drain(..).map(|(ask, _)| ask).collect();
        let party = Party { did: did(0), sender: Sender::Host(host(0)) };
        match fetched_at_micros < SINCE {
            true => {
                assert_eq!(asked, [Ask::Identity(party.clone(), Want::Since { at_micros: SINCE })]);
                let identity = Identity { known: Ok(document(&did(0))), fetched_at_micros: world.now };
                world.docket.answer(Answer::Identity(party, identity), world.now, &mut world.judge);
                world.after();
            }
            false => assert_eq!(asked, []),
        }
    }
    assert_eq!(world.judge.settled.len(), 3);
}

#[test]
fn an_account_that_moves_frees_its_place_and_is_throttled_where_there_is_none() {
    let mut world = World::new(limits());
    world.judge.accounts_max = Some(1);
    let named = |host| DidDocument { pds: Some(host), ..(*document(&did(0))).clone() };
    for (account, of) in [(0, 0), (1, 1)] {
        world.take(&good(account, of), account as u64 + 1);
        world.finish();
    }
    assert_eq!(world.logged(), [1, 2]);
    // Account 0 moves to the other host, which is full, then that host's own account moves away.
    let identity = Identity { known: Ok(Arc::new(named(host(1)))), fetched_at_micros: 1 << 60 };
    world.judge.cached.insert(did(0), identity);
    world.judge.natures.clear();
    let moves = Script { host: 1, ..good(0, 1) };
    world.docket.limits.status_micros = 0;
    world.take(&moves, 3);
    world.finish();
    let standing = |world: &World, n| world.docket.places.standing(&host(n)).map(|now| (now.taken, now.throttled));
    assert_eq!(world.store[&did(0)].host, host(1));
    assert_eq!(world.store[&did(0)].local, LocalStatus::Throttled);
    assert_eq!(standing(&world, 1), Some((1, 1)));
    world.take(&good(1, 0), 4);
    world.finish();
    assert_eq!(world.store[&did(1)].host, host(0), "there is a place since account 0 left");
    world.take(&moves, 5);
    world.finish();
    assert_eq!((world.store[&did(0)].local, world.store[&did(0)].upstream_seq), (LocalStatus::None, 5));
    assert_eq!(standing(&world, 1), Some((1, 0)));
}
