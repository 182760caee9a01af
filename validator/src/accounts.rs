//! What an operator does to accounts: a handle that puts commands into the intake and waits for their end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use atproto::syntax::Did;
use runtime::clock::Clock;
use storage::{
    intake::{Action, Command, CommandReceipt, Declined, Intake},
    repos::RepoState,
};
use tokio::{sync::oneshot, time::timeout};

/// The time for a command's end. One for an account that we have seen no event of waits for its identity.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Takes accounts down, and restores them. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    intake: Arc<dyn Intake>,
    clock: Clock,
}

/// Why it is not known to be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// It can't be done, and nothing has changed.
    #[error(transparent)]
    Declined(#[from] Declined),
    /// It was not done in time. It waits in its lane, and may still be done; giving it again does no harm.
    #[error("not done within {waited:?}, and may still be: the account's lane waits")]
    Late {
        /// How long was waited.
        waited: Duration,
    },
    /// The intake takes nothing more.
    #[error(transparent)]
    Store(#[from] storage::error::Error),
}

impl Accounts {
    /// Hands commands to this intake.
    pub fn new(intake: Arc<dyn Intake>, clock: Clock) -> Accounts {
        Accounts { intake, clock }
    }

    /// Takes an account down, known or not: nothing of it is served any more but our own `#account` event that says so.
    /// Answers with its state when that is durable. What is taken down already stays so, without an event.
    pub async fn takedown(&self, did: &Did) -> Result<RepoState, AccountError> {
        self.command(did, Action::Takedown).await
    }

    /// Ends a takedown: an `#account` event of our own says how the account is at its host. Answers with its state when
    /// that is durable. An account that is not taken down stays as it is, without an event.
    pub async fn restore(&self, did: &Did) -> Result<RepoState, AccountError> {
        self.command(did, Action::Restore).await
    }

    async fn command(&self, did: &Did, action: Action) -> Result<RepoState, AccountError> {
        let (sender, settled) = oneshot::channel();
        let command = Command {
            did: did.clone(),
            action,
            received_at_micros: self.clock.now_micros(),
            receipt: Arc::new(Receipt(Mutex::new(Some(sender)))),
        };
        let end = async {
            self.intake.push_command(command).await?;
            // The sender is dropped where the lanes end before the command does.
            Ok(settled.await.map_err(|_| storage::error::Error::Closed)??)
        };
        timeout(ANSWER_WITHIN, end).await.unwrap_or(Err(AccountError::Late { waited: ANSWER_WITHIN }))
    }
}

/// Passes a command's end on to who waits for it.
struct Receipt(Mutex<Option<oneshot::Sender<Result<RepoState, Declined>>>>);

impl CommandReceipt for Receipt {
    fn settled(&self, result: Result<RepoState, Declined>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever waited may have stopped.
        let _gone = sender.map(|sender| sender.send(result));
    }
}
