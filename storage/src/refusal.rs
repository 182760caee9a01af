//! Why an input was refused: the closed set of reasons, and the counts by host.
//!
//! The word of a reason is the same in the metric's label, the log's field, the admin JSON and the test fixtures. Where
//! several apply, the one that stands first in the protocol's table of checks is given.
//!
//! [`Refusals`] is kept in memory only: its counts are at least once, and start anew with the process.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use atproto::syntax::HostName;

/// Makes the enum, the list and the words out of one table, so that they can't drift apart.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// A named reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// How many there are.
            pub const COUNT: usize = [$($word),+].len();

            /// All of them, in the order of the protocol's table.
            pub const ALL: [Reason; Reason::COUNT] = [$(Reason::$name),+];

            /// The word: `bad_signature`, …
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $word,)+
                }
            }
        }
    };
}

reasons! {
    /// The frame is over 5 MiB.
    FrameTooLarge = "frame_too_large",
    /// The header is not readable CBOR.
    BadHeader = "bad_header",
    /// The payload is not one canonical map, or a field is missing or of the wrong type.
    BadPayload = "bad_payload",
    /// The sender's seq does not rise.
    SeqNotRising = "seq_not_rising",
    /// The directory says there is no such identity, or it is tombstoned.
    IdentityNotFound = "identity_not_found",
    /// The DID document has no usable signing key.
    NoSigningKey = "no_signing_key",
    /// The DID document names no host.
    NoPds = "no_pds",
    /// The host is not the account's.
    WrongHost = "wrong_host",
    /// The account is not active.
    AccountInactive = "account_inactive",
    /// `blocks` is over 2,000,000 bytes (10,000 of a `#sync`).
    BlocksTooLarge = "blocks_too_large",
    /// More than 200 ops.
    TooManyOps = "too_many_ops",
    /// A record is over 1 MiB.
    RecordTooLarge = "record_too_large",
    /// `tooBig` is set.
    TooBig = "too_big",
    /// `rebase` is set.
    Rebase = "rebase",
    /// The rev is not a TID.
    BadRev = "bad_rev",
    /// The rev is older than the last, or the last one's but on another commit.
    StaleRev = "stale_rev",
    /// The rev is more than 5 minutes in the future.
    FutureRev = "future_rev",
    /// The CAR can't be read.
    BadCar = "bad_car",
    /// A block's bytes do not hash to its CID.
    WrongBlockHash = "wrong_block_hash",
    /// The CAR of a `#sync` holds more than the commit block.
    ExtraBlocks = "extra_blocks",
    /// The CAR's root is not the event's commit, or its block is missing.
    RootMismatch = "root_mismatch",
    /// The commit block is not a commit of version 3.
    BadCommit = "bad_commit",
    /// The commit is of another DID.
    CommitDidMismatch = "commit_did_mismatch",
    /// The commit's rev is not the event's.
    CommitRevMismatch = "commit_rev_mismatch",
    /// The signature has a high S.
    HighS = "high_s",
    /// The signature is not the account's key's.
    BadSignature = "bad_signature",
    /// A path is not `collection/rkey`.
    BadPath = "bad_path",
    /// An op's cid or prev does not fit its action.
    BadOp = "bad_op",
    /// A record's block is missing.
    MissingRecord = "missing_record",
    /// An MST node that is needed is missing.
    MissingMstBlock = "missing_mst_block",
    /// A node breaks the MST's rules or limits.
    BadMst = "bad_mst",
    /// An op is not what the tree says.
    OpMismatch = "op_mismatch",
    /// `prevData` is missing though the repo has a past, or the ops do not lead back to it.
    PrevDataMismatch = "prev_data_mismatch",
    /// A `#sync`'s rev is older than the last.
    SyncRollback = "sync_rollback",
}

impl Reason {
    /// The reason with this word.
    pub fn parse(word: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest example kept of a refusal, in bytes; the rest is cut.
pub const EXAMPLE_BYTES_MAX: usize = 256;

/// The ledger of what was refused: counts by reason, counts by host and reason, and the last example of each.
///
/// It is bounded: when the rows of hosts would take more than the limit in bytes, those of the host that has been quiet
/// for longest are forgotten. The totals by reason stay exact.
#[derive(Debug)]
pub struct Refusals {
    totals: [AtomicU64; Reason::COUNT],
    hosts_bytes_max: usize,
    hosts: Mutex<HostRows>,
}

/// What was refused of one host for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// How often.
    pub count: u64,
    /// The last one: seq, DID, what was expected. At most [`EXAMPLE_BYTES_MAX`] bytes.
    pub example: String,
}

/// A host and how often it was refused, for pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedHost {
    /// The host.
    pub host: HostName,
    /// How many inputs of it were refused, for all reasons.
    pub count: u64,
}

