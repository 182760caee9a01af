//! What each host may do: rates of its stream, and how many accounts it may have.
//!
//! [`Rules`] are what an operator wrote in a file: patterns of hosts' names, in order, with the limits of the hosts they
//! fit. [`Limits`] is the handle that parts of the relay ask; the rules behind it, and the exceptions made for single
//! hosts, change while it is used. The file is read elsewhere: nothing here touches a disk.

use std::{collections::HashMap, fmt, num::NonZeroU64, sync::Arc};

use arc_swap::ArcSwap;
use atproto::syntax::HostName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::sync::watch;

/// What one host may do. `None` is without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Messages a second; over ten seconds, so that a short burst passes.
    pub events_per_second: Option<NonZeroU64>,
    /// Messages an hour.
    pub events_per_hour: Option<NonZeroU64>,
    /// Messages a day.
    pub events_per_day: Option<NonZeroU64>,
    /// Bytes of messages a second, over ten seconds.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Accounts that are relayed at once; a new one beyond them is throttled.
    pub accounts_max: Option<u64>,
}

impl HostLimits {
    /// Nothing is limited.
    pub const UNLIMITED: HostLimits = HostLimits {
        events_per_second: None,
        events_per_hour: None,
        events_per_day: None,
        bytes_per_second: None,
        accounts_max: None,
    };
}

impl Default for HostLimits {
    /// What an unknown host gets where no rule says otherwise.
    fn default() -> HostLimits {
        Rules::default().default
    }
}

/// One limit as it is written: a whole number or the word `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most so many.
    AtMost(u64),
}

/// Some limits, to be laid over others: what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// See [`HostLimits::events_per_second`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rate")]
    pub events_per_second: Option<Limit>,
    /// See [`HostLimits::events_per_hour`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rate")]
    pub events_per_hour: Option<Limit>,
    /// See [`HostLimits::events_per_day`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rate")]
    pub events_per_day: Option<Limit>,
    /// See [`HostLimits::bytes_per_second`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rate")]
    pub bytes_per_second: Option<Limit>,
    /// See [`HostLimits::accounts_max`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts_max: Option<Limit>,
}

/// The rules of a file, in order: the first that fits a host decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    default: HostLimits,
    rules: Vec<Rule>,
}

/// Limits for the hosts whose names fit one of the patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    patterns: Vec<Pattern>,
    limits: HostLimits,
}

/// Why a file of rules can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct RulesError {
    /// The line that is at fault, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Which of the rules gave a host its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The first rule with this pattern.
    Rule(String),
    /// None fits, and local hosts are without limits here.
    Local,
    /// None fits.
    Default,
}

/// The rules in force, with the exceptions made for single hosts. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    in_force: ArcSwap<InForce>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct InForce {
    rules: Arc<Rules>,
    local_unlimited: bool,
    exceptions: HashMap<HostName, Change>,
}

// === impl Change ===

impl Change {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }

    /// These limits laid over others.
    pub fn over(&self, under: HostLimits) -> HostLimits {
        let rate = |change: Option<Limit>, under: Option<NonZeroU64>| match change {
            None => under,
            Some(Limit::Unlimited) => None,
            // Zero can't be written: a host that may send nothing is a banned one.
            Some(Limit::AtMost(n)) => Some(NonZeroU64::new(n).unwrap_or(NonZeroU64::MIN)),
        };
        HostLimits {
            events_per_second: rate(self.events_per_second, under.events_per_second),
            events_per_hour: rate(self.events_per_hour, under.events_per_hour),
            events_per_day: rate(self.events_per_day, under.events_per_day),
            bytes_per_second: rate(self.bytes_per_second, under.bytes_per_second),
            accounts_max: match self.accounts_max {
                None => under.accounts_max,
                Some(Limit::Unlimited) => None,
                Some(Limit::AtMost(n)) => Some(n),
            },
        }
    }

    /// A later change over this one.
    pub fn then(&self, later: Change) -> Change {
        Change {
            events_per_second: later.events_per_second.or(self.events_per_second),
            events_per_hour: later.events_per_hour.or(self.events_per_hour),
            events_per_day: later.events_per_day.or(self.events_per_day),
            bytes_per_second: later.bytes_per_second.or(self.bytes_per_second),
            accounts_max: later.accounts_max.or(self.accounts_max),
        }
    }
}

// === impl Rules ===

impl Rules {
    /// The rules that hold where no file is given, as a file.
    pub const DEFAULT_TEXT: &str = include_str!("limits/default.toml");

