//! Events that are followed ([`runtime::trace`]) through a lane: judged, settled, appended.

use runtime::{
    clock::Clock,
    trace::{Followed, Span, Stage, Tracer, Value},
};
use storage::{intake::RawFrame, log::Accepted};

use crate::docket::Outcome;

/// The rules were applied to this frame since `began_micros`.
pub(crate) fn judged(frame: &RawFrame, began_micros: u64, tracer: &Tracer, clock: &Clock) {
    if let Some(followed) = tracer.follows(&frame.bytes, frame.seq_slot.range()) {
        let ended_micros = clock.now_micros();
        tracer.tell(followed, &Span { stage: Stage::Judge, began_micros, ended_micros, values: &[] });
    }
}

/// This frame has its verdict.
pub(crate) fn settled(frame: &RawFrame, outcome: &Outcome, tracer: &Tracer, clock: &Clock) {
    let Some(followed) = tracer.follows(&frame.bytes, frame.seq_slot.range()) else { return };
    let verdict = match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Repeat => "repeat",
        Outcome::Refused(refusal) => refusal.reason.as_str(),
    };
    let values = [("host", Value::Text(frame.host.to_string())), ("verdict", Value::Word(verdict))];
    let (began_micros, ended_micros) = (frame.received_at_micros, clock.now_micros());
    tracer.tell(followed, &Span { stage: Stage::Validate, began_micros, ended_micros, values: &values });
}

/// Followed events on their way into the log.
pub(crate) struct Appending {
    followed: Vec<Followed>,
    began_micros: u64,
    tracer: Tracer,
    clock: Clock,
}

impl Appending {
    /// Of a batch that is handed to the log, if any of its events is followed.
    pub(crate) fn of(batch: &[Accepted], tracer: &Tracer, clock: &Clock) -> Option<Appending> {
        if !tracer.is_on() {
            return None;
        }
        let follows = |event: &Accepted| tracer.follows(&event.frame, event.seq_slot.range());
        let followed: Vec<_> = batch.iter().filter_map(follows).collect();
        let (tracer, clock) = (tracer.clone(), clock.clone());
        (!followed.is_empty()).then(|| Appending { followed, began_micros: clock.now_micros(), tracer, clock })
    }

    /// The batch is durable.
    pub(crate) fn appended(&self) {
        let (began_micros, ended_micros) = (self.began_micros, self.clock.now_micros());
        for followed in &self.followed {
            self.tracer.tell(*followed, &Span { stage: Stage::Append, began_micros, ended_micros, values: &[] });
        }
    }
}