impl Default for Refusals {
    /// Holds at most 8 MiB: some hundred bytes for each reason of each host that ever failed one.
    fn default() -> Refusals {
        Refusals::new(8 << 20)
    }
}

impl Refusals {
    /// An empty ledger whose rows of hosts take at most about `hosts_bytes_max`.
    pub fn new(hosts_bytes_max: usize) -> Refusals {
        Refusals { totals: [const { AtomicU64::new(0) }; Reason::COUNT], hosts_bytes_max, hosts: Mutex::default() }
    }

    /// Counts one refusal. `detail` says which input it was and what was expected of it, for a person.
    pub fn record(&self, host: &HostName, reason: Reason, detail: impl fmt::Display) {
        self.totals[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.rows().record(host, reason, &detail, self.hosts_bytes_max);
    }

    /// How often this reason was given.
    pub fn total(&self, reason: Reason) -> u64 {
        self.totals[reason as usize].load(Ordering::Relaxed)
    }

    /// All reasons with their counts, zeros included, in the protocol's order: for the metric.
    pub fn totals(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().map(|reason| (reason, self.total(reason)))
    }

    /// What was refused of one host, in the protocol's order.
    pub fn of_host(&self, host: &HostName) -> Vec<Refused> {
        let mut refused = self.rows().by_name.get(host).map(|row| row.refused.clone()).unwrap_or_default();
        refused.sort_by_key(|refused| refused.reason);
        refused
    }

    /// How many inputs of one host were refused, for all reasons.
    pub fn count_of_host(&self, host: &HostName) -> u64 {
        self.rows().by_name.get(host).map_or(0, HostRow::count)
    }

    /// The hosts that were refused most often, worst first, at most `limit`.
    pub fn worst_hosts(&self, limit: usize) -> Vec<RefusedHost> {
        let mut hosts: Vec<RefusedHost> = {
            let rows = self.rows();
            rows.by_name.iter().map(|(host, row)| RefusedHost { host: host.clone(), count: row.count() }).collect()
        };
        hosts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.host.cmp(&b.host)));
        hosts.truncate(limit);
        hosts
    }

    /// How many hosts' rows were forgotten to stay within the bound.
    pub fn hosts_forgotten(&self) -> u64 {
        self.rows().forgotten
    }

    fn rows(&self) -> MutexGuard<'_, HostRows> {
        // Counts are whole after every step of `record`, so a panic elsewhere leaves nothing to repair.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows, and in which order they were last touched.
#[derive(Debug, Default)]
struct HostRows {
    by_name: HashMap<HostName, HostRow>,
    /// Tick of the last refusal → host; ticks are unique.
    by_tick: BTreeMap<u64, HostName>,
    tick: u64,
    bytes: usize,
    forgotten: u64,
}

#[derive(Debug, Default)]
struct HostRow {
    tick: u64,
    refused: Vec<Refused>,
}

/// What a host's row takes beside its name and its examples: two map entries, with room to spare.
const HOST_BYTES: usize = 160;
/// What a row of one reason takes at most: an example's buffer is allocated whole.
const REASON_BYTES: usize = size_of::<Refused>() + EXAMPLE_BYTES_MAX;

impl HostRow {
    fn count(&self) -> u64 {
        self.refused.iter().map(|refused| refused.count).sum()
    }

    fn bytes(&self, host: &HostName) -> usize {
        HOST_BYTES + host.as_str().len() + self.refused.len() * REASON_BYTES
    }
}

