//! Traffic on disk: made, counted, damaged, and played to a reader.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use atproto::{
    car::Car,
    commit::Commit,
    did_doc::DidDocument,
    event::{self, Event, Routed},
    mst,
};
use loadtest::{
    relay_process::get,
    subscriber::{Config, Keep, Subscriber},
    traffic::{
        self, Folder, Names, Pace, Player,
        folder::{self, Manifest},
        generate::{self, generate},
        profile::Profile,
        stamp,
    },
};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn small() -> Profile {
    Profile::find(Path::new("small")).unwrap()
}

fn made(profile: &Profile) -> (TempDir, Manifest) {
    let folder = TempDir::new().unwrap();
    let manifest = generate(profile, folder.path(), |_| {}).unwrap();
    (folder, manifest)
}

#[test]
fn what_is_made_has_the_shares_that_the_profile_asks_for() {
    let mut profile = Profile::find(Path::new("standard")).unwrap();
    // Fewer repos and records, for time; and none so full that it deletes where it would create.
    (profile.repos, profile.records, profile.records_max, profile.commits) = (300, 20, 1_000_000, 6_000);
    let (_folder, Manifest { warm_up, measured, .. }) = made(&profile);
    assert_eq!((warm_up.events, warm_up.commits, warm_up.signatures), (1_200, 300, 600));
    assert_eq!((measured.events, measured.commits, measured.signatures), (6_000, 6_000, 6_000));
    let share = |part: u64| part as f64 / measured.commits as f64;
    // Six standard deviations of 6,000 draws, and for the key what one repo may be off.
    for (name, part, asked, off) in [
        ("creates", measured.creates, 0.80, 0.031),
        ("updates", measured.updates, 0.03, 0.014),
        ("deletes", measured.deletes, 0.07, 0.020),
        ("multi", measured.multi, 0.10, 0.024),
        ("P-256", measured.commits_p256, 0.30, 0.040),
    ] {
        assert!((share(part) - asked).abs() < off, "{name}: {} instead of {asked}", share(part));
    }
    let several = (measured.ops - measured.creates - measured.updates - measured.deletes) as f64;
    let mean = several / measured.multi as f64;
    assert!((3.3..3.7).contains(&mean), "2 to 5 ops are 3.5 in the mean, not {mean}");
}

#[test]
fn a_full_repo_grows_no_fuller() {
    let mut profile = small();
    (profile.repos, profile.records, profile.records_max, profile.commits) = (1, 40, 60, 800);
    profile.mix.multi = 0;
    let (_folder, Manifest { measured, .. }) = made(&profile);
    let grown = measured.creates as i64 - measured.deletes as i64;
    assert!((10..=20).contains(&grown), "{grown} records more than there were");
}

#[test]
fn the_same_profile_makes_the_same_bytes() {
    let (first, _) = made(&small());
    let (second, _) = made(&small());
    let (other, _) = made(&Profile { seed: 2, ..small() });
    for name in ["manifest.json", "accounts.jsonl", "warm-up.frames", "measured.frames"] {
        let read = |folder: &TempDir| fs::read(folder.path().join(name)).unwrap();
        assert!(read(&first) == read(&second), "{name}");
        assert!(read(&first) != read(&other), "{name}");
    }
}

#[test]
fn what_is_made_is_counted_as_it_is_read_and_verifies() {
    let (path, manifest) = made(&small());
    let folder = Folder::open(path.path()).unwrap();
    assert_eq!((folder.manifest(), folder.accounts().len()), (&manifest, 30));
    let keys = folder.signing_keys();
    let mut data = BTreeMap::new();
    let (mut events, mut bytes, mut signatures) = (0, 0, 0);
    for host in 0..folder.hosts() {
        let mut last_seq = 0;
        let warm_up = folder.warm_up().iter(host).map(|frame| (false, frame.unwrap()));
        for (measured, frame) in warm_up.chain(folder.frames(host).map(|frame| (true, frame.unwrap()))) {
            let Routed::Event(route) = event::route(&frame).unwrap() else { panic!("no event") };
            assert!(route.seq > last_seq);
            last_seq = route.seq;
            events += u64::from(measured);
            bytes += if measured { frame.len() as u64 } else { 0 };
            let (did, blocks) = match event::parse(&frame).unwrap() {
                Event::Commit(commit) => (commit.repo, commit.blocks),
                Event::Sync(sync) => (sync.did, sync.blocks),
                Event::Identity(_) | Event::Account(_) => continue,
            };
            signatures += u64::from(measured);
            let car = Car::parse(blocks).unwrap();
            let block = Commit::parse(car.get(&car.root()).unwrap()).unwrap();
            block.verify(keys.iter().find(|(known, _)| known.as_str() == did).unwrap().1).unwrap();
            if let Event::Commit(commit) = event::parse(&frame).unwrap() {
                let ops = commit.ops.iter().map(|op| mst::Op { path: op.path, prev: op.prev, cid: op.cid });
                let ops: Vec<_> = ops.collect();
                if let Some(prev) = data.insert(did.to_owned(), block.data) {
                    assert_eq!(commit.prev_data, Some(prev));
                    assert_eq!(mst::invert(block.data, &car, &ops).unwrap(), prev);
                }
            }
        }
    }
    let Manifest { measured, .. } = manifest;
    assert_eq!((events, bytes, signatures), (measured.events, measured.bytes, measured.signatures));
    assert_eq!(events, 600);
}

