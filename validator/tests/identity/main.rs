//! Identities over real sockets: a directory and `did:web` hosts in every mood.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod site;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use atproto::syntax::{Did, HostName};
use futures_util::future::join_all;
use prometheus::Registry;
use runtime::{
    clock::Clock,
    egress::{Egress, Policy},
};
use storage::{
    faults::{self, Call, Faults},
    identities::Identities,
    memory::{self, MemoryIdentities},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;
use validator::identity::{self, Absence, Asker, Config, Identity, Resolver, Want};

use crate::site::{Reply, Site};

const KEYS: [&str; 2] =
    ["zQ3shMaemBTLdyhVoom3WAxBPDWyX2LdAZuH8tYUposBY8Rz6", "zQ3shRPQQKGdTR5ZbQ7hmT8ixPUL945oRbfPRTkeJV72BgWdp"];

/// Long enough for anything on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to see that something does not happen.
const SHORT: Duration = Duration::from_millis(300);

fn did(n: usize) -> Did {
    let letter = char::from(b'a' + u8::try_from(n).unwrap());
    Did::parse(&format!("did:plc:{}", letter.to_string().repeat(24))).unwrap()
}

fn path(n: usize) -> String {
    format!("/{}", did(n))
}

/// An account's document with one of two keys.
fn document(did: &str, key: usize) -> String {
    format!(
        r##"{{"id":"{did}","verificationMethod":[{{"id":"{did}#atproto","type":"Multikey","controller":"{did}",
        "publicKeyMultibase":"{}"}}],"service":[{{"id":"#atproto_pds","type":"AtprotoPersonalDataServer",
        "serviceEndpoint":"https://pds.example.com"}}]}}"##,
        KEYS[key]
    )
}

fn found(path: &str, key: usize) -> Reply {
    Reply::Now(200, document(path.trim_start_matches('/'), key))
}

/// Which of the two keys an identity has.
fn key_of(identity: &Identity) -> usize {
    let key = identity.known.as_ref().unwrap().signing_key.as_ref().unwrap().to_did_key();
    KEYS.iter().position(|multikey| key.ends_with(multikey)).unwrap()
}

/// As many accounts as wanted.
fn many(n: usize) -> Did {
    let digit = |place: u32| char::from(b'a' + u8::try_from(n / 16_usize.pow(place) % 16).unwrap());
    let number: String = (0..8).map(digit).collect();
    Did::parse(&format!("did:plc:{}{number}", "z".repeat(16))).unwrap()
}

fn host(name: &str) -> Asker {
    Asker::Host(HostName::parse(name).unwrap())
}

fn asker() -> Asker {
    Asker::Host(HostName::parse("pds.example.com").unwrap())
}

/// A resolver with its loop, in a hurry.
struct Bureau {
    resolver: Resolver,
    clock: Clock,
    task: JoinSet<()>,
    stop: CancellationToken,
}

impl Bureau {
    fn open(plc_url: &str, edit: impl FnOnce(&mut Config)) -> Bureau {
        Bureau::open_with(plc_url, Clock::system(), Arc::new(MemoryIdentities::default()), edit)
    }

    fn open_with(plc_url: &str, clock: Clock, kept: Arc<dyn Identities>, edit: impl FnOnce(&mut Config)) -> Bureau {
        let mut config = Config::new(Url::parse(plc_url).unwrap());
        config.replica_lag = Duration::from_millis(50);
        config.timeout = Duration::from_secs(2);
        config.retry_max = Duration::from_millis(50);
        edit(&mut config);
        let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
        let (resolver, directory) = identity::build(config, egress, clock.clone(), kept, &Registry::new()).unwrap();
        let mut task = JoinSet::new();
        let stop = CancellationToken::new();
        task.spawn(directory.run(stop.clone()));
        Bureau { resolver, clock, task, stop }
    }

    /// Ends in good order.
    async fn close(mut self) {
        self.stop.cancel();
        timeout(LONG, self.task.join_next()).await.expect("the loop does not end").unwrap().unwrap();
    }

    async fn resolve(&self, did: &Did, want: Want) -> Identity {
        timeout(LONG, self.resolver.resolve(did, want, asker())).await.expect("no answer").unwrap()
    }

    async fn any(&self, n: usize) -> Identity {
        self.resolve(&did(n), Want::Any).await
    }

