//! An event that is followed ([`runtime::trace`]) on its way from its host into the intake.

use runtime::{
    clock::Clock,
    trace::{Followed, Span, Stage, Tracer, Value},
};
use storage::intake::RawFrame;

/// What is told of it once the intake has it.
pub(crate) struct Following {
    followed: Followed,
    received_at_micros: u64,
    values: [(&'static str, Value); 4],
}

impl Following {
    /// Of a frame that is handed on, if it is followed.
    pub(crate) fn of(frame: &RawFrame, tracer: &Tracer) -> Option<Following> {
        let followed = tracer.follows(&frame.bytes, frame.seq_slot.range())?;
        let values = [
            ("host", Value::Text(frame.host.to_string())),
            ("upstream_seq", Value::Number(frame.upstream_seq)),
            ("did", Value::Text(frame.did.to_string())),
            ("kind", Value::Word(frame.kind.as_str())),
        ];
        Some(Following { followed, received_at_micros: frame.received_at_micros, values })
    }

    /// The intake has it.
    pub(crate) fn handed_on(&self, tracer: &Tracer, clock: &Clock) {
        let (began_micros, ended_micros) = (self.received_at_micros, clock.now_micros());
        tracer.tell(self.followed, &Span { stage: Stage::Receive, began_micros, ended_micros, values: &self.values });
    }
}