    /// Parses a file: TOML of the form of [`Rules::DEFAULT_TEXT`]. Strict: what it does not know is an error.
    pub fn parse(text: &str) -> Result<Rules, RulesError> {
        // The built-in default stands under the file's own, so that a file need not name every limit.
        Rules::parse_over(text, HostLimits::default())
    }

    fn parse_over(text: &str, under: HostLimits) -> Result<Rules, RulesError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
            RulesError { line, message: error.message().replace('\n', ", ") }
        })?;
        let default = file.default.over(under);
        let rules = file
            .rules
            .into_iter()
            .map(|rule| Rule { limits: rule.change().over(default), patterns: rule.hosts.0 })
            .collect();
        Ok(Rules { default, rules })
    }

    /// A host's limits, and what gave them. `local_unlimited`: a local host that no rule fits has none.
    pub fn of(&self, host: &HostName, local_unlimited: bool) -> (HostLimits, Source) {
        for rule in &self.rules {
            if let Some(pattern) = rule.patterns.iter().find(|pattern| pattern.fits(host)) {
                return (rule.limits, Source::Rule(pattern.0.clone()));
            }
        }
        match local_unlimited && host.is_local() {
            true => (HostLimits::UNLIMITED, Source::Local),
            false => (self.default, Source::Default),
        }
    }

    /// How many rules there are beside the default.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is nothing but the default.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::parse_over(Rules::DEFAULT_TEXT, HostLimits::UNLIMITED).expect("a test parses the built-in file")
    }
}

// === impl Limits ===

impl Limits {
    /// These rules, without exceptions. `local_unlimited`: a local host that no rule fits has no limits; for
    /// development.
    pub fn new(rules: Rules, local_unlimited: bool) -> Limits {
        let in_force = InForce { rules: Arc::new(rules), local_unlimited, exceptions: HashMap::new() };
        Limits(Arc::new(Shared { in_force: ArcSwap::from_pointee(in_force), changes: watch::Sender::new(0) }))
    }

    /// What a host may do now.
    pub fn of(&self, host: &HostName) -> HostLimits {
        self.explain(host).0
    }

    /// What a host may do now, the rule it has from, and the exception made for it.
    pub fn explain(&self, host: &HostName) -> (HostLimits, Source, Option<Change>) {
        let in_force = self.0.in_force.load();
        let (limits, source) = in_force.rules.of(host, in_force.local_unlimited);
        match in_force.exceptions.get(host) {
            Some(change) => (change.over(limits), source, Some(*change)),
            None => (limits, source, None),
        }
    }

    /// Other rules from now on; exceptions stay.
    pub fn set_rules(&self, rules: Rules) {
        let rules = Arc::new(rules);
        self.change(|was| InForce { rules: Arc::clone(&rules), ..InForce::clone(was) });
    }

    /// Makes an exception for a host, or takes it back with an empty change.
    pub fn set_exception(&self, host: &HostName, change: Change) {
        self.change(|was| {
            let mut now = InForce::clone(was);
            match change.is_empty() {
                true => now.exceptions.remove(host),
                false => now.exceptions.insert(host.clone(), change),
            };
            now
        });
    }

    /// Tells of every change from now on: the value counts them.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn change(&self, change: impl FnMut(&Arc<InForce>) -> InForce) {
        self.0.in_force.rcu(change);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// The exception made for a host.
    pub fn exception(&self, host: &HostName) -> Option<Change> {
        self.0.in_force.load().exceptions.get(host).copied()
    }
}

impl Default for Limits {
    /// The built-in rules; local hosts have the default's limits like all others.
    fn default() -> Limits {
        Limits::new(Rules::default(), false)
    }
}

// === impl Limit ===

