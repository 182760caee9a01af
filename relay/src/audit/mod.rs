//! `mainstem audit`: reads two relays' streams side by side for a while, and says what each lacks.
//!
//! [`fingerprint`] knows when an event of one stream is that of the other, [`presence`] when a stream was there,
//! [`ledger`] keeps the account, [`report`] and [`say`] tell it; all of that is pure. Here is the reading, and
//! [`homes`] asks which hosts the accounts are on of which something lacks.

pub mod fingerprint;
pub mod homes;
pub mod ledger;
pub mod presence;
pub mod report;
pub mod say;

use std::{
    cell::RefCell,
    convert::Infallible,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use bytesize::ByteSize;
use runtime::{
    backoff::Backoff,
    chain::Chain,
    clock::Clock,
    egress::{Egress, Policy},
    signals::Signals,
    span::Span,
};
use tokio::{
    sync::Notify,
    time::{Instant, interval, sleep, timeout},
};
use url::Url;

use self::{
    homes::Homes,
    ledger::{Findings, Full, Ledger, Side},
    report::{End, Facts, Report, Verdict},
};
use crate::{
    cli::AuditArgs,
    console::table::{clean, grouped},
    subscription::{Address, Heard, Lost, NotAnAddress, Refused, Subscription, Wish},
};

/// The time for both streams to be there.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// The time for finding out where accounts are.
const HOMES_MAX: Duration = Duration::from_secs(60);

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The least that `--memory` may be.
const MEMORY_MIN: u64 = 1 << 20;

/// The exit code where a stream could not be read, or nothing be judged.
const UNREAD: u8 = 3;

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the address of a stream.
    #[error(transparent)]
    Address(#[from] NotAnAddress),
    /// Not a time.
    #[error("{flag} {value:?} is not a time; write it like 10m, 90s or 1h")]
    Time {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// Not a size, or too small a one.
    #[error("--memory {0:?} is not a size of at least 1MiB; write it like 256MB")]
    Memory(String),
    /// `--plc-url` is no URL.
    #[error("--plc-url {0:?} is not a URL; write it like https://plc.directory")]
    PlcUrl(String),
    /// Signals can't be listened for.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// Standard output is gone.
    #[error("failed to print")]
    Print(#[source] io::Error),
}

/// What is to be done, in types that can't be wrong.
struct Config {
    ours: Address,
    theirs: Address,
    read_for: Duration,
    settle: Duration,
    memory_bytes: usize,
    plc_url: Url,
    lookups: usize,
}

impl Config {
    fn new(args: &AuditArgs) -> Result<Config, Error> {
        let time = |flag, value: &str| match humantime::parse_duration(value) {
            Ok(time) if !time.is_zero() => Ok(time),
            _ => Err(Error::Time { flag, value: value.to_owned() }),
        };
        let memory: Option<ByteSize> = args.memory.parse().ok();
        let memory = memory.map(|size| size.as_u64()).filter(|bytes| *bytes >= MEMORY_MIN);
        let plc_url = Url::parse(&args.plc_url).ok();
        Ok(Config {
            ours: Address::parse(&args.ours)?,
            theirs: Address::parse(&args.url)?,
            read_for: time("--for", &args.read_for)?,
            settle: time("--settle", &args.settle)?,
            memory_bytes: memory
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| Error::Memory(args.memory.clone()))?,
            plc_url: plc_url
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| Error::PlcUrl(args.plc_url.clone()))?,
            lookups: args.lookups.into(),
        })
    }

    fn address(&self, side: Side) -> &Address {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }
}

/// Audits, and says what it found.
pub async fn run(args: &AuditArgs) -> Result<ExitCode, Error> {
    let config = Config::new(args)?;
    let mut signals = Signals::new().map_err(Error::Signals)?;
    // The streams and the directory are the operator's own choice; hosts of did:web are not.
    let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
    let strangers = Egress::new(Policy::default());

    let audit = Audit {
        config: &config,
        ledger: RefCell::new(Ledger::new(config.settle, config.memory_bytes)),
        connected: Notify::new(),
        started: Instant::now(),
    };
    let began_micros = Clock::system().now_micros();
    let ended = match audit.read(&egress, &mut signals).await {
        Ok(ended) => ended,
        Err(unread) => {
            eprintln!("error: {}", clean(&unread.to_string()));
            return Ok(ExitCode::from(UNREAD));
        }
    };
    let end = audit.now();
    let findings = audit.ledger.into_inner().close(end);

    let mut homes = Homes::new(config.ours.methods(), config.plc_url.clone(), egress, strangers);
    let (asked, not_asked) = to_ask(&findings, config.lookups);
    if !asked.is_empty() {
        eprintln!("looking up the hosts of {} accounts", grouped(asked.len() as u64));
        tokio::select! {
            _late = timeout(HOMES_MAX, homes.ask(&asked)) => {}
            _ = signals.stop() => {}
        }
    }
    let facts = Facts { ours: &args.ours, theirs: &args.url, ended, began_micros, settle: config.settle, not_asked };
    let report = Report::new(&findings, facts, |did| homes.of(did).map(ToString::to_string));
    print(&report, args.json).map_err(Error::Print)?;
    Ok(match report.verdict {
        Verdict::Whole => ExitCode::SUCCESS,
        Verdict::Lacking => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(UNREAD),
    })
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let text = match json {
        true => serde_json::to_string_pretty(report)? + "\n",
        false => say::text(report),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Who does not want to read it has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// The accounts that something lacks of, those with most first, and how many are left out.
fn to_ask(findings: &Findings, max: usize) -> (Vec<String>, u64) {
    let lacks = [Side::Ours, Side::Theirs].map(|side| findings.lacks(side));
    let mut accounts: Vec<(u64, &String)> =
        lacks.into_iter().flatten().map(|(did, lack)| (lack.events.total(), did)).collect();
    // An account that both lack something of stands there twice, next to each other.
    accounts.sort_by_key(|(_, did)| *did);
    accounts.dedup_by(|next, kept| {
        let same = next.1 == kept.1;
        kept.0 += if same { next.0 } else { 0 };
        same
    });
    accounts.sort_by_key(|(events, _)| std::cmp::Reverse(*events));
    let left_out = accounts.len().saturating_sub(max) as u64;
    (accounts.into_iter().take(max).map(|(_, did)| did.clone()).collect(), left_out)
}

/// A stream that was never there.
#[derive(Debug, thiserror::Error)]
#[error("{authority} can't be read: {why}")]
struct Unread {
    authority: String,
    why: String,
}

/// Why a stream is not read further.
enum Stopped {
    Refused(Refused),
    Full,
}

/// Reads both streams.
struct Audit<'a> {
    config: &'a Config,
    ledger: RefCell<Ledger>,
    /// That a stream is there.
    connected: Notify,
    started: Instant,
}

impl Audit<'_> {
    /// Until the time is over, or something ends it before.
    async fn read(&self, egress: &Egress, signals: &mut Signals) -> Result<End, Unread> {
        let (side, stopped) = tokio::select! {
            stopped = self.follow(Side::Ours, egress) => (Side::Ours, stopped),
            stopped = self.follow(Side::Theirs, egress) => (Side::Theirs, stopped),
            ended = self.time() => return ended,
            _ = signals.stop() => return Ok(End::Interrupted),
            never = self.tell() => match never {},
        };
        match stopped {
            Stopped::Full => Ok(End::MemoryFull),
            Stopped::Refused(refused) => match self.ledger.borrow().begin() {
                Some(_) => Ok(End::Refused { stream: side.as_str(), why: refused.to_string() }),
                None => Err(self.unread(side, refused.to_string())),
            },
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads a stream, and connects again at its cursor when it breaks.
    async fn follow(&self, side: Side, egress: &Egress) -> Stopped {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        loop {
            let connected = self.now();
            let lost = match self.follow_once(side, egress).await {
                Ok(full) => return full,
                Err(lost) => lost,
            };
            if let Some(refused) = lost.refused() {
                return Stopped::Refused(refused);
            }
            if self.now() - connected > Duration::from_secs(60) {
                backoff.reset();
            }
            self.ledger.borrow_mut().lost(side, self.now(), Chain(&lost).to_string());
            sleep(backoff.next(&mut rand::rng())).await;
        }
    }

    async fn follow_once(&self, side: Side, egress: &Egress) -> Result<Stopped, Lost> {
        let cursor = self.ledger.borrow().stream(side).presence.cursor();
        let wish = Wish { cursor, ..Wish::default() };
        let mut subscription = Subscription::open(egress, self.config.address(side), wish).await?;
        self.ledger.borrow_mut().connected(side, self.now());
        self.connected.notify_one();
        loop {
            match subscription.next().await? {
                Heard::Message(frame) => {
                    if let Err(Full) = self.ledger.borrow_mut().message(side, self.now(), &frame) {
                        return Ok(Stopped::Full);
                    }
                }
                Heard::TooLarge { bytes } => self.ledger.borrow_mut().too_large(side, bytes),
                Heard::Drained => {}
            }
        }
    }

    /// Waits until the time is over.
    async fn time(&self) -> Result<End, Unread> {
        let both = async {
            loop {
                let begin = self.ledger.borrow().begin();
                match begin {
                    Some(begin) => return begin,
                    None => self.connected.notified().await,
                }
            }
        };
        let Ok(begin) = timeout(CONNECT_MAX, both).await else {
            let side = match self.ledger.borrow().stream(Side::Ours).presence.since() {
                Some(_) => Side::Theirs,
                None => Side::Ours,
            };
            let why = self.ledger.borrow().stream(side).lost_last.clone();
            return Err(self.unread(side, why.unwrap_or_else(|| "no answer".to_owned())));
        };
        let Config { read_for, settle, .. } = self.config;
        sleep((begin + *settle + *read_for + *settle).saturating_sub(self.now())).await;
        Ok(End::Time)
    }

    fn unread(&self, side: Side, why: String) -> Unread {
        Unread { authority: self.config.address(side).authority.clone(), why }
    }

    /// Says now and then how far it is.
    async fn tell(&self) -> Infallible {
        let mut ticks = interval(PROGRESS);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            eprintln!("{}", self.progress());
        }
    }

    fn progress(&self) -> String {
        let ledger = self.ledger.borrow();
        let of = |side| {
            let stream = ledger.stream(side);
            let away = if stream.presence.is_there() { "" } else { " (not connected)" };
            format!("{} {}{away}", side.as_str(), grouped(stream.events.total()))
        };
        let Config { read_for, settle, .. } = self.config;
        let left = ledger.begin().map(|begin| (begin + *settle * 2 + *read_for).saturating_sub(self.now()));
        let left =
            left.map_or_else(|| "waiting for both streams".to_owned(), |left| format!("{} left", Span(left.as_secs())));
        format!(
            "events: {}, {}; {} on one alone so far; {left}",
            of(Side::Ours),
            of(Side::Theirs),
            grouped(ledger.waiting())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{ledger::Counts, *};

    #[test]
    fn who_lacks_most_is_asked_for_first_and_nobody_twice() {
        use atproto::event::{Event, IdentityEvent};

        let settle = Duration::from_secs(1);
        let mut ledger = Ledger::new(settle, 1 << 20);
        ledger.connected(Side::Ours, Duration::ZERO);
        ledger.connected(Side::Theirs, Duration::ZERO);
        let came = [
            (Side::Ours, "did:plc:a"),
            (Side::Ours, "did:plc:b"),
            (Side::Ours, "did:plc:c"),
            (Side::Theirs, "did:plc:b"),
            (Side::Theirs, "did:plc:c"),
            (Side::Ours, "did:plc:c"),
        ];
        for (seq, (side, did)) in (1..).zip(came) {
            let time = seq.to_string();
            let frame = Event::Identity(IdentityEvent { seq, did, time: &time, handle: None }).encode();
            ledger.message(side, Duration::from_secs(10), &frame).unwrap();
        }
        let findings = ledger.close(Duration::from_secs(20));
        assert_eq!(findings.lacks(Side::Theirs)["did:plc:c"].events, Counts { identity: 2, ..Counts::default() });
        let (asked, left_out) = to_ask(&findings, 2);
        assert_eq!((asked, left_out), (vec!["did:plc:c".to_owned(), "did:plc:b".to_owned()], 1));
        assert_eq!(to_ask(&findings, 10).0.len(), 3);
    }
}