#[test]
fn a_folder_that_is_not_whole_is_refused_and_none_is_overwritten() {
    let (whole, _) = made(&small());
    let again = generate(&small(), whole.path(), |_| {}).unwrap_err();
    assert!(matches!(again, generate::Error::NotEmpty { .. }), "{again}");
    for (name, damage, told) in [
        ("manifest.json", None, "or its making was cut short: make it with `loadtest gen --out`"),
        ("accounts.jsonl", None, "accounts.jsonl"),
        ("measured.frames", None, "measured.frames"),
        ("accounts.jsonl", Some(10), "accounts.jsonl is damaged or cut short: make it anew"),
        ("warm-up.frames", Some(10), "make it anew"),
        ("measured.frames", Some(100_000), "make it anew"),
        ("manifest.json", Some(40), "manifest.json can't be read"),
    ] {
        let copy = TempDir::new().unwrap();
        for file in fs::read_dir(whole.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let damaged = copy.path().join(name);
        match damage {
            None => fs::remove_file(&damaged).unwrap(),
            Some(length) => fs::OpenOptions::new().write(true).open(&damaged).unwrap().set_len(length).unwrap(),
        }
        let error = Folder::open(copy.path()).err().unwrap().to_string();
        assert!(error.contains(told), "{name}: {error}");
    }
    let manifest = whole.path().join("manifest.json");
    let newer = fs::read_to_string(&manifest).unwrap().replacen("\"version\": 1", "\"version\": 7", 1);
    fs::write(&manifest, newer).unwrap();
    assert!(matches!(Folder::open(whole.path()), Err(folder::Error::Version { found: 7, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_sends_what_is_let_go_and_says_when() {
    for names in [Names::Ports, Names::Labels] {
        let (folder, manifest) = made(&small());
        let player = Player::start(folder.path(), traffic::Config { names }).await.unwrap();
        let account = &Folder::open(folder.path()).unwrap().accounts()[1].clone();
        let (status, body) = get(&format!("{}/{}", player.plc_url(), account.did)).await.unwrap();
        let document = DidDocument::parse(&body, &account.did).unwrap();
        assert_eq!((status, document.pds.as_ref()), (200, Some(&player.hosts()[account.host])));
        assert_eq!(document.signing_key.as_ref(), Some(&account.key));
        if names == Names::Labels {
            // No resolver here knows names under localhost; the relay's own does.
            continue;
        }

        let before = runtime::clock::Clock::system().now_micros();
        let readers: Vec<Subscriber> = player
            .hosts()
            .iter()
            .map(|host| {
                let url = format!("ws://{host}");
                Subscriber::start(Config { url, cursor: Some(0), keep: Keep::Frames })
            })
            .collect();
        let read = || readers.iter().map(Subscriber::events).sum::<u64>();
        let until = async |events: u64| {
            let waited = tokio::time::timeout(LONG, async {
                while read() < events {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            waited.await.unwrap_or_else(|_| panic!("{} of {events} events", read()));
        };
        player.announce();
        until(manifest.warm_up.events).await;
        assert_eq!((player.stats().events, player.announced()), (0, manifest.warm_up.events));
        player.play(Pace::PerSecond(500.0));
        until(manifest.warm_up.events + 100).await;
        player.pause();
        for reader in &readers {
            assert!(reader.wait_for_quiet(Duration::from_millis(300), LONG).await);
        }
        assert_eq!(read(), manifest.warm_up.events + player.stats().events);
        assert!(player.stats().events < manifest.measured.events, "a pause is one");
        player.play(Pace::AsRead);
        until(manifest.warm_up.events + manifest.measured.events).await;
        assert_eq!(player.stats().events, manifest.measured.events);
        assert_eq!(player.stats().bytes, manifest.measured.bytes);

        let after = runtime::clock::Clock::system().now_micros();
        for (host, reader) in readers.into_iter().enumerate() {
            let reading = reader.stop().await;
            let mut last = before;
            let warm_up = Folder::open(folder.path()).unwrap();
            let sent = warm_up.warm_up().iter(host).map(Result::unwrap).chain(player.frames(host).map(Result::unwrap));
            for (frame, sent) in reading.frames.iter().zip(sent) {
                let at = stamp::find(frame).unwrap();
                let time = stamp::read(frame).unwrap();
                assert!(last <= time && time <= after);
                last = time;
                let mut sent = sent.to_vec();
                stamp::write(&mut sent, at, time);
                assert_eq!(frame, &sent);
            }
            assert_eq!(reading.latencies.count(), reading.events);
        }
        player.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_again_goes_on_after_its_cursor() {
    let (folder, _) = made(&Profile { hosts: 1, ..small() });
    let player = Player::start(folder.path(), traffic::Config::default()).await.unwrap();
    player.announce();
    player.play(Pace::AsRead);
    let url = format!("ws://{}", player.hosts()[0]);
    let all = player.manifest().warm_up.events + player.manifest().measured.events;
    let whole = Subscriber::start(Config { url: url.clone(), cursor: None, keep: Keep::Received });
    assert!(whole.wait_for(all, LONG).await);
    let seqs: Vec<u64> = whole.stop().await.received.iter().map(|event| event.seq).collect();
    for at in [0, 1, 119, 120, 121, 500, seqs.len() - 2] {
        let reader = Subscriber::start(Config { url: url.clone(), cursor: Some(seqs[at]), keep: Keep::Received });
        assert!(reader.wait_for(all - at as u64 - 1, LONG).await);
        let read: Vec<u64> = reader.stop().await.received.iter().map(|event| event.seq).collect();
        assert_eq!(read, seqs[at + 1..], "after {at}");
    }
    let future = Subscriber::start(Config { url, cursor: Some(seqs[seqs.len() - 1] + 1), keep: Keep::Count });
    let told = async {
        while !future.look(|reading| reading.notices.iter().any(|notice| notice.starts_with("FutureCursor"))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, told).await.unwrap();
    player.stop().await;
}
