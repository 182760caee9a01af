//! Around every change: it is recorded before it is tried, and so is how it ended.
//!
//! The change runs as a task of its own, so that who hangs up does not leave it, or its record, half done.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{RawPathParams, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use runtime::http::Peer;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::{error, info_span};

use super::{
    audit::{Attempt, Audit, End, Outcome},
    auth::Who,
    error::Error,
    metrics::Metrics,
};
use crate::app::App;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Characters that are kept of a body that is not JSON.
const BODY_CHARS_KEPT: usize = 200;

/// What the recording of one operation needs.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) app: App,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
    /// The operation's name.
    pub(super) operation: &'static str,
}

/// Records an operation.
pub(super) async fn record(
    State(recorder): State<Recorder>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let who = request.extensions().get::<Who>().cloned().ok_or(Error::Internal)?;
    let address = request.extensions().get::<Peer>().map(|peer| peer.addr.to_string());
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| Error::invalid(format!("the body is over {BODY_BYTES_MAX} bytes, or broke off")))?;
    let attempt = Attempt {
        who: who.0.to_string(),
        address,
        operation: recorder.operation.to_owned(),
        target: params.iter().next().map(|(_, value)| value.to_owned()),
        body: shown(&body),
    };
    let request = Request::from_parts(parts, Body::from(body));
    let span = info_span!("change", operation = recorder.operation, who = &*who.0);
    let (answer, answered) = oneshot::channel();
    recorder.app.vitals.tasks.clone().spawn_in(span, "change", async move {
        // Where nobody waits for the answer any more, the record has it.
        let _gone = answer.send(recorder.run(attempt, request, next).await);
    });
    answered.await.unwrap_or(Err(Error::Internal))
}

impl Recorder {
    async fn run(self, attempt: Attempt, request: Request, next: Next) -> Result<Response, Error> {
        let id = self.audit.begin(attempt).await.map_err(|error| {
            error!(%error, "the record of changes can't be written; nothing is changed");
            Error::NotRecorded
        })?;
        let (response, end) = ended(next.run(request).await).await;
        self.metrics.changed(Outcome::of(Some(&end)));
        if let Err(error) = self.audit.end(id, end).await {
            error!(%error, id, "the end of a change can't be recorded");
        }
        Ok(response)
    }
}

/// A body for the record.
fn shown(body: &Bytes) -> Option<Value> {
    let as_text = || String::from_utf8_lossy(body).chars().take(BODY_CHARS_KEPT).collect::<String>().into();
    (!body.is_empty()).then(|| serde_json::from_slice(body).unwrap_or_else(|_| as_text()))
}

/// What an answer says of the change. Errors are read, and made again.
async fn ended(response: Response) -> (Response, End) {
    let status = response.status();
    if status < StatusCode::BAD_REQUEST {
        return (response, End { status: status.as_u16(), error: None, message: None });
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let end = End { status: status.as_u16(), error: text("error"), message: text("message") };
    (Response::from_parts(parts, Body::from(body)).into_response(), end)
}
