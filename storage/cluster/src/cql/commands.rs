//! How operators' commands ended: told by the validator that carried one out to whoever gave it, through a row that ends
//! after an hour.
//!
//! ```text
//!   answer   version u8 · kind u8 · [the repo's state | why not: text]
//! ```

use std::sync::Arc;

use storage::{error::Error, intake::Declined, repos::RepoState};

use super::{
    damaged,
    metrics::Kind,
    session::{ConnectError, Effect, Session, Statement},
};

/// What tells one command from all others: random.
pub type CommandId = [u8; 16];

/// The repo's state after a command, or why it could not be done.
pub type Answer = Result<RepoState, Declined>;

const VERSION: u8 = 1;
const DONE: u8 = 0;
const UNKNOWN_ACCOUNT: u8 = 1;
const NO_IDENTITY: u8 = 2;
const NO_PDS: u8 = 3;

/// The rows of answers.
pub struct Commands {
    session: Arc<Session>,
    get: Statement,
    put: Statement,
}

impl Commands {
    /// Prepares the statements.
    pub async fn prepare(session: Arc<Session>) -> Result<Commands, ConnectError> {
        let (get, put) =
            ("SELECT answer FROM commands WHERE id = ?", "INSERT INTO commands (id, answer) VALUES (?, ?)");
        Ok(Commands {
            get: session.prepare(Kind::CommandGet, Effect::Read, "read a command's answer", get).await?,
            put: session.prepare(Kind::CommandPut, Effect::Idempotent, "answer a command", put).await?,
            session,
        })
    }

    /// Tells how a command ended.
    pub async fn answer(&self, id: &CommandId, answer: &Answer) -> Result<(), Error> {
        self.session.execute(&self.put, (&id[..], encode(answer))).await?;
        Ok(())
    }

    /// How a command ended; `None` where it has not, or an hour ago.
    pub async fn find(&self, id: &CommandId) -> Result<Option<Answer>, Error> {
        let row: Option<(Option<Vec<u8>>,)> = self.session.one(&self.get, (&id[..],)).await?;
        let Some((Some(bytes),)) = row else { return Ok(None) };
        decode(&bytes).map(Some).ok_or_else(|| damaged("answer", "a command"))
    }
}

fn encode(answer: &Answer) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    match answer {
        Ok(state) => {
            bytes.push(DONE);
            state.encode(&mut bytes);
        }
        Err(Declined::UnknownAccount) => bytes.push(UNKNOWN_ACCOUNT),
        Err(Declined::NoIdentity { why }) => {
            bytes.push(NO_IDENTITY);
            bytes.extend_from_slice(why.as_bytes());
        }
        Err(Declined::NoPds) => bytes.push(NO_PDS),
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Answer> {
    let (&[VERSION, kind], rest) = bytes.split_first_chunk()? else { return None };
    Some(match kind {
        DONE => Ok(RepoState::decode(rest)?),
        UNKNOWN_ACCOUNT if rest.is_empty() => Err(Declined::UnknownAccount),
        NO_IDENTITY => Err(Declined::NoIdentity { why: std::str::from_utf8(rest).ok()?.to_owned() }),
        NO_PDS if rest.is_empty() => Err(Declined::NoPds),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use storage::conformance::sample;

    use super::*;

    #[test]
    fn answers_come_back() {
        let why = "a tombstone".to_owned();
        for (answer, first) in [
            (Ok(sample::state(sample::host(1), 1)), [1, 0]),
            (Err(Declined::UnknownAccount), [1, 1]),
            (Err(Declined::NoIdentity { why }), [1, 2]),
            (Err(Declined::NoPds), [1, 3]),
        ] {
            let bytes = encode(&answer);
            assert_eq!(bytes[..2], first);
            assert_eq!(decode(&bytes), Some(answer));
        }
        assert_eq!(decode(&[1, 1, 0]), None);
        assert_eq!(decode(&[2, 1]), None);
        assert_eq!(decode(&[]), None);
    }
}