    fn now(&self) -> u64 {
        self.clock.now_micros()
    }
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < LONG, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// An address where nobody listens, for now.
fn closed_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_document_is_asked_for_once_and_kept() {
    let site = Site::start(|path, _| Reply::Late(SHORT, document(&path[1..], 0)));
    let bureau = Bureau::open(&site.url(), |_| {});
    let all = join_all((0..50).map(|_| bureau.any(0))).await;
    assert!(all.iter().all(|identity| key_of(identity) == 0));
    assert_eq!(bureau.any(0).await, all[0]);
    assert_eq!(bureau.resolver.cached(&did(0)), Some(all[0].clone()));
    assert_eq!(site.requests(&path(0)), 1);
}

#[tokio::test]
async fn a_404_is_believed_when_the_replicas_had_their_time_and_then_for_a_while() {
    let site = Site::start(|_, _| Reply::Now(404, String::new()));
    let bureau = Bureau::open(&site.url(), |_| {});
    let asked = bureau.now();
    let identity = bureau.any(0).await;
    assert_eq!(identity.known, Err(Absence::NotFound));
    assert!(identity.fetched_at_micros >= asked + 50_000);
    assert_eq!(bureau.any(0).await, identity);
    assert_eq!(site.requests(&path(0)), 2);
}

#[tokio::test]
async fn an_account_that_the_replica_did_not_know_yet_is_found() {
    let site = Site::start(|path, before| match before {
        0 => Reply::Now(404, String::new()),
        _ => found(path, 0),
    });
    let bureau = Bureau::open(&site.url(), |_| {});
    assert_eq!(key_of(&bureau.any(0).await), 0);
}

#[tokio::test]
async fn definite_answers_are_told_apart() {
    let site = Site::start(|asked, _| {
        if asked == path(0) {
            Reply::Now(410, String::new())
        } else if asked == path(1) {
            Reply::Now(200, document(did(0).as_str(), 0))
        } else {
            Reply::Now(200, format!(r#"{{"id":"{}"}}"#, &asked[1..]))
        }
    });
    let bureau = Bureau::open(&site.url(), |_| {});
    assert_eq!(bureau.any(0).await.known, Err(Absence::Tombstoned));
    assert_eq!(bureau.any(1).await.known, Err(Absence::BadDocument));
    let empty = bureau.any(2).await.known.unwrap();
    assert_eq!((&empty.signing_key, &empty.pds), (&None, &None));
    assert!((0..3).all(|n| site.requests(&path(n)) == 1));
    let other = Did::parse("did:key:zQ3sh").unwrap();
    assert_eq!(bureau.resolve(&other, Want::Any).await.known, Err(Absence::Unsupported));
}

#[tokio::test]
async fn an_absence_is_asked_for_again_after_its_time() {
    let site = Site::start(|path, before| match before {
        0 => Reply::Now(410, String::new()),
        _ => found(path, 0),
    });
    let clock = Clock::manual(1_000_000_000);
    let bureau = Bureau::open_with(&site.url(), clock.clone(), Arc::new(MemoryIdentities::default()), |_| {});
    assert_eq!(bureau.any(0).await.known, Err(Absence::Tombstoned));
    clock.advance(Duration::from_secs(119));
    assert_eq!(bureau.any(0).await.known, Err(Absence::Tombstoned));
    clock.advance(Duration::from_secs(1));
    assert_eq!(key_of(&bureau.any(0).await), 0);
}

#[tokio::test]
async fn no_answer_is_waited_out() {
    for mood in ["refused", "500", "429", "garbage", "hang"] {
        let addr = closed_port();
        let bureau = Bureau::open(&format!("http://{addr}"), |config| {
            if mood == "hang" {
                config.timeout = Duration::from_millis(100);
            }
        });
        let down = match mood {
            "refused" => None,
            mood => Some(Site::start_at(addr, move |_, _| match mood {
                "500" => Reply::Now(500, String::new()),
                "429" => Reply::RetryAfter(429, 0),
                "garbage" => Reply::Now(200, "<html>".into()),
                _ => Reply::Hang,
            })),
        };
        let resolver = bureau.resolver.clone();
        let waiting = tokio::time::timeout(SHORT, resolver.resolve(&did(0), Want::Any, asker())).await;
        assert!(waiting.is_err(), "{mood} is no answer: {waiting:?}");
        if let Some(down) = down {
            assert!(down.requests(&path(0)) > 0);
            down.stop().await;
        }
        let _up = Site::start_at(addr, |path, _| found(path, 0));
        assert_eq!(key_of(&bureau.any(0).await), 0, "{mood}");
    }
}

#[tokio::test]
async fn a_429_keeps_everybody_away_for_as_long_as_it_says() {
    let site = Site::start(|path, before| match before {
        0 => Reply::RetryAfter(429, 1),
        _ => found(path, 0),
    });
    let bureau = Bureau::open(&site.url(), |config| config.concurrent_max = NonZeroUsize::MIN);
    let begun = Instant::now();
    let (first, second) = tokio::join!(bureau.any(0), async {
        eventually("the first request", || site.requests(&path(0)) == 1).await;
        sleep(Duration::from_millis(50)).await;
        bureau.any(1).await
    });
    assert_eq!((key_of(&first), key_of(&second)), (0, 0));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(site.requests(&path(0)), 2);
}

#[tokio::test]
async fn a_document_past_its_time_serves_while_the_directory_is_down() {
    let site = Site::start(|path, _| found(path, 0));
    let addr = site.addr;
    let clock = Clock::manual(1_000_000_000);
    let bureau = Bureau::open_with(&site.url(), clock.clone(), Arc::new(MemoryIdentities::default()), |_| {});
    let first = bureau.any(0).await;
    clock.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(bureau.resolver.cached(&did(0)), None, "past its time");
    site.stop().await;
    assert_eq!(bureau.any(0).await, first);
    assert_eq!(bureau.resolver.cached(&did(0)), Some(first.clone()), "good for a while");
    let announced = bureau.resolve(&did(0), Want::Announced { at_micros: clock.now_micros() }).await;
    assert_eq!(announced, first);

    clock.advance(Duration::from_secs(30));
    let _site = Site::start_at(addr, |path, _| found(path, 1));
    assert_eq!(key_of(&bureau.any(0).await), 1, "asked again");
}

#[tokio::test]
async fn who_needs_a_newer_one_waits_for_the_directory() {
    let site = Site::start(|path, _| found(path, 0));
    let addr = site.addr;
    let bureau = Bureau::open(&site.url(), |_| {});
    bureau.any(0).await;
    site.stop().await;
    let since = bureau.now();
    let resolver = bureau.resolver.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { resolver.resolve(&did(0), Want::Since { at_micros: since }, asker()).await });
    assert!(timeout(SHORT, waiting.join_next()).await.is_err());
    let _site = Site::start_at(addr, |path, _| found(path, 1));
    let identity = timeout(LONG, waiting.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(key_of(&identity), 1);
    assert!(identity.fetched_at_micros >= since);
}

#[tokio::test]
async fn who_asks_while_a_request_is_under_way_may_need_another() {
    let site = Site::start(|path, before| Reply::Late(SHORT, document(&path[1..], before)));
    let bureau = Bureau::open(&site.url(), |_| {});
    let (first, second) = tokio::join!(bureau.any(0), async {
        eventually("the first request", || site.requests(&path(0)) == 1).await;
        bureau.resolve(&did(0), Want::Since { at_micros: bureau.now() }).await
    });
    assert_eq!((key_of(&first), key_of(&second)), (0, 1));
}

#[tokio::test]
async fn an_announced_change_that_does_not_show_is_looked_for_again() {
    let site = Site::start(|path, before| found(path, usize::from(before >= 3)));
    let bureau = Bureau::open(&site.url(), |_| {});
    bureau.any(0).await;
    let announced = bureau.resolve(&did(0), Want::Announced { at_micros: bureau.now() }).await;
    assert_eq!(key_of(&announced), 0);
    eventually("the new key shows", || bureau.resolver.cached(&did(0)).is_some_and(|now| key_of(&now) == 1)).await;
    assert_eq!(site.requests(&path(0)), 4);

    // One that never shows is looked for twice.
    bureau.resolve(&did(0), Want::Announced { at_micros: bureau.now() }).await;
    eventually("two more looks", || site.requests(&path(0)) == 7).await;
    sleep(SHORT).await;
    assert_eq!(site.requests(&path(0)), 7);
}

#[tokio::test]
async fn requests_under_way_are_bounded() {
    let site = Site::start(|path, _| Reply::Late(Duration::from_millis(20), document(&path[1..], 0)));
    let bureau = Bureau::open(&site.url(), |config| {
        config.concurrent_max = NonZeroUsize::new(3).unwrap();
        config.lookups_max = NonZeroUsize::new(5).unwrap();
    });
    join_all((0..20).map(|n| bureau.any(n))).await;
    assert!(site.open_max() <= 3, "{}", site.open_max());
    assert!((0..20).all(|n| site.requests(&path(n)) == 1));
}

#[tokio::test]
async fn one_account_that_the_directory_is_silent_about_is_given_up() {
    let site = Site::start(|asked, _| if asked == path(0) { Reply::Now(500, String::new()) } else { found(asked, 0) });
    let bureau = Bureau::open(&site.url(), |config| config.patience = Duration::from_millis(200));
    let (silent, ()) = tokio::join!(bureau.any(0), async {
        for n in 1..20 {
            bureau.any(n).await;
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(silent.known, Err(Absence::Unanswered));
}

#[tokio::test]
async fn a_web_host_answers_for_itself() {
    let hangs = Site::start(|_, _| Reply::Hang);
    let lies = Site::start(|path, _| match path {
        "/.well-known/did.json" => Reply::Now(200, document("did:web:ok", 0)),
        _ => Reply::Now(404, String::new()),
    });
    let web_did = |site: &Site| Did::parse(&format!("did:web:localhost%3A{}", site.addr.port())).unwrap();
    let plc = format!("http://{}", closed_port());
    let bureau = Bureau::open(&plc, |config| {
        config.patience = Duration::from_millis(200);
        config.timeout = Duration::from_millis(100);
    });
    let (hangs, lies) = (web_did(&hangs), web_did(&lies));
    let (hung, wrong) = tokio::join!(bureau.resolve(&hangs, Want::Any), bureau.resolve(&lies, Want::Any));
    assert_eq!(hung.known, Err(Absence::Unanswered), "its silence is its own");
    assert_eq!(wrong.known, Err(Absence::BadDocument));

    let addr = closed_port();
    let own = Did::parse(&format!("did:web:localhost%3A{}", addr.port())).unwrap();
    let json = document(own.as_str(), 0);
    let _site = Site::start_at(addr, move |_, _| Reply::Now(200, json.clone()));
    assert_eq!(key_of(&bureau.resolve(&own, Want::Any).await), 0);
}

#[tokio::test]
async fn what_is_kept_outlives_the_process_and_its_time_goes_on() {
    let site = Site::start(|path, _| found(path, 0));
    let clock = Clock::manual(1_000_000_000);
    let shelf = Arc::new(MemoryIdentities::default());
    let open = || Bureau::open_with(&site.url(), clock.clone(), shelf.clone(), |_| {});
    let run = async |n: usize| {
        let bureau = open();
        let identity = bureau.any(n).await;
        bureau.close().await;
        identity
    };
    let first = run(0).await;
    clock.advance(Duration::from_secs(60 * 60));
    assert_eq!(run(0).await, first);
    assert_eq!(site.requests(&path(0)), 1);
    clock.advance(Duration::from_secs(23 * 60 * 60));
    assert!(run(0).await.fetched_at_micros > first.fetched_at_micros);
    assert_eq!(site.requests(&path(0)), 2);
    shelf.put(vec![(did(0), vec![255])]).await.unwrap();
    assert_eq!(key_of(&run(0).await), 0, "damage is as if nothing had been kept");
    assert_eq!(site.requests(&path(0)), 3);
}

#[tokio::test]
async fn what_was_kept_serves_past_its_time_while_the_directory_is_down_also_after_a_restart() {
    let site = Site::start(|asked, _| if asked == path(1) { Reply::Now(410, String::new()) } else { found(asked, 0) });
    let (addr, url) = (site.addr, site.url());
    let clock = Clock::manual(1_000_000_000);
    let shelf = Arc::new(MemoryIdentities::default());
    let bureau = Bureau::open_with(&url, clock.clone(), shelf.clone(), |_| {});
    let (first, gone) = (bureau.any(0).await, bureau.any(1).await);
    bureau.close().await;
    site.stop().await;

    clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
    let bureau = Bureau::open_with(&url, clock.clone(), shelf.clone(), |_| {});
    assert_eq!(bureau.any(0).await, first);
    assert_eq!(bureau.any(1).await, gone);
    let resolver = bureau.resolver.clone();
    assert!(timeout(SHORT, resolver.resolve(&did(2), Want::Any, asker())).await.is_err(), "who was never known waits");
    clock.advance(Duration::from_secs(30));
    let _site = Site::start_at(addr, |path, _| found(path, 1));
    assert_eq!(key_of(&bureau.any(2).await), 1);
    assert_eq!(key_of(&bureau.any(0).await), 1);
}

#[tokio::test]
async fn a_store_that_fails_costs_a_request_and_nothing_else() {
    let site = Site::start(|path, _| found(path, 0));
    let (stores, faults) = Faults::wrap(memory::open());
    faults.plan(Call::IdentityGet, faults::Fault::Determinate).always();
    faults.plan(Call::IdentityPut, faults::Fault::LostCall).always();
    for requests in 1..=2 {
        let bureau = Bureau::open_with(&site.url(), Clock::system(), stores.identities.clone(), |_| {});
        assert_eq!(key_of(&bureau.any(0).await), 0);
        bureau.close().await;
        assert_eq!(site.requests(&path(0)), requests);
    }
    faults.assert_all_fired();
}

#[tokio::test]
async fn an_operator_has_an_identity_fetched_anew() {
    let site = Site::start(|path, before| found(path, usize::from(before > 0)));
    let bureau = Bureau::open(&site.url(), |_| {});
    assert_eq!(key_of(&bureau.any(0).await), 0);
    assert_eq!(key_of(&bureau.resolver.refresh(&did(0)).await.unwrap()), 1);
    assert_eq!(key_of(&bureau.any(0).await), 1, "it counts for everybody");
    let progress = bureau.resolver.progress();
    assert_eq!((progress.known, progress.waiting, progress.directory_is_silent), (1, 0, false));
}

#[tokio::test]
async fn a_host_with_endless_unknown_accounts_waits_for_itself() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let site = Site::start(move |path, _| {
        seen.lock().unwrap().push(path[1..].to_owned());
        Reply::Late(Duration::from_millis(2), document(&path[1..], 0))
    });
    let bureau = Bureau::open(&site.url(), |config| {
        config.concurrent_max = NonZeroUsize::new(2).unwrap();
        config.per_second = NonZeroU32::new(500).unwrap();
    });
    let ask = |n: usize, host: Asker| {
        let resolver = bureau.resolver.clone();
        async move { resolver.resolve(&many(n), Want::Any, host).await.unwrap() }
    };
    let mut flood = JoinSet::new();
    for n in 0..1_000 {
        flood.spawn(ask(n, host("flood.example.com")));
    }
    eventually("the flood is on", || order.lock().unwrap().len() > 20).await;
    let before = order.lock().unwrap().len();
    let few = join_all((2_000..2_005).map(|n| ask(n, host("small.example.com")))).await;
    assert_eq!(few.len(), 5);
    let between = order.lock().unwrap().len() - before;
    assert!(between < 60, "{between} requests were made until five of another host had their turn");
    // An account that the flood has asked for before is not the flood's to delay.
    let asked = order.lock().unwrap().len();
    ask(999, host("small.example.com")).await;
    let between = order.lock().unwrap().len() - asked;
    assert!(between < 60, "{between} requests were made until an account of the flood had another host's turn");
    let progress = bureau.resolver.progress();
    assert!(progress.waiting > 100 && progress.per_second_max == 500, "{progress:?}");
    while flood.join_next().await.is_some() {}
    assert_eq!(order.lock().unwrap().len(), 1_005, "each account once");
}

#[tokio::test]
async fn an_old_identity_serves_at_once_while_the_directory_is_silent_and_soon_while_it_is_slow() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let site = Site::start(move |path, _| match is_slow.load(Ordering::SeqCst) {
        true => Reply::Hang,
        false => found(path, 0),
    });
    let clock = Clock::manual(1_000_000_000);
    let bureau = Bureau::open_with(&site.url(), clock.clone(), Arc::new(MemoryIdentities::default()), |config| {
        config.timeout = Duration::from_millis(500);
        config.stale_after = Duration::from_millis(50);
        config.concurrent_max = NonZeroUsize::new(4).unwrap();
    });
    for n in 0..200 {
        bureau.resolve(&many(n), Want::Any).await;
    }
    clock.advance(Duration::from_secs(24 * 60 * 60));
    slow.store(true, Ordering::SeqCst);
    // Were each of them to wait for a time-out of its own, this would take 25 seconds.
    let begun = Instant::now();
    for n in 0..200 {
        assert_eq!(key_of(&bureau.resolve(&many(n), Want::Any).await), 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    eventually("the silence is known", || bureau.resolver.progress().directory_is_silent).await;
    slow.store(false, Ordering::SeqCst);
    eventually("it is over", || !bureau.resolver.progress().directory_is_silent).await;
    eventually("nobody waits", || bureau.resolver.progress().waiting == 0).await;
}

#[tokio::test]
async fn a_silent_directory_is_only_probed() {
    let site = Site::start(|_, _| Reply::Now(503, String::new()));
    let addr = site.addr;
    let bureau = Bureau::open(&site.url(), |config| config.retry_max = Duration::from_millis(200));
    let mut waiting = JoinSet::new();
    for n in 0..500 {
        let resolver = bureau.resolver.clone();
        waiting.spawn(async move { key_of(&resolver.resolve(&many(n), Want::Any, asker()).await.unwrap()) });
    }
    eventually("the silence is known", || bureau.resolver.progress().directory_is_silent).await;
    let requests = |site: &Site| (0..500).map(|n| site.requests(&format!("/{}", many(n)))).sum::<usize>();
    let before = requests(&site);
    sleep(Duration::from_secs(1)).await;
    let probes = requests(&site) - before;
    assert!(probes <= 64 + 10, "{probes} requests in a second to a directory that is down");
    site.stop().await;
    let _up = Site::start_at(addr, |path, _| found(path, 1));
    while let Some(key) = timeout(LONG, waiting.join_next()).await.unwrap() {
        assert_eq!(key.unwrap(), 1);
    }
}

/// What becomes of an account whose place answers so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Refused by a definite answer.
    Refused(Absence),
    /// Its document is there, and lacks the key.
    NoKey,
    /// Its document is there, and lacks the host.
    NoPds,
    /// It waits, and is known when the place is well again.
    Waits,
}

/// Its name, the reply to a request for a DID (and where a redirect leads to), and the fates by the method.
type Fault = (&'static str, fn(&str, &str) -> Reply, Fate, Fate);

/// The faults of a place that serves documents, and what becomes of an account of the directory and of a `did:web` one.
fn faults() -> Vec<Fault> {
    use Absence::*;
    use Fate::*;
    vec![
        ("404", |_, _| Reply::Now(404, String::new()), Refused(NotFound), Refused(NotFound)),
        ("400", |_, _| Reply::Now(400, String::new()), Refused(NotFound), Refused(NotFound)),
        ("tombstone", |_, _| Reply::Now(410, String::new()), Refused(Tombstoned), Refused(Tombstoned)),
        ("another's", |_, _| Reply::Now(200, document(did_text(), 0)), Refused(BadDocument), Refused(BadDocument)),
        ("nothing in it", |did, _| Reply::Now(200, format!(r#"{{"id":"{did}"}}"#)), NoKey, NoKey),
        ("bad key", |did, _| Reply::Now(200, document(did, 0).replace(KEYS[0], "zQ3shnokey")), NoKey, NoKey),
        ("no pds", |did, _| Reply::Now(200, document(did, 0).replace("#atproto_pds", "#other")), NoPds, NoPds),
        ("bad pds", |did, _| Reply::Now(200, document(did, 0).replace("https:", "gopher:")), NoPds, NoPds),
        ("not json", |_, _| Reply::Now(200, "<html>".into()), Waits, Refused(BadDocument)),
        ("too long", |_, _| Reply::Endless(&[b' '; 4096], Duration::ZERO), Refused(BadDocument), Refused(BadDocument)),
        ("drips", |_, _| Reply::Endless(b" ", Duration::from_millis(50)), Waits, Refused(Unanswered)),
        ("breaks off", |_, _| Reply::BreaksOff, Waits, Refused(Unanswered)),
        ("hangs", |_, _| Reply::Hang, Waits, Refused(Unanswered)),
        ("429", |_, _| Reply::RetryAfter(429, 0), Waits, Refused(Unanswered)),
        ("500", |_, _| Reply::Now(500, String::new()), Waits, Refused(Unanswered)),
        ("503", |_, _| Reply::RetryAfter(503, 0), Waits, Refused(Unanswered)),
        ("403", |_, _| Reply::Now(403, String::new()), Waits, Refused(Unanswered)),
        ("redirect", |_, to| Reply::Redirect(to.to_owned()), Waits, Refused(Unanswered)),
    ]
}

/// An account that is nobody's in these tests.
fn did_text() -> &'static str {
    "did:plc:yyyyyyyyyyyyyyyyyyyyyyyy"
}

#[tokio::test]
async fn every_fault_of_the_directory_and_of_web_hosts_has_its_fate() {
    // Where redirects lead to: it would serve a document, and nobody asks it.
    let target = Site::start(|_, _| Reply::Now(200, document(did(0).as_str(), 1)));
    let edit = |config: &mut Config| {
        config.timeout = Duration::from_millis(300);
        config.patience = Duration::from_millis(900);
        config.replica_lag = Duration::from_millis(10);
    };
    let fate_of = |identity: &Identity| match &identity.known {
        Err(absence) => Fate::Refused(*absence),
        Ok(document) if document.signing_key.is_none() => Fate::NoKey,
        Ok(document) if document.pds.is_none() => Fate::NoPds,
        Ok(_) => Fate::Waits,
    };
    let run = |(what, reply, of_plc, of_web): Fault| {
        let to = format!("{}/elsewhere", target.url());
        async move {
            // The directory: well again after some time.
            let well = Arc::new(AtomicBool::new(false));
            let (is_well, plc_to) = (well.clone(), to.clone());
            let site = Site::start(move |path, _| match is_well.load(Ordering::SeqCst) {
                true => found(path, 0),
                false => reply(&path[1..], &plc_to),
            });
            let bureau = Bureau::open(&site.url(), edit);
            let resolver = bureau.resolver.clone();
            let account = did(0);
            let mut asking = Box::pin(resolver.resolve(&account, Want::Any, asker()));
            if of_plc == Fate::Waits {
                assert!(timeout(SHORT, &mut asking).await.is_err(), "{what}: it waits");
                well.store(true, Ordering::SeqCst);
            }
            let identity = timeout(LONG, asking).await.expect(what).unwrap();
            assert_eq!(fate_of(&identity), of_plc, "{what}, plc");

            // A host of one account.
            let addr = closed_port();
            let web = Did::parse(&format!("did:web:localhost%3A{}", addr.port())).unwrap();
            let own = web.to_string();
            let site = Site::start_at(addr, move |_, _| reply(&own, &to));
            let identity = bureau.resolve(&web, Want::Any).await;
            assert_eq!(fate_of(&identity), of_web, "{what}, web");
            site.stop().await;
        }
    };
    join_all(faults().into_iter().map(run)).await;
    assert_eq!(target.requests("/elsewhere"), 0, "redirects are not followed");
}

#[tokio::test]
async fn web_names_of_private_places_are_no_identities() {
    let asked = Arc::new(Mutex::new(0));
    let counter = asked.clone();
    let site = Site::start(move |_, _| {
        *counter.lock().unwrap() += 1;
        Reply::Now(200, String::new())
    });
    let config = Config::new(Url::parse(&site.url()).unwrap());
    let kept = Arc::new(MemoryIdentities::default());
    let egress = Egress::new(Policy::default());
    let (resolver, directory) = identity::build(config, egress, Clock::system(), kept, &Registry::new()).unwrap();
    let mut task = JoinSet::new();
    task.spawn(directory.run(CancellationToken::new()));
    let port = site.addr.port();
    for name in [
        "localhost",
        "pds.localhost",
        &format!("localhost%3A{port}"),
        "127.0.0.1",
        &format!("127.0.0.1%3A{port}"),
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "0.0.0.0",
        "example.com:path",
        "example.com%3A8443",
    ] {
        let Ok(did) = Did::parse(&format!("did:web:{name}")) else { continue };
        let identity = timeout(LONG, resolver.resolve(&did, Want::Any, asker())).await.expect(name).unwrap();
        assert_eq!(identity.known, Err(Absence::Unsupported), "{name}");
    }
    assert_eq!(*asked.lock().unwrap(), 0);
}
