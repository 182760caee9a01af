//! Traces: a few events, followed from their host to a subscriber through every process, as OpenTelemetry spans.
//!
//! No process tells another which events it follows. Whether one is followed, and its trace's id, come from the event's
//! own bytes, all but its seq, which is the only part that a relay exchanges: so crawler, validator, sequencer and fan-out
//! decide alike, on whatever machine, and nothing of it is carried through queues or topics.
//!
//! What must hold: an event that is not followed costs a hash of its last bytes, and nothing where traces are off; a
//! collector that is slow or gone costs no event its place, for spans wait in a bounded queue and what finds it full is
//! dropped.

use std::{
    fmt,
    num::NonZeroU64,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor},
};
use sha2::{Digest, Sha256};
use tokio::{runtime::Handle, time::timeout};
use url::Url;

/// How much of an event's end its id is made of. There stand a commit's CID, an identity's time, a whole `#account`: what
/// tells events apart, and the same amount to hash for large ones and small.
const TAIL_BYTES: usize = 256;
/// Spans that may wait for the collector.
const QUEUE_SPANS_MAX: usize = 4096;
/// Spans that go together.
const BATCH_SPANS_MAX: usize = 256;
/// How long spans wait for company.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// How much of the collector's answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the last spans may take at the end.
const END_MAX: Duration = Duration::from_secs(2);

/// Where traces go, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A collector that takes OTLP over plain HTTP; spans are posted to `v1/traces` below it.
    pub collector: Url,
    /// Of so many events one is followed.
    pub one_in: NonZeroU64,
}

/// Why traces can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter refuses its settings.
    #[error("failed to prepare the export of traces")]
    Exporter(#[from] ExporterBuildError),
}

/// Tells spans of the events that are followed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

struct Shared {
    one_in: NonZeroU64,
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// An event that is followed: its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Followed(TraceId);

/// Where in its way an event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From when it was read off its host's socket to when the intake had taken it. The root of its trace.
    Receive,
    /// The rules alone.
    Judge,
    /// From when it was read off its host's socket to its verdict.
    Validate,
    /// From when it was handed to the log (in a cluster: to `verified`) until it was durable.
    Append,
    /// In a cluster, from when it was accepted to when the transaction with its seq was committed.
    Sequence,
    /// From when fan-out read it to when subscribers could take it.
    Publish,
    /// From then to when all of its frame had been written to a subscriber's socket.
    Send,
}

/// A value that is told with a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word of a closed set.
    Word(&'static str),
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
}

/// A part of an event's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// Which.
    pub stage: Stage,
    /// Microseconds since the Unix epoch.
    pub began_micros: u64,
    /// The same, of its end.
    pub ended_micros: u64,
    /// What is known of it then.
    pub values: &'a [(&'static str, Value)],
}

// === impl Tracer ===

impl Tracer {
    /// Follows nothing.
    pub fn off() -> Tracer {
        Tracer(None)
    }

    /// Follows events and sends what is told of them to the collector, in the name of this role and version. A collector
    /// that isn't there is no error: it may come. Must be called within the runtime.
    pub fn start(config: &Config, role: &'static str, version: &'static str) -> Result<Tracer, Error> {
        let mut traces = config.collector.clone();
        let path = format!("{}/v1/traces", traces.path().trim_end_matches('/'));
        traces.set_path(&path);
        let client =
            Collector { client: Client::builder(TokioExecutor::new()).build_http(), handle: Handle::current() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(traces.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_MAX)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_EVERY)
            .build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let resource = Resource::builder()
            .with_service_name("mainstem")
            .with_attributes([KeyValue::new("mainstem.role", role), KeyValue::new("service.version", version)]);
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("mainstem").with_version(version).build();
        Ok(Tracer(Some(Arc::new(Shared { one_in: config.one_in, processor, scope }))))
    }

    /// Whether any event is followed.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this event is, whose seq stands at `seq`.
    pub fn follows(&self, event: &[u8], seq: Range<usize>) -> Option<Followed> {
        let one_in = self.0.as_ref()?.one_in;
        let id = id_of(&event[..seq.start], &event[seq.end..]);
        let drawn = u64::from_be_bytes(*id.last_chunk().expect("16 bytes end with 8"));
        (drawn % one_in == 0).then(|| Followed(TraceId::from_bytes(id)))
    }

    /// Tells a part of an event's way.
    pub fn tell(&self, followed: Followed, span: &Span<'_>) {
        let Some(shared) = &self.0 else { return };
        let root = followed.root();
        let (span_id, parent_span_id) = match span.stage {
            Stage::Receive => (root, SpanId::INVALID),
            Stage::Judge | Stage::Validate | Stage::Append | Stage::Sequence | Stage::Publish | Stage::Send => {
                (SpanId::from_bytes(rand::random()), root)
            }
        };
        let context = SpanContext::new(followed.0, span_id, TraceFlags::SAMPLED, false, TraceState::default());
        shared.processor.on_end(SpanData {
            span_context: context,
            parent_span_id,
            parent_span_is_remote: false,
            span_kind: span.stage.kind(),
            name: span.stage.as_str().into(),
            start_time: time_of(span.began_micros),
            // Another machine's clock may be ahead of ours.
            end_time: time_of(span.ended_micros.max(span.began_micros)),
            attributes: span.values.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: shared.scope.clone(),
        });
    }