impl HostRows {
    fn record(&mut self, host: &HostName, reason: Reason, detail: &dyn fmt::Display, bytes_max: usize) {
        self.tick += 1;
        let tick = self.tick;
        let bytes = &mut self.bytes;
        let row = self.by_name.entry(host.clone()).or_insert_with(|| {
            *bytes += HOST_BYTES + host.as_str().len();
            HostRow::default()
        });
        self.by_tick.remove(&row.tick);
        self.by_tick.insert(tick, host.clone());
        row.tick = tick;
        let at = row.refused.iter().position(|refused| refused.reason == reason).unwrap_or_else(|| {
            *bytes += REASON_BYTES;
            row.refused.push(Refused { reason, count: 0, example: String::with_capacity(EXAMPLE_BYTES_MAX) });
            row.refused.len() - 1
        });
        let refused = &mut row.refused[at];
        refused.count += 1;
        refused.example.clear();
        // It fails where the example is full, which ends the formatting early.
        let _cut = write!(Cut(&mut refused.example), "{detail}");
        // The host just touched is last in line and stays, however small the bound.
        while self.bytes > bytes_max && self.by_name.len() > 1 {
            let Some((_, quiet)) = self.by_tick.pop_first() else { break };
            if let Some(row) = self.by_name.remove(&quiet) {
                self.bytes -= row.bytes(&quiet);
                self.forgotten += 1;
            }
        }
    }
}

/// Takes text up to [`EXAMPLE_BYTES_MAX`], cut between characters.
struct Cut<'a>(&'a mut String);

impl fmt::Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = EXAMPLE_BYTES_MAX - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn words_are_the_variants_in_snake_case_and_parse_back() {
        for reason in Reason::ALL {
            let mut snake = String::new();
            for c in format!("{reason:?}").chars() {
                if c.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            assert_eq!(reason.as_str(), snake);
            assert_eq!(Reason::parse(&snake), Some(reason));
            assert_eq!(Reason::ALL[reason as usize], reason);
        }
        assert_eq!(Reason::parse("no_such_reason"), None);
    }

    #[test]
    fn counts_by_reason_and_host_with_the_last_example() {
        let ledger = Refusals::default();
        let (a, b) = (host("a.example.com"), host("b.example.com"));
        ledger.record(&a, Reason::WrongHost, "seq 1");
        ledger.record(&a, Reason::WrongHost, format_args!("seq {}", 2));
        ledger.record(&a, Reason::BadHeader, "seq 3");
        ledger.record(&b, Reason::WrongHost, "seq 4");
        assert_eq!(ledger.total(Reason::WrongHost), 3);
        assert_eq!(ledger.totals().map(|(_, count)| count).sum::<u64>(), 4);
        assert_eq!(
            ledger.of_host(&a),
            [
                Refused { reason: Reason::BadHeader, count: 1, example: "seq 3".into() },
                Refused { reason: Reason::WrongHost, count: 2, example: "seq 2".into() },
            ]
        );
        assert_eq!(ledger.worst_hosts(1), [RefusedHost { host: a, count: 3 }]);
        assert_eq!(ledger.count_of_host(&b), 1);
        assert_eq!(ledger.of_host(&host("c.example.com")), []);
    }

    #[test]
    fn examples_are_cut_between_characters() {
        let ledger = Refusals::default();
        let host = host("a.example.com");
        ledger.record(&host, Reason::BadPath, format_args!("{}{}", "x".repeat(255), "é"));
        assert_eq!(ledger.of_host(&host)[0].example, "x".repeat(255));
        ledger.record(&host, Reason::BadPath, "é".repeat(1000));
        assert_eq!(ledger.of_host(&host)[0].example, "é".repeat(128));
    }

    #[test]
    fn stays_within_its_bytes_and_forgets_the_quietest_host() {
        let bytes_max = 100 * (HOST_BYTES + REASON_BYTES + 24);
        let ledger = Refusals::new(bytes_max);
        let loud = host("loud.example.com");
        for n in 0..1000 {
            ledger.record(&host(&format!("host-{n}.example.com")), Reason::WrongHost, n);
            ledger.record(&loud, Reason::WrongHost, n);
            assert!(ledger.rows().bytes <= bytes_max);
        }
        let rows = ledger.rows();
        assert!(rows.by_name.len() > 50);
        assert_eq!(rows.by_name.len(), rows.by_tick.len());
        assert_eq!(rows.bytes, rows.by_name.iter().map(|(host, row)| row.bytes(host)).sum::<usize>());
        assert_eq!(rows.forgotten as usize + rows.by_name.len(), 1001);
        drop(rows);
        assert_eq!(ledger.count_of_host(&loud), 1000);
        assert_eq!(ledger.total(Reason::WrongHost), 2000);
    }
}
