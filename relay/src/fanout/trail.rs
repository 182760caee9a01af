//! The last stretch of events that are followed ([`runtime::trace`]): from the log to subscribers' sockets.
//!
//! It owns no event. What must hold: where traces are off nothing is looked at; where they are on a subscriber looks at
//! some seqs when all that it was given has left, and nobody waits.

use std::{
    collections::VecDeque,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use atproto::event::{self, Routed};
use runtime::{
    clock::Clock,
    trace::{Followed, Span, Stage, Tracer, Value},
};
use storage::{log::Published, seq::Seq};

use super::shard::Shard;

/// Of how many subscribers it is told that an event has left for them: the first ones.
const SENDS_TOLD_MAX: u32 = 3;
/// How many followed events are remembered for who has not got them yet.
const REMEMBERED_MAX: usize = 256;

/// Tells where followed events are.
#[derive(Debug)]
pub struct Trail {
    tracer: Tracer,
    clock: Clock,
    /// In the order of their seqs.
    recent: RwLock<VecDeque<Step>>,
}

/// A followed event that subscribers can take.
#[derive(Debug)]
struct Step {
    followed: Followed,
    seq: Seq,
    account: u64,
    since_micros: u64,
    sends_told: AtomicU32,
}

impl Trail {
    /// Of what this tracer follows.
    pub fn new(tracer: Tracer, clock: Clock) -> Trail {
        Trail { tracer, clock, recent: RwLock::default() }
    }

    /// Now, for [`Trail::published`], if anything is followed.
    pub fn now_micros(&self) -> Option<u64> {
        self.tracer.is_on().then(|| self.clock.now_micros())
    }

    /// These events were read from the log at `read_at_micros`, and subscribers can take them from now on. Not called twice
    /// for an event.
    pub fn published(&self, events: &[Published], read_at_micros: Option<u64>) {
        let Some(began_micros) = read_at_micros else { return };
        let now = self.clock.now_micros();
        for event in events {
            // What the log holds has been read before.
            let Ok(Routed::Event(route)) = event::route(&event.frame) else { continue };
            let Some(followed) = self.tracer.follows(&event.frame, route.seq_slot.range()) else { continue };
            let values = [("seq", Value::Number(event.seq.0)), ("did", Value::Text(route.did.to_owned()))];
            self.tracer
                .tell(followed, &Span { stage: Stage::Publish, began_micros, ended_micros: now, values: &values });
            let (seq, account, sends_told) = (event.seq, event.account, AtomicU32::new(0));
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            if recent.len() == REMEMBERED_MAX {
                recent.pop_front();
            }
            recent.push_back(Step { followed, seq, account, since_micros: now, sends_told });
        }
    }

    /// All of a subscriber's events in `(after, to]` have left for it.
    pub fn sent(&self, after: Seq, to: Seq, shard: Option<Shard>) {
        if !self.tracer.is_on() || after >= to {
            return;
        }
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let newest_first = recent.iter().rev().skip_while(|step| step.seq > to).take_while(|step| step.seq > after);
        for step in newest_first.filter(|step| shard.is_none_or(|shard| shard.holds(step.account))) {
            if step.sends_told.fetch_add(1, Ordering::Relaxed) >= SENDS_TOLD_MAX {
                continue;
            }
            let values = [("seq", Value::Number(step.seq.0))];
            let (began_micros, ended_micros) = (step.since_micros, self.clock.now_micros());
            self.tracer.tell(step.followed, &Span { stage: Stage::Send, began_micros, ended_micros, values: &values });
        }
    }
}
