//! Memory of those who are there and get nothing.

use std::fmt;

use serde_json::{Value, json};

use super::{Error, Sizes, stage::Stage};
use crate::bench::{Bound, Check};

/// What quiet subscribers take.
#[derive(Clone, Debug)]
pub struct Quiet {
    /// How many.
    pub subscribers: usize,
    /// The relay's resident memory without them.
    pub without_bytes: u64,
    /// With them, before anything was sent.
    pub connected_bytes: u64,
    /// With them, after each got some events and there was quiet again.
    pub after_bytes: u64,
}

/// Events that each of them gets, after which it is quiet again.
const EVENTS: u64 = 300;
/// The most that each may take of the process.
const KIB_MOST: f64 = 32.0;

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Quiet, Error> {
    let subscribers = sizes.quiet;
    // What the first subscribers and events make a relay allocate is not what one more takes.
    let few = stage.crowd(20, 0).await?;
    stage.drive("quiet", &few, EVENTS).await?;
    drop(few);
    let without_bytes = stage.settled_bytes().await?;
    stage.say(&format!("{subscribers} quiet subscribers"));
    let crowd = stage.crowd(subscribers, 0).await?;
    let connected_bytes = stage.settled_bytes().await?;
    stage.drive("quiet", &crowd, EVENTS).await?;
    let after_bytes = stage.settled_bytes().await?;
    if crowd.ended() > 0 {
        return Err(stage.not_served("quiet", &crowd));
    }
    Ok(Quiet { subscribers, without_bytes, connected_bytes, after_bytes })
}

impl Quiet {
    fn kib_each(&self, bytes: u64) -> f64 {
        bytes.saturating_sub(self.without_bytes) as f64 / 1024.0 / self.subscribers as f64
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        [("connected", self.connected_bytes), ("after some events", self.after_bytes)]
            .map(|(when, bytes)| {
                let name = format!("KiB of the process for a quiet subscriber, {} {when}", self.subscribers);
                Check::new(name, self.kib_each(bytes), Bound::AtMost(KIB_MOST))
            })
            .into()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "subscribers": self.subscribers,
            "without_bytes": self.without_bytes,
            "connected_bytes": self.connected_bytes,
            "after_bytes": self.after_bytes,
            "kib_each_connected": self.kib_each(self.connected_bytes),
            "kib_each_after": self.kib_each(self.after_bytes),
        })
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        writeln!(f, "{} quiet subscribers: resident memory of the relay", self.subscribers)?;
        writeln!(f, "  {:<32} {:>8} {:>10}", "", "MiB", "KiB each")?;
        writeln!(f, "  {:<32} {:>8.1}", "without them", mib(self.without_bytes))?;
        for (when, bytes) in [("connected", self.connected_bytes), ("after 300 events, quiet again", self.after_bytes)]
        {
            writeln!(f, "  {when:<32} {:>8.1} {:>10.1}", mib(bytes), self.kib_each(bytes))?;
        }
        Ok(())
    }
}
