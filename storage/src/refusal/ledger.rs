//! The ledger of what was refused.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use atproto::{
    event::Kind,
    syntax::{Did, HostName},
};

use super::{
    Reason, Refusal, cut,
    window::{Day, Hour},
};

/// The longest text kept in an example, in bytes; the rest is cut.
pub const TEXT_BYTES_MAX: usize = 256;

/// Counts by reason, counts by host and reason, and the last example of each.
///
/// It is bounded: when the rows of hosts would take more than the limit in bytes, those of the host that has been quiet
/// for longest are forgotten. The totals by reason stay exact.
#[derive(Debug)]
pub struct Refusals {
    totals: [AtomicU64; Reason::COUNT],
    hosts_bytes_max: usize,
    hosts: Mutex<HostRows>,
}

/// Which input was refused, as far as it could be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// What kind of event it is.
    pub kind: Option<Kind>,
    /// The host's seq of it.
    pub seq: Option<u64>,
    /// Whose it is.
    pub did: Option<&'a Did>,
}

/// What was refused of one host for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// How often since the row was begun: since the process began, but for a host that was forgotten meanwhile.
    pub total: u64,
    /// How often in the last hour, to within five minutes.
    pub last_hour: u64,
    /// How often in the last 24 hours, to within one.
    pub last_day: u64,
    /// The last one.
    pub example: Example,
}

/// One refused input. Each text is at most [`TEXT_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// When, microseconds since the Unix epoch.
    pub at_micros: u64,
    /// Its kind, where that could be read.
    pub kind: Option<Kind>,
    /// The host's seq of it, where that could be read.
    pub seq: Option<u64>,
    /// Whose it was, where that could be read.
    pub did: Option<Box<str>>,
    /// The rev that it gave itself.
    pub rev: Option<Box<str>>,
    /// The record path in question.
    pub path: Option<Box<str>>,
    /// What was found.
    pub came: Box<str>,
    /// What would have passed.
    pub expected: Box<str>,
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
    /// Holds at most 16 MiB: less than a kilobyte for each reason of each host that ever failed one.
    fn default() -> Refusals {
        Refusals::new(16 << 20)
    }
}

impl Refusals {
    /// An empty ledger whose rows of hosts take at most about `hosts_bytes_max`.
    pub fn new(hosts_bytes_max: usize) -> Refusals {
        Refusals { totals: [const { AtomicU64::new(0) }; Reason::COUNT], hosts_bytes_max, hosts: Mutex::default() }
    }

    /// Counts one refusal. `now_micros` is since the Unix epoch.
    pub fn record(&self, host: &HostName, input: &Input<'_>, refusal: &Refusal, now_micros: u64) {
        self.totals[refusal.reason as usize].fetch_add(1, Ordering::Relaxed);
        let example = Example::new(input, refusal, now_micros);
        self.rows().record(host, refusal.reason, example, self.hosts_bytes_max);
    }

    /// How often this reason was given.
    pub fn total(&self, reason: Reason) -> u64 {
        self.totals[reason as usize].load(Ordering::Relaxed)
    }

    /// All reasons with their counts, zeros included, in the protocol's order: for the metric.
    pub fn totals(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().map(|reason| (reason, self.total(reason)))
    }

