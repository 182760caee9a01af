//! What lanes keep in rows.

use std::sync::Arc;

use async_trait::async_trait;
use atproto::syntax::Did;
use storage::{error::Error, intake::Declined, lane::Lane, repos::RepoState};

use crate::{
    cql::{Commands, Rows},
    wire::raw::CommandId,
};

/// How a command ended.
pub(crate) type Answer = Result<RepoState, Declined>;

/// The rows that lanes write and ask for: repos, and how commands ended.
#[async_trait]
pub(crate) trait LaneRows: Send + Sync {
    /// The lane is ours from here on.
    fn own(&self, lane: Lane);

    /// The lane may be another's by now.
    fn disown(&self, lane: Lane);

    /// Writes the states that events of a lane made, each with the event's offset in `verified`, in the order of these.
    /// When it answers Ok they are durable. A repeat changes nothing; who is late changes nothing that a later offset has
    /// written.
    async fn apply(&self, lane: Lane, events: &[(Did, RepoState, i64)]) -> Result<(), Error>;

    /// A repo's state as of what was applied.
    async fn state(&self, did: &Did) -> Result<Option<RepoState>, Error>;

    /// Keeps how a command ended, for an hour.
    async fn answer(&self, id: &CommandId, answer: &Answer) -> Result<(), Error>;

    /// How a command ended, if it has.
    async fn find(&self, id: &CommandId) -> Result<Option<Answer>, Error>;
}

/// In CQL.
pub(crate) struct CqlLaneRows {
    rows: Arc<Rows>,
    commands: Commands,
}

impl CqlLaneRows {
    pub(crate) fn new(rows: Arc<Rows>, commands: Commands) -> CqlLaneRows {
        CqlLaneRows { rows, commands }
    }
}

#[async_trait]
impl LaneRows for CqlLaneRows {
    fn own(&self, lane: Lane) {
        self.rows.own(lane);
    }

    fn disown(&self, lane: Lane) {
        self.rows.disown(lane);
    }

    async fn apply(&self, lane: Lane, events: &[(Did, RepoState, i64)]) -> Result<(), Error> {
        self.rows.apply(lane, events).await
    }

    async fn state(&self, did: &Did) -> Result<Option<RepoState>, Error> {
        self.rows.get(did).await
    }

    async fn answer(&self, id: &CommandId, answer: &Answer) -> Result<(), Error> {
        self.commands.answer(id, answer).await
    }

    async fn find(&self, id: &CommandId) -> Result<Option<Answer>, Error> {
        self.commands.find(id).await
    }
}
