//! A collector of traces: takes what processes tell by OTLP over HTTP, and remembers it.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinSet};

/// A part of an event's way, as it was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) stage: String,
    pub(crate) span: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    /// Nanoseconds since the Unix epoch.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) values: BTreeMap<String, String>,
    /// The role of the process that told it.
    pub(crate) role: String,
}

type Traces = Arc<Mutex<HashMap<Vec<u8>, Vec<Told>>>>;

/// Listens until it is dropped.
pub(crate) struct Collector {
    pub(crate) url: String,
    traces: Traces,
    _listening: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let traces = Traces::default();
        let mut listening = JoinSet::new();
        let shared = Arc::clone(&traces);
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let traces = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| take(request, Arc::clone(&traces)));
                    // Who hangs up has told all it had.
                    let _ended = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Collector { url, traces, _listening: listening }
    }

    /// Traces, in which spans stand in the order of their beginnings.
    pub(crate) fn traces(&self) -> Vec<Vec<Told>> {
        let mut traces: Vec<_> = self.traces.lock().unwrap().values().cloned().collect();
        traces.iter_mut().for_each(|spans| spans.sort_by_key(|span| span.began));
        traces
    }
}

async fn take(request: Request<Incoming>, traces: Traces) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let told = ExportTraceServiceRequest::decode(body).unwrap();
    let mut traces = traces.lock().unwrap();
    for process in told.resource_spans {
        let of_process = values(process.resource.unwrap().attributes);
        assert_eq!(of_process["service.name"], "mainstem");
        for span in process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            traces.entry(span.trace_id).or_default().push(Told {
                stage: span.name,
                span: span.span_id,
                parent: span.parent_span_id,
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                values: values(span.attributes),
                role: of_process["mainstem.role"].clone(),
            });
        }
    }
    Ok(Response::new(Full::default()))
}

fn values(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?} is not told here"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}
