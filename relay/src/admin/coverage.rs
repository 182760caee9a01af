//! How we stand beside other relays (`--coverage-peer`).

use axum::{Json, extract::State};
use serde::Serialize;

use super::{error::Error, input::only};
use crate::{
    app::App,
    coverage::{
        Peer, Standing,
        tally::{MissingHost, Tally},
        walk::{MissingRepo, Walk},
    },
    xrpc::params::Params,
};

/// All peers.
#[derive(Debug, Serialize)]
pub(super) struct Coverage {
    peers: Vec<PeerView>,
}

/// One peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerView {
    peer: String,
    url: String,
    rounds: u64,
    last_round_at_micros: Option<u64>,
    failures: u64,
    last_failure: Option<FailureView>,
    hosts: HostsView,
    repos: ReposView,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureView {
    at_micros: u64,
    why: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HostsView {
    there: u64,
    missing: u64,
    accounts_there: u64,
    accounts_here: Option<u64>,
    examples: Vec<HostView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HostView {
    hostname: String,
    account_count: u64,
    here: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReposView {
    looked: u64,
    missing: u64,
    laps: u64,
    examples: Vec<RepoView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RepoView {
    did: String,
    at_micros: u64,
}

/// `GET /admin/coverage`
pub(super) async fn show(State(app): State<App>, params: Params) -> Result<Json<Coverage>, Error> {
    only(&params, &[])?;
    let peers = app.coverage.standings().into_iter().map(|(peer, standing)| PeerView::new(peer, standing));
    Ok(Json(Coverage { peers: peers.collect() }))
}

impl PeerView {
    fn new(peer: Peer, standing: Standing) -> PeerView {
        PeerView {
            peer: peer.name,
            url: peer.url.to_string(),
            rounds: standing.rounds,
            last_round_at_micros: standing.last_round_micros,
            failures: standing.failures,
            last_failure: standing.last_failure.map(|(at_micros, why)| FailureView { at_micros, why }),
            hosts: HostsView::new(&standing.tally),
            repos: ReposView::new(&standing.walk),
        }
    }
}

impl HostsView {
    fn new(tally: &Tally) -> HostsView {
        let view = |MissingHost { name, accounts, here }: MissingHost| HostView {
            hostname: name.to_string(),
            account_count: accounts,
            here: here.map_or("unknown", |status| status.as_str()),
        };
        HostsView {
            there: tally.hosts,
            missing: tally.missing,
            accounts_there: tally.accounts_there,
            accounts_here: tally.accounts_here,
            examples: tally.names().into_iter().map(view).collect(),
        }
    }
}

impl ReposView {
    fn new(walk: &Walk) -> ReposView {
        let view = |MissingRepo { did, at_micros }: MissingRepo| RepoView { did: did.to_string(), at_micros };
        ReposView {
            looked: walk.looked,
            missing: walk.missing,
            laps: walk.laps,
            examples: walk.names().into_iter().map(view).collect(),
        }
    }
}