    /// What was refused of one host, in the protocol's order, as of `now_micros`.
    pub fn of_host(&self, host: &HostName, now_micros: u64) -> Vec<Refused> {
        let rows = self.rows();
        let refused = rows.by_name.get(host).map(|row| row.refused.as_slice()).unwrap_or_default();
        let mut refused: Vec<Refused> = refused.iter().map(|row| row.read(now_micros)).collect();
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

impl Example {
    fn new(input: &Input<'_>, refusal: &Refusal, at_micros: u64) -> Example {
        Example {
            at_micros,
            kind: input.kind,
            seq: input.seq,
            did: input.did.map(|did| cut(did.as_str()).into()),
            rev: refusal.rev.as_deref().map(|rev| cut(rev).into()),
            path: refusal.path.as_deref().map(|path| cut(path).into()),
            came: cut(&refusal.came).into(),
            expected: cut(&refusal.expected).into(),
        }
    }

    /// Its texts, in bytes.
    fn bytes(&self) -> usize {
        let optional = [&self.did, &self.rev, &self.path].into_iter().flatten().map(|text| text.len());
        optional.sum::<usize>() + self.came.len() + self.expected.len()
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
    refused: Vec<ReasonRow>,
}

/// One reason of one host.
#[derive(Debug)]
struct ReasonRow {
    reason: Reason,
    total: u64,
    hour: Hour,
    day: Day,
    example: Example,
}

/// What a host's row takes beside its name and its reasons: two map entries, with room to spare.
const HOST_BYTES: usize = 160;

impl HostRow {
    fn count(&self) -> u64 {
        self.refused.iter().map(|row| row.total).sum()
    }

    fn bytes(&self, host: &HostName) -> usize {
        HOST_BYTES + host.as_str().len() + self.refused.iter().map(ReasonRow::bytes).sum::<usize>()
    }

    fn add(&mut self, reason: Reason, example: Example) {
        let now_micros = example.at_micros;
        match self.refused.iter_mut().find(|row| row.reason == reason) {
            Some(row) => {
                row.total += 1;
                row.hour.add(now_micros);
                row.day.add(now_micros);
                row.example = example;
            }
            None => {
                let (mut hour, mut day) = (Hour::new(now_micros), Day::new(now_micros));
                hour.add(now_micros);
                day.add(now_micros);
                // Most hosts fail in one way or two.
                self.refused.reserve_exact(1);
                self.refused.push(ReasonRow { reason, total: 1, hour, day, example });
            }
        }
    }
}

impl ReasonRow {
    fn read(&self, now_micros: u64) -> Refused {
        Refused {
            reason: self.reason,
            total: self.total,
            last_hour: self.hour.sum(now_micros),
            last_day: self.day.sum(now_micros),
            example: self.example.clone(),
        }
    }

    fn bytes(&self) -> usize {
        size_of::<ReasonRow>() + self.example.bytes()
    }
}

impl HostRows {
    fn record(&mut self, host: &HostName, reason: Reason, example: Example, bytes_max: usize) {
        self.tick += 1;
        let tick = self.tick;
        if !self.by_name.contains_key(host) {
            self.by_name.insert(host.clone(), HostRow::default());
            self.bytes += HOST_BYTES + host.as_str().len();
        }
        let Some(row) = self.by_name.get_mut(host) else { return };
        let before = row.bytes(host);
        row.add(reason, example);
        self.bytes += row.bytes(host);
        self.bytes -= before;
        self.by_tick.remove(&row.tick);
        self.by_tick.insert(tick, host.clone());
        row.tick = tick;
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn refusal(reason: Reason, came: &str) -> Refusal {
        Refusal::new(reason, came.to_owned(), "better")
    }

    fn seq(seq: u64) -> Input<'static> {
        Input { seq: Some(seq), ..Input::default() }
    }

    #[test]
    fn counts_by_reason_host_and_time_with_the_last_example() {
        let ledger = Refusals::default();
        let (a, b) = (host("a.example.com"), host("b.example.com"));
        let did = Did::parse("did:web:someone.example.com").unwrap();
        let start = 1_000 * HOUR;
        ledger.record(&a, &seq(1), &refusal(Reason::WrongHost, "first"), start);
        let last = refusal(Reason::WrongHost, "second").at_path("a.b.c/d").with_rev("3l");
        let input = Input { kind: Some(Kind::Commit), seq: Some(2), did: Some(&did) };
        ledger.record(&a, &input, &last, start + 2 * HOUR);
        ledger.record(&a, &seq(3), &refusal(Reason::BadHeader, "noise"), start + 2 * HOUR);
        ledger.record(&b, &seq(4), &refusal(Reason::WrongHost, "other"), start);
        assert_eq!(ledger.total(Reason::WrongHost), 3);
        assert_eq!(ledger.totals().map(|(_, count)| count).sum::<u64>(), 4);

        let refused = ledger.of_host(&a, start + 2 * HOUR);
        let counts = refused.iter().map(|row| (row.reason, row.total, row.last_day, row.last_hour));
        assert_eq!(counts.collect::<Vec<_>>(), [(Reason::BadHeader, 1, 1, 1), (Reason::WrongHost, 2, 2, 1)]);
        let example = Example {
            at_micros: start + 2 * HOUR,
            kind: Some(Kind::Commit),
            seq: Some(2),
            did: Some(did.as_str().into()),
            rev: Some("3l".into()),
            path: Some("a.b.c/d".into()),
            came: "second".into(),
            expected: "better".into(),
        };
        assert_eq!(refused[1].example, example);
        let later = ledger.of_host(&a, start + 25 * HOUR);
        assert_eq!((later[1].total, later[1].last_day, later[1].last_hour), (2, 1, 0));

        assert_eq!(ledger.worst_hosts(1), [RefusedHost { host: a, count: 3 }]);
        assert_eq!(ledger.count_of_host(&b), 1);
        assert_eq!(ledger.of_host(&host("c.example.com"), 0), []);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let ledger = Refusals::default();
        let host = host("a.example.com");
        let came = |ledger: &Refusals| ledger.of_host(&host, 0)[0].example.came.to_string();
        ledger.record(&host, &seq(1), &refusal(Reason::BadPath, &format!("{}é", "x".repeat(255))), 0);
        assert_eq!(came(&ledger), "x".repeat(255));
        let long = refusal(Reason::BadPath, &"é".repeat(1000)).at_path(&"y".repeat(1000));
        ledger.record(&host, &seq(1), &long, 0);
        assert_eq!(came(&ledger), "é".repeat(128));
        assert_eq!(ledger.of_host(&host, 0)[0].example.path.as_deref(), Some("y".repeat(256).as_str()));
    }

    #[test]
    fn stays_within_its_bytes_and_forgets_the_quietest_host() {
        let bytes_max = 100 * (HOST_BYTES + size_of::<ReasonRow>() + 40);
        let ledger = Refusals::new(bytes_max);
        let loud = host("loud.example.com");
        for n in 0..1000 {
            let refusal = refusal(Reason::WrongHost, &"x".repeat(n % 40));
            ledger.record(&host(&format!("host-{n}.example.com")), &seq(1), &refusal, n as u64);
            ledger.record(&loud, &seq(1), &refusal, n as u64);
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
