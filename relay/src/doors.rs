//! What is counted at the public doors: who was turned away, before its request or after, and how subscribers' connections
//! ended; by reason, since the process began.

use runtime::http;
use serde::Serialize;

use crate::{
    app::App,
    fanout::metrics::{Ended, Refused},
};

/// A reason and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// Its word, as in the metrics.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// The counts; zeros left out.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// Whom we turned away. `connection_…`: before there was a request to look at.
    pub refused: Vec<ReasonCount>,
    /// How subscribers' connections ended.
    pub ended: Vec<ReasonCount>,
}

impl Doors {
    /// Looks.
    pub fn look(app: &App) -> Doors {
        let connections = http::Refused::ALL
            .map(|reason| (format!("connection_{}", reason.as_str()), app.public_http.refused(reason)));
        let subscribers = Refused::ALL.map(|reason| (reason.as_str().to_owned(), app.fanout.refused_by(reason)));
        let ended = Ended::ALL.map(|reason| (reason.as_str().to_owned(), app.fanout.ended_by(reason)));
        Doors { refused: counted(connections.into_iter().chain(subscribers)), ended: counted(ended) }
    }
}

fn counted(reasons: impl IntoIterator<Item = (String, u64)>) -> Vec<ReasonCount> {
    let seen = reasons.into_iter().filter(|(_, count)| *count > 0);
    seen.map(|(reason, count)| ReasonCount { reason, count }).collect()
}