impl Limit {
    /// Parses a number or the word `unlimited`.
    pub fn parse(text: &str) -> Option<Limit> {
        match text {
            UNLIMITED => Some(Limit::Unlimited),
            _ => text.replace('_', "").parse().ok().map(Limit::AtMost),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Unlimited => f.write_str(UNLIMITED),
            Limit::AtMost(n) => write!(f, "{n}"),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::Unlimited => serializer.serialize_str(UNLIMITED),
            Limit::AtMost(n) => serializer.serialize_u64(*n),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or \"unlimited\"")
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Limit, E> {
                u64::try_from(n).map(Limit::AtMost).map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Limit, E> {
                Ok(Limit::AtMost(n))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                match text {
                    UNLIMITED => Ok(Limit::Unlimited),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

const UNLIMITED: &str = "unlimited";

/// A rate: zero would stop a host for ever, which is what a ban is for.
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Limit>, D::Error> {
    match Option::<Limit>::deserialize(deserializer)? {
        Some(Limit::AtMost(0)) => Err(de::Error::custom("a rate of 0 would never read the host again; ban it instead")),
        limit => Ok(limit),
    }
}

// === The file ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Change,
    #[serde(default, rename = "rule")]
    rules: Vec<RuleInFile>,
}

/// A rule as it is written. [`Change`]'s fields are repeated: serde can't both flatten and refuse unknown keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleInFile {
    hosts: Patterns,
    #[serde(default, deserialize_with = "rate")]
    events_per_second: Option<Limit>,
    #[serde(default, deserialize_with = "rate")]
    events_per_hour: Option<Limit>,
    #[serde(default, deserialize_with = "rate")]
    events_per_day: Option<Limit>,
    #[serde(default, deserialize_with = "rate")]
    bytes_per_second: Option<Limit>,
    accounts_max: Option<Limit>,
}

impl RuleInFile {
    fn change(&self) -> Change {
        Change {
            events_per_second: self.events_per_second,
            events_per_hour: self.events_per_hour,
            events_per_day: self.events_per_day,
            bytes_per_second: self.bytes_per_second,
            accounts_max: self.accounts_max,
        }
    }
}

struct Patterns(Vec<Pattern>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Patterns, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "hosts must be a pattern or a list of patterns")]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        let texts = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        if texts.is_empty() {
            return Err(de::Error::custom("a rule without hosts fits none"));
        }
        texts.iter().map(|text| Pattern::parse(text).map_err(de::Error::custom)).collect::<Result<_, _>>().map(Patterns)
    }
}

/// A pattern of hosts' names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-.*?:[]".contains(c);
        match text.is_empty() || !text.chars().all(allowed) {
            true => Err(format!("{text:?} can't fit a host's name; write it like *.example.com")),
            false => Ok(Pattern(text.to_ascii_lowercase())),
        }
    }

    fn fits(&self, host: &HostName) -> bool {
        let name = if self.0.contains(':') { host.as_str() } else { host.host() };
        glob(self.0.as_bytes(), name.as_bytes())
    }
}

