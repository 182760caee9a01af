//! The other verdict: `indigo/main.go`, asked in lines of JSON.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::ours::Account;

/// The program, running.
pub(crate) struct Indigo {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Where it refused, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) stage: String,
    pub(crate) error: String,
}

/// `{"t": "#commit", "op": 1}`.
const HEADER: &[u8] = b"\xa2\x61t\x67#commit\x62op\x01";

impl Indigo {
    /// Builds it, once a machine, and starts it.
    pub(crate) fn start() -> Indigo {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differential/indigo/install.sh");
        let output = Command::new("bash").arg(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the other implementation can't be built");
        let program = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Indigo { child, input, output: BufReader::new(output) }
    }

    /// Its verdict on a `#commit`.
    pub(crate) fn judge(&mut self, account: &Account, frame: &[u8]) -> Result<(), Objection> {
        let Some(payload) = frame.strip_prefix(HEADER) else {
            return Err(Objection { stage: "header".to_owned(), error: "not a commit's".to_owned() });
        };
        let question = json!({
            "payload": BASE64.encode(payload),
            "key": account.key().to_did_key(),
            "did": account.did(),
            "rev": account.rev().unwrap_or_default(),
        });
        writeln!(self.input, "{question}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        let objection = Objection { stage: text("stage"), error: text("error") };
        if objection.stage.is_empty() { Ok(()) } else { Err(objection) }
    }
}

impl Drop for Indigo {
    fn drop(&mut self) {
        // It is ours, and has nothing to finish.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the frame has the header of a commit, which is all that is handed over.
pub(crate) fn is_commit(frame: &[u8]) -> bool {
    frame.starts_with(HEADER)
}

/// Where it refused, and the beginning of what it said, up to what differs from case to case.
pub(crate) fn word(verdict: &Result<(), Objection>) -> String {
    match verdict {
        Ok(()) => "accepted".to_owned(),
        Err(Objection { stage, error }) => {
            let words = error.split(' ').take_while(|word| !word.contains("bafy") && !word.contains('/'));
            format!("{stage}: {}", words.take(9).collect::<Vec<_>>().join(" "))
        }
    }
}