    /// Sends what waits, within two seconds. What is told afterwards is dropped.
    pub async fn end(self) {
        let Some(shared) = self.0 else { return };
        // It waits for its thread.
        let ended = tokio::task::spawn_blocking(move || shared.processor.shutdown_with_timeout(END_MAX));
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.0.as_ref().map(|shared| shared.one_in)).finish()
    }
}

impl Followed {
    /// The id of the span that all others are below, whoever tells it.
    fn root(self) -> SpanId {
        let id = self.0.to_bytes();
        SpanId::from_bytes(*id.first_chunk().expect("16 bytes begin with 8"))
    }
}

impl Stage {
    /// Its name in traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Judge => "judge",
            Stage::Validate => "validate",
            Stage::Append => "append",
            Stage::Sequence => "sequence",
            Stage::Publish => "publish",
            Stage::Send => "send",
        }
    }

    fn kind(self) -> SpanKind {
        match self {
            Stage::Receive => SpanKind::Consumer,
            Stage::Send => SpanKind::Producer,
            Stage::Judge | Stage::Validate | Stage::Append | Stage::Sequence | Stage::Publish => SpanKind::Internal,
        }
    }
}

impl From<Value> for opentelemetry::Value {
    fn from(value: Value) -> opentelemetry::Value {
        match value {
            Value::Word(word) => word.into(),
            Value::Text(text) => text.into(),
            Value::Number(number) => i64::try_from(number).unwrap_or(i64::MAX).into(),
        }
    }
}

/// The first 16 bytes of the SHA-256 of the event's last bytes, its seq left out.
fn id_of(before_seq: &[u8], after_seq: &[u8]) -> [u8; 16] {
    let last = |bytes: &'_ [u8], most: usize| bytes.len().saturating_sub(most);
    let after = &after_seq[last(after_seq, TAIL_BYTES)..];
    let before = &before_seq[last(before_seq, TAIL_BYTES - after.len())..];
    let hash = Sha256::new().chain_update(before).chain_update(after).finalize();
    *hash.first_chunk().expect("32 bytes begin with 16")
}

fn time_of(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// Posts spans. They come from a thread of their own, and sockets belong to the runtime.
#[derive(Clone, Debug)]
struct Collector {
    client: Client<HttpConnector, Full<Bytes>>,
    handle: Handle,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let asked = self.client.request(request.map(Full::new));
        let answered = self.handle.spawn(async move {
            timeout(EXPORT_MAX, async move {
                let (head, body) = asked.await?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
                Ok::<_, HttpError>(http::Response::from_parts(head, body))
            })
            .await
        });
        answered.await??
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(one_in: u64) -> Tracer {
        let collector = "http://127.0.0.1:9/".parse().unwrap();
        let one_in = NonZeroU64::new(one_in).unwrap();
        Tracer::start(&Config { collector, one_in }, "run", "0").unwrap()
    }

    #[tokio::test]
    async fn an_event_is_followed_alike_under_every_seq_and_in_every_process() {
        let (crawler, fan_out) = (tracer(7), tracer(7));
        let mut followed = 0;
        for n in 0..2000_u32 {
            let event = |seq: &[u8]| [&[1; 40], seq, &[2; 500], &n.to_be_bytes()].concat();
            let here = crawler.follows(&event(&[7]), 40..41);
            assert_eq!(here, fan_out.follows(&event(&[0x19, 3, 9]), 40..43));
            followed += u32::from(here.is_some());
        }
        assert!((200..=380).contains(&followed), "{followed} of 2000, where one in 7 is about 286");
        assert_eq!(Tracer::off().follows(&[1, 2], 1..2), None);
    }

    #[test]
    fn short_events_count_whole_and_long_ones_by_their_end() {
        assert_ne!(id_of(&[1], &[2]), id_of(&[2], &[2]));
        assert_eq!(id_of(&[1], &[2, 3]), id_of(&[1, 2], &[3]), "where the seq stood is not told");
        let (mut near, mut far) = (vec![0; 300], vec![0; 300]);
        near[299 - TAIL_BYTES + 2] = 1;
        far[299 - TAIL_BYTES] = 1;
        assert_ne!(id_of(&near, &[]), id_of(&vec![0; 300], &[]));
        assert_eq!(id_of(&far, &[]), id_of(&vec![0; 300], &[]));
        assert_eq!(id_of(&[9; 300], &[7; TAIL_BYTES]), id_of(&[8; 300], &[7; TAIL_BYTES]));
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_costs_nothing_but_the_spans() {
        let tracer = tracer(1);
        let followed = tracer.follows(b"a", 0..0).unwrap();
        let span = Span { stage: Stage::Judge, began_micros: 5, ended_micros: 4, values: &[("n", Value::Number(1))] };
        for _ in 0..3 * QUEUE_SPANS_MAX {
            tracer.tell(followed, &span);
        }
        tracer.end().await;
    }
}