/// `*` for any bytes, `?` for one. Goes back to the last `*` only, which is enough, so the time is bounded by the
/// product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    fn at_most(n: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(n)
    }

    #[test]
    fn patterns() {
        for (pattern, host, fits) in [
            ("*", "anything.example.com:8443", true),
            ("*.host.bsky.network", "morel.us-east.host.bsky.network", true),
            ("*.host.bsky.network", "host.bsky.network", false),
            ("*.host.bsky.network", "evilhost.bsky.network", false),
            ("*.host.bsky.network", "x.host.bsky.network.evil.com", false),
            ("PDS.example.com", "pds.example.com", true),
            ("pds?.example.com", "pds1.example.com", true),
            ("pds?.example.com", "pds.example.com", false),
            ("pds.example.com", "pds.example.com:8443", true),
            ("pds.example.com:*", "pds.example.com", false),
            ("pds.example.com:84*", "pds.example.com:8443", true),
            ("localhost:2583", "localhost:2584", false),
            ("[::1]:*", "[::1]:2583", true),
            ("127.0.0.*", "127.0.0.9:2583", true),
            ("*a*b*c", "a.b.a.b.c", true),
            ("*a*b*c", "a.b.a.b.cd", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(&name(host)), fits, "{pattern} on {host}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_what_it_leaves_out_is_the_defaults() {
        let rules = Rules::parse(
            r#"
            [default]
            events_per_second = 10
            events_per_day = "unlimited"

            [[rule]]
            hosts = ["big.example.com", "*.trusted.example"]
            accounts_max = "unlimited"
            events_per_second = 7_000

            [[rule]]
            hosts = "*.example.com"
            accounts_max = 0

            [[rule]]
            hosts = "big.*"
            accounts_max = 3
            "#,
        )
        .unwrap();
        let of = |host: &str| rules.of(&name(host), false);
        let (limits, source) = of("big.example.com");
        assert_eq!((limits.accounts_max, limits.events_per_second), (None, at_most(7_000)));
        assert_eq!((limits.events_per_day, source), (None, Source::Rule("big.example.com".into())));
        assert_eq!(of("a.trusted.example").0, limits);
        assert_eq!(of("small.example.com").0.accounts_max, Some(0));
        assert_eq!(of("big.other").0.accounts_max, Some(3));
        let (limits, source) = of("else.where");
        assert_eq!((limits.events_per_second, source), (at_most(10), Source::Default));
        assert_eq!(limits.events_per_hour, HostLimits::default().events_per_hour, "the built-in default is under it");
        assert_eq!(rules.len(), 3);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, said) in [
            ("[default]\nevents_per_secnd = 5\n", 2, "unknown field `events_per_secnd`"),
            ("[default]\n\nevents_per_second = 0\n", 3, "ban it instead"),
            ("[default]\nevents_per_second = -1\n", 2, "expected a whole number"),
            ("[default]\nevents_per_second = \"lots\"\n", 2, "expected a whole number or \"unlimited\""),
            ("[[rule]]\naccounts_max = 5\n", 1, "missing field `hosts`"),
            ("[[rule]]\nhosts = []\n", 2, "fits none"),
            ("\n[[rule]]\nhosts = \"a b\"\n", 3, "can't fit"),
            ("[[rule]]\nhosts = 5\n", 2, "a list of patterns"),
            ("[[rules]]\nhosts = \"*\"\n", 1, "unknown field `rules`"),
            ("[default\n", 1, ""),
            ("a = 1\n[default]\n", 1, "unknown field `a`"),
        ] {
            let error = Rules::parse(text).unwrap_err();
            assert!(error.message.contains(said), "{text:?}: {error}");
            assert_eq!(error.line, line, "{text:?}: {error}");
        }
    }

    #[test]
    fn the_defaults_fit_an_open_network() {
        let rules = Rules::default();
        let (small, source) = rules.of(&name("pds.example.com"), true);
        assert_eq!(source, Source::Default);
        assert_eq!((small.events_per_second, small.accounts_max), (at_most(50), Some(10_000)));
        assert!([small.events_per_hour, small.events_per_day, small.bytes_per_second].iter().all(Option::is_some));
        let (big, _) = rules.of(&name("morel.us-east.host.bsky.network"), true);
        assert!(big.accounts_max > Some(1_000_000) && big.events_per_second >= at_most(1_000));
        assert_eq!(rules.of(&name("localhost:2583"), true), (HostLimits::UNLIMITED, Source::Local));
        assert_eq!(rules.of(&name("localhost:2583"), false), (small, Source::Default));
        assert_eq!(Rules::parse("").unwrap().of(&name("x.example"), false).0, small);
    }

    #[test]
    fn exceptions_outlive_new_rules() {
        let limits = Limits::new(Rules::default(), false);
        let host = name("pds.example.com");
        let change = Change { accounts_max: Some(Limit::AtMost(7)), ..Change::default() };
        limits.clone().set_exception(&host, change);
        limits.set_rules(Rules::parse("[default]\nevents_per_second = 3\naccounts_max = 4\n").unwrap());
        let (now, source, exception) = limits.explain(&host);
        assert_eq!((now.accounts_max, now.events_per_second), (Some(7), at_most(3)));
        assert_eq!((source, exception), (Source::Default, Some(change)));
        assert_eq!(limits.of(&name("other.example.com")).accounts_max, Some(4));
        limits.set_exception(&host, Change::default());
        assert_eq!(limits.of(&host).accounts_max, Some(4));
        assert_eq!(limits.exception(&host), None);
    }

    #[test]
    fn changes_are_json_too() {
        let change = Change {
            events_per_second: Some(Limit::AtMost(5)),
            accounts_max: Some(Limit::Unlimited),
            ..Change::default()
        };
        let json = r#"{"events_per_second":5,"accounts_max":"unlimited"}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), json);
        assert_eq!(serde_json::from_str::<Change>(json).unwrap(), change);
        assert!(serde_json::from_str::<Change>(r#"{"events_per_hour":0}"#).is_err());
        assert!(serde_json::from_str::<Change>(r#"{"accounts":0}"#).is_err());
        let later = Change { events_per_second: Some(Limit::AtMost(9)), ..Change::default() };
        assert_eq!(change.then(later), Change { accounts_max: Some(Limit::Unlimited), ..later });
        assert_eq!(
            ["7", "1_000", "unlimited", "x"].map(Limit::parse),
            [Some(Limit::AtMost(7)), Some(Limit::AtMost(1_000)), Some(Limit::Unlimited), None]
        );
    }
}
