//! Which lookups are under way, who waits for them, and when the next try is due. Pure.
//!
//! What must hold: an account has one flight at a time; who waits is answered once, by something that is as new as they
//! want; a definite "no" is said only when the directory's replicas had time to hear of the account.

use std::{collections::HashMap, time::Duration};

use atproto::syntax::Did;
use rand::{SeedableRng, rngs::SmallRng};
use runtime::backoff::Backoff;
use tokio::sync::oneshot;

use super::{Absence, Asker, Identity, Want};

/// How patient lookups are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) replica_lag_micros: u64,
    pub(super) patience_micros: u64,
    pub(super) retry_base: Duration,
    pub(super) retry_max: Duration,
}

/// Tries of one account before silence may count as an answer.
const FAILURES_MIN: u32 = 3;

/// How many times an announced change that does not show is looked for again.
const RECHECKS: u32 = 2;

/// One try to make, not before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) did: Did,
    pub(super) not_before_micros: u64,
    /// The last one met silence: this one may leave early when the silence ends.
    pub(super) is_retry: bool,
}

/// What a try brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landed {
    /// A definite answer.
    Answer(Identity),
    /// None. If whoever has to answer for this account has answered for others meanwhile, the silence is about this
    /// account.
    Silence { began_at_micros: u64, others_answered_at_micros: u64 },
}

/// What to do after a try.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    /// To be cached.
    pub(super) learnt: Option<Identity>,
    /// What was known has to serve for a while, past its time.
    pub(super) serves: Option<Identity>,
    /// The next try.
    pub(super) flight: Option<Flight>,
    /// Look again for an announced change that did not show: after this time, by [`Lookups::recheck`].
    pub(super) recheck: Option<Recheck>,
}

/// A second look, by nobody's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recheck {
    pub(super) did: Did,
    pub(super) at_micros: u64,
    left: u32,
}

/// Somebody's wish.
pub(super) struct Request {
    pub(super) did: Did,
    pub(super) want: Want,
    pub(super) asker: Asker,
    pub(super) reply: oneshot::Sender<Identity>,
}

/// See the module's documentation.
pub(super) struct Lookups {
    timing: Timing,
    open: HashMap<Did, Lookup>,
    rng: SmallRng,
}

struct Lookup {
    asked_at_micros: u64,
    backoff: Backoff,
    waiters: Vec<Waiter>,
    /// Rechecks that remain, if the next answer shows nothing new.
    recheck: Option<u32>,
    /// What was known of the account when it was asked for, past its time.
    stale: Option<Identity>,
}

struct Waiter {
    want: Want,
    asker: Asker,
    reply: oneshot::Sender<Identity>,
}

// === impl Lookups ===

impl Lookups {
    pub(super) fn new(timing: Timing, seed: u64) -> Lookups {
        Lookups { timing, open: HashMap::new(), rng: SmallRng::seed_from_u64(seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Somebody wants an identity. Gives the flight to start, if none is under way for the account. `stale` is what is
    /// known of it, past its time.
    pub(super) fn ask(&mut self, request: Request, stale: Option<Identity>, now_micros: u64) -> Option<Flight> {
        let Request { did, want, asker, reply } = request;
        let waiter = Waiter { want, asker, reply };
        if let Some(lookup) = self.open.get_mut(&did) {
            lookup.waiters.push(waiter);
            lookup.stale = lookup.stale.take().or(stale);
            return None;
        }
        let lookup = Lookup { waiters: vec![waiter], stale, ..self.lookup(now_micros) };
        self.open.insert(did.clone(), lookup);
        Some(Flight { did, not_before_micros: want.not_before(), is_retry: false })
    }

    /// Who waits for an account, each once.
    pub(super) fn askers(&self, did: &Did) -> Vec<Asker> {
        let mut askers: Vec<Asker> = Vec::new();
        for waiter in self.open.get(did).into_iter().flat_map(|lookup| &lookup.waiters) {
            if !askers.contains(&waiter.asker) {
                askers.push(waiter.asker.clone());
            }
        }
        if askers.is_empty() {
            askers.push(Asker::Ourselves);
        }
        askers
    }

    /// The directory takes its time: whoever may have an old answer gets it. The lookup goes on. Gives the identity that
    /// has to serve for a while.
    pub(super) fn serve_stale(&mut self, did: &Did) -> Option<Identity> {
        let lookup = self.open.get_mut(did)?;
        let stale = lookup.stale.clone()?;
        lookup.answer(&stale, Want::takes_stale);
        Some(stale)
    }

    /// The directory is silent: as [`Lookups::serve_stale`], for all accounts.
    pub(super) fn serve_all_stale(&mut self) -> Vec<(Did, Identity)> {
        let mut served = Vec::new();
        for (did, lookup) in &mut self.open {
            if let Some(stale) = lookup.stale.clone() {
                lookup.answer(&stale, Want::takes_stale);
                served.push((did.clone(), stale));
            }
        }
        served
    }

    /// The time of a recheck has come.
    pub(super) fn recheck(&mut self, recheck: Recheck, now_micros: u64) -> Option<Flight> {
        if let Some(lookup) = self.open.get_mut(&recheck.did) {
            lookup.recheck = lookup.recheck.max(Some(recheck.left));
            return None;
        }
        let lookup = Lookup { recheck: Some(recheck.left), ..self.lookup(now_micros) };
        self.open.insert(recheck.did.clone(), lookup);
        Some(Flight { did: recheck.did, not_before_micros: now_micros, is_retry: false })
    }

    /// A flight is over. `cached` is what is known, however old.
    pub(super) fn landed(&mut self, did: Did, landed: Landed, cached: Option<&Identity>, now_micros: u64) -> Next {
        let Some(mut lookup) = self.open.remove(&did) else { return Next::default() };
        let before = cached.cloned().or_else(|| lookup.stale.clone());
        let before = before.as_ref();
        let mut next = Next::default();
        match landed {
            Landed::Answer(identity) => {
                let heard_by_all = lookup.asked_at_micros.saturating_add(self.timing.replica_lag_micros);
                if identity.known == Err(Absence::NotFound) && identity.fetched_at_micros < heard_by_all {
                    next.flight = Some(Flight { did: did.clone(), not_before_micros: heard_by_all, is_retry: false });
                } else {
                    let announced = lookup.waiters.iter().any(|waiter| matches!(waiter.want, Want::Announced { .. }));
                    let rechecks = lookup.recheck.take().or(announced.then_some(RECHECKS)).unwrap_or(0);
                    if rechecks > 0 && before.is_some_and(|before| before.known == identity.known) {
                        let tries = u64::from(RECHECKS - rechecks) + 1;
                        let at_micros = now_micros + self.timing.replica_lag_micros * tries * tries;
                        next.recheck = Some(Recheck { did: did.clone(), at_micros, left: rechecks - 1 });
                    }
                    lookup.backoff.reset();
                    lookup.asked_at_micros = now_micros;
                    lookup.stale = Some(identity.clone());
                    lookup.answer(&identity, |want| identity.fetched_at_micros >= want.not_before());
                    next.learnt = Some(identity);
                    // Who asked while it was under way may want something newer.
                    let since = lookup.waiters.iter().map(|waiter| waiter.want.not_before()).min();
                    next.flight =
                        since.map(|not_before_micros| Flight { did: did.clone(), not_before_micros, is_retry: false });
                }
            }
            Landed::Silence { began_at_micros, others_answered_at_micros } => {
                if let Some(stale) = before {
                    next.serves = Some(stale.clone());
                    lookup.answer(stale, Want::takes_stale);
                }
                // It is the owner's business now: a document that was good is taken as the last word, and an account
                // that never had one is refused.
                let waited_micros = began_at_micros.saturating_sub(lookup.asked_at_micros);
                let out_of_patience = before.is_some() || waited_micros >= self.timing.patience_micros;
                let others_answered = others_answered_at_micros > lookup.asked_at_micros;
                if others_answered && out_of_patience && lookup.backoff.failures() >= FAILURES_MIN {
                    let known = before.map_or(Err(Absence::Unanswered), |before| before.known.clone());
                    let last_word = Identity { known, fetched_at_micros: began_at_micros };
                    lookup.answer(&last_word, |want| began_at_micros >= want.not_before());
                    next.learnt = before.is_none().then_some(last_word);
                }
                lookup.recheck = None;
                if !lookup.waiters.is_empty() {
                    let rest = lookup.backoff.next(&mut self.rng).as_micros();
                    let not_before_micros = now_micros.saturating_add(u64::try_from(rest).unwrap_or(u64::MAX));
                    next.flight = Some(Flight { did: did.clone(), not_before_micros, is_retry: true });
                }
            }
        }
        if next.flight.is_some() {
            self.open.insert(did, lookup);
        }
        next
    }

    fn lookup(&self, now_micros: u64) -> Lookup {
        Lookup {
            asked_at_micros: now_micros,
            backoff: Backoff::new(self.timing.retry_base, self.timing.retry_max),
            waiters: Vec::new(),
            recheck: None,
            stale: None,
        }
    }
}

impl Lookup {
    /// Answers those for whom it will do. Who has stopped waiting is forgotten.
    fn answer(&mut self, identity: &Identity, will_do: impl Fn(Want) -> bool) {
        for waiter in std::mem::take(&mut self.waiters) {
            if will_do(waiter.want) {
                // It may have gone away; then nobody misses the answer.
                let _gone = waiter.reply.send(identity.clone());
            } else if !waiter.reply.is_closed() {
                self.waiters.push(waiter);
            }
        }
    }
}

impl Want {
    /// Whether an old answer will do where the directory gives none.
    pub(super) fn takes_stale(self) -> bool {
        match self {
            Want::Any | Want::Announced { .. } => true,
            Want::Since { .. } => false,
        }
    }

    /// The earliest time at which the fetch may begin.
    fn not_before(self) -> u64 {
        match self {
            Want::Any => 0,
            Want::Announced { at_micros } | Want::Since { at_micros } => at_micros,
        }
    }
}
