//! The program as it is run: arguments, environment, exit codes, what it says.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::{Duration, Instant},
};

fn mainstem(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstem"));
    command.args(args).env_clear();
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The line of `mainstem config` for a setting: its value and where it comes from.
fn setting(config: &str, name: &str) -> (String, String) {
    let line = config.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    let rest = line[name.len()..].trim();
    let (value, origin) = rest.split_once("  ").unwrap();
    (value.to_owned(), origin.trim().to_owned())
}

#[test]
fn config_says_what_is_in_force_and_where_from() {
    let mut command = mainstem(&["config", "--window", "30m", "--host", "a.example.com", "--host", "b.example.com"]);
    command.env("MAINSTEM_WINDOW", "24h").env("MAINSTEM_WINDOW_BYTES", "1GB").env("MAINSTEM_DEV", "0");
    let (code, config, _) = output(&mut command);
    assert_eq!(code, Some(0));
    for (name, value, origin) in [
        ("bind", "127.0.0.1:2470", "default"),
        ("admin-bind", "127.0.0.1:2471", "default"),
        ("plc-url", "https://plc.directory/", "default"),
        ("host", "a.example.com,b.example.com", "flag"),
        ("window", "30m", "flag"),
        ("window-bytes", "1.0 GB", "environment"),
        ("dev", "false", "environment"),
        ("simulate", "false", "default"),
        ("admin-password-file", "(none)", "default"),
    ] {
        assert_eq!(setting(&config, name), (value.to_owned(), origin.to_owned()), "{name}");
    }
    let mut command = mainstem(&["config"]);
    command.env("MAINSTEM_SIMULATE", "yes").env("MAINSTEM_DATA_DIR", "/x");
    let (_, config, _) = output(&mut command);
    assert_eq!(setting(&config, "data-dir"), ("/x/simulated".into(), "environment".into()));
    assert_eq!(setting(&config, "dev"), ("true".into(), "implied by simulate".into()));
    let mut command = mainstem(&["config", "--coverage-interval", "1h"]);
    let (_, config, _) = output(command.env("MAINSTEM_COVERAGE_PEER", "https://a.test,https://b.test:8443"));
    let peers = "https://a.test/,https://b.test:8443/";
    assert_eq!(setting(&config, "coverage-peer"), (peers.into(), "environment".into()));
    assert_eq!(setting(&config, "coverage-interval"), ("1h".into(), "flag".into()));
    let (_, config, _) = output(mainstem(&["config", "--dev"]).env("MAINSTEM_HOST", "localhost:1,localhost:2"));
    assert_eq!(setting(&config, "host"), ("localhost:1,localhost:2".into(), "environment".into()));
}

#[test]
fn limits_are_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.toml");
    let path = file.to_str().unwrap();
    let (code, example, _) = output(&mut mainstem(&["limits", "example"]));
    assert_eq!(code, Some(0));
    std::fs::write(&file, &example).unwrap();
    let (code, said, _) = output(&mut mainstem(&["limits", "check", path, "pds.example.com", "x.host.bsky.network"]));
    assert_eq!(code, Some(0));
    for expected in [
        "limits.toml is sound: 1 rule\n",
        "pds.example.com: by the default\n  events_per_second  50\n",
        "x.host.bsky.network: by the rule for \"*.host.bsky.network\"\n",
        "accounts_max       10000000\n",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (_, config, _) = output(&mut mainstem(&["config", "--limits", path]));
    assert!(setting(&config, "limits").0.ends_with("limits.toml (rules: 1)"), "{config}");

    std::fs::write(&file, "[default]\nevents_per_minute = 5\n").unwrap();
    for args in [&["limits", "check", path][..], &["config", "--limits", path]] {
        let (code, _, error) = output(&mut mainstem(args));
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("line 2: unknown field `events_per_minute`"), "{error}");
    }
    let (code, _, error) = output(&mut mainstem(&["config", "--ca-file", path]));
    assert!(code == Some(2) && error.contains("--ca-file") && error.contains("no certificate"), "{error}");
}

#[test]
fn mistakes_name_the_flag_and_what_to_do() {
    for (args, says) in [
        (&["--bind", "2470"][..], &["--bind", "127.0.0.1:2470"][..]),
        (&["--bind", "127.0.0.1:2471"], &["--admin-bind", "another port"]),
        (&["--host", "not a host"], &["--host", "pds.example.com"]),
        (&["--host", "localhost:2583"], &["--host", "--dev"]),
        (&["--plc-url", "plc"], &["--plc-url", "https://"]),
        (&["--plc-url", "http://plc.example.com"], &["--plc-url", "--dev"]),
        (&["--bootstrap", "ftp://relay.example.com"], &["--bootstrap", "https://"]),
        (&["--simulate", "--host", "pds.example.com"], &["--host", "--simulate"]),
        (&["--window", "0s"], &["--window", "72h"]),
        (&["--window", "three days"], &["--window", "72h"]),
        (&["--window-bytes", "1KB"], &["--window-bytes", "64MiB"]),
        (&["--seq-start", "0"], &["--seq-start", "from 1 to 9007199254740991"]),
        (&["--seq-start", "9007199254740992"], &["--seq-start", "from 1 to"]),
        (&["--workers", "none"], &["--workers", "whole number"]),
        (&["--subscribers-max", "0"], &["--subscribers-max", "from 1"]),
        (&["--subscribers-per-address", "many"], &["--subscribers-per-address", "none"]),
        (&["--trusted-proxies", "10.0.0.0/33"], &["--trusted-proxies", "10.0.0.0/8"]),
        (&["--subscriber-token-file", "/nonexistent"], &["--subscriber-token-file", "No such file"]),
        (&["--admin-password-file", "/nonexistent"], &["--admin-password-file", "No such file"]),
        (&["--admin-token-file", "/nonexistent"], &["--admin-token-file", "No such file"]),
        (&["--coverage-peer", "relay"], &["--coverage-peer", "https://"]),
        (&["--coverage-peer", "http://relay.example.com"], &["--coverage-peer", "--dev"]),
        (&["--coverage-peer", "https://a:b@relay.example.com"], &["--coverage-peer", "https://"]),
        (&["--coverage-peer", "https://a.test/,https://A.test"], &["--coverage-peer", "a.test", "twice"]),
        (&["--coverage-interval", "59s"], &["--coverage-interval", "1m"]),
        (&["--log-format", "xml"], &["--log-format", "json"]),
        (&["--no-such-flag"], &["--no-such-flag", "--help"]),
    ] {
        for command in ["run", "config"] {
            let (code, _, said) = output(&mut mainstem(&[&[command], args].concat()));
            assert_eq!(code, Some(2), "{args:?}: {said}");
            for text in says {
                assert!(said.contains(text), "{args:?} does not say {text:?}: {said}");
            }
        }
    }
}

#[test]
fn a_taken_port_and_a_taken_folder_are_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, _, said) = output(&mut mainstem(&["run", "--bind", &addr, "--admin-bind", "127.0.0.1:0"]));
    assert_eq!(code, Some(2));
    assert!(said.contains(&addr) && said.contains("--bind"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &["--dev"]);
    let dir = folder.path().to_str().unwrap();
    let run = ["run", "--dev", "--data-dir", dir, "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"];
    let (code, _, said) = output(&mut mainstem(&run));
    assert_eq!(code, Some(2));
    assert!(said.contains("--data-dir") && said.contains("in use"), "{said}");
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn a_simulated_network_is_watched_and_ends_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &["--simulate"]);
    for (args, kind) in [(&["--json"][..], "\"kind\":\"#"), (&[], "did:plc:")] {
        let mut tail = mainstem(&[&["tail", &running.public, "--cursor", "0"], args].concat());
        let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(tail.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Then nobody reads any more, and it ends without a word.
        for line in lines.take(20) {
            assert!(line.contains(kind), "{line}");
        }
        assert_eq!(wait(&mut tail), Some(0));
        let mut said = String::new();
        tail.stderr.unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
    assert_eq!(running.terminate(), Some(0));

    let data = folder.path().join("simulated");
    let (code, said, _) = output(&mut mainstem(&["repair", data.to_str().unwrap()]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing is damaged"), "{said}");
}

#[test]
fn verify_judges_files_in_their_order() {
    let frames = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../atproto/testdata/frames");
    let file = |name: &str| frames.join(name).to_str().unwrap().to_owned();
    let dids: serde_json::Value = serde_json::from_slice(&std::fs::read(frames.join("dids.json")).unwrap()).unwrap();
    let alice = "did:plc:i6xyieizhw7uvhmmbnsl5jxq";
    let folder = tempfile::tempdir().unwrap();
    let identities = folder.path().join("identities.json");
    let first = serde_json::json!({ alice: dids[alice]["history"][0]["didDoc"] });
    std::fs::write(&identities, first.to_string()).unwrap();
    let identities = identities.to_str().unwrap();
    let good = [
        "000-pdsA-identity-createAccount_alice.bin",
        "001-pdsA-account-createAccount_alice.bin",
        "002-pdsA-commit-createAccount_alice.bin",
        "003-pdsA-sync-createAccount_alice.bin",
        "004-pdsA-commit-createRecord_post.bin",
    ]
    .map(file);
    let verify = |host: &[&str], files: &[String]| {
        let mut command = mainstem(&[&["verify", "--identities", identities], host].concat());
        output(command.args(files))
    };
    for host in [&[][..], &["--host", "localhost:37277"]] {
        let (code, said, _) = verify(host, &good);
        assert_eq!((code, said.lines().filter(|line| line.contains(": accepted (#")).count()), (Some(0), 5), "{said}");
    }
    let (code, said, _) = verify(&["--host", "elsewhere.example.com"], &good);
    assert_eq!(code, Some(1));
    assert!(said.contains("refused: wrong_host (#commit of did:plc:"), "{said}");

    // After the key was changed: refused by the identity of before.
    let (code, said, _) = verify(&[], &[good[2].clone(), file("028-pdsA-commit-createRecord_after_rotate.bin")]);
    assert_eq!(code, Some(1));
    assert!(said.contains("refused: bad_signature") && said.contains("2 frames, 1 refused"), "{said}");

    let (code, _, said) = verify(&[], &["/nonexistent".to_owned()]);
    assert_eq!(code, Some(2));
    assert!(said.contains("/nonexistent"), "{said}");
}

#[test]
fn a_running_relay_is_administered() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let password = file("password", "hunter2\n");
    let tokens = file("tokens", "# who may\nalice: 0123456789abcdef\n");
    let keys = ["--admin-password-file", &password, "--admin-token-file", &tokens];
    let running = Running::start(&folder.path().join("data"), &[&["--dev"], &keys[..]].concat());
    let admin = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = mainstem(&["admin"]);
        command.env("MAINSTEM_ADMIN_URL", format!("http://{}", running.private)).envs(environment.iter().copied());
        output(command.args(args))
    };
    let with_password = [("MAINSTEM_ADMIN_PASSWORD_FILE", &*password)];

    // What is wrong is said, with what to do, and the exit code tells which kind of wrong it is.
    let wrong = file("wrong", "hunter3");
    let public = format!("http://{}", running.public);
    for (args, environment, code, says) in [
        (&["hosts", "list"][..], &[][..], 2, "--password-file"),
        (&["hosts", "list", "--password-file", "/nonexistent"], &[], 2, "/nonexistent"),
        (&["hosts", "list", "--status", "dead"], &with_password, 2, "offline"),
        (&["hosts"], &with_password, 2, "unban"),
        (&["hosts", "list", "--url", "ftp://x"], &with_password, 2, "http://127.0.0.1:2471"),
        (&["hosts", "list", "--url", "127.0.0.1:9"], &with_password, 3, "--admin-bind"),
        (&["hosts", "list", "--url", &public], &with_password, 3, "not of its --bind"),
        (&["hosts", "list", "--password-file", &wrong], &[], 4, "wrong"),
        (&["hosts", "list"], &[("MAINSTEM_ADMIN_TOKEN", "0123456789abcdeF")], 4, "wrong"),
        (&["hosts", "show", "localhost:9"], &with_password, 1, "not known"),
        (&["accounts", "show", "alice"], &with_password, 1, "not a DID"),
        (&["subscribers", "disconnect", "1"], &with_password, 1, "not connected"),
    ] {
        let (was, said, error) = admin(args, environment);
        assert_eq!((was, &*said), (Some(code), ""), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?} does not say {says:?}: {error}");
    }

    // Each kind of key lets in, and what it changes is recorded under its name.
    for (key, value, host) in [
        ("MAINSTEM_ADMIN_PASSWORD_FILE", &*password, "localhost:9"),
        ("MAINSTEM_ADMIN_PASSWORD", "hunter2", "localhost:10"),
        ("MAINSTEM_ADMIN_TOKEN_FILE", &*tokens, "localhost:11"),
        ("MAINSTEM_ADMIN_TOKEN", "0123456789abcdef", "localhost:12"),
    ] {
        let (code, said, error) = admin(&["hosts", "ban", host], &[(key, value)]);
        assert_eq!(code, Some(0), "{key}: {error}");
        assert!(said.contains(host) && said.contains("banned"), "{said}");
    }
    let (_, said, _) = admin(&["hosts", "list", "--status", "banned"], &with_password);
    let hosts: Vec<_> = said.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(hosts, ["localhost:10", "localhost:11", "localhost:12", "localhost:9"]);
    let (_, said, _) = admin(&["--json", "hosts", "list"], &with_password);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["hosts"][3]["hostname"], "localhost:9");
    let (_, said, _) = admin(&["audit", "--limit", "3"], &with_password);
    let rows: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["ID", "WHEN", "WHO"]);
    for (row, (who, host)) in
        rows[1..].iter().zip([("alice", "localhost:12"), ("alice", "localhost:11"), ("admin", "localhost:10")])
    {
        assert_eq!((row[3], row[5], row[6], row[7]), (who, "banHost", host, "done"), "{said}");
    }
    assert!(said.contains("mainstem admin audit --before"), "{said}");

    let without = Running::start(&folder.path().join("without"), &["--dev"]);
    let url = format!("http://{}", without.private);
    let (code, _, error) = admin(&["hosts", "list", "--url", &url], &with_password);
    assert_eq!(code, Some(4));
    assert!(error.contains("--admin-password-file"), "{error}");
    assert_eq!((running.terminate(), without.terminate()), (Some(0), Some(0)));
}

/// A relay that was started; killed with its value.
struct Running {
    child: Child,
    public: String,
    private: String,
    /// Kept open, so that its logs have somewhere to go.
    stderr: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(folder: &Path, args: &[&str]) -> Running {
        let mut command = mainstem(&["run", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]);
        command.args(args).arg("--data-dir").arg(folder).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (public, private) = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
            let line: serde_json::Value = serde_json::from_str(&line).expect("logs are JSON where no terminal is");
            if line["message"] == "listening" {
                break (line["public"].as_str().unwrap().to_owned(), line["private"].as_str().unwrap().to_owned());
            }
        };
        let stderr = std::thread::spawn(move || drain(log));
        Running { child, public, private, stderr: Some(stderr) }
    }

    /// Sends SIGTERM and gives the exit code.
    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let started = Instant::now();
        let code = wait(&mut self.child);
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        self.stderr.take().unwrap().join().unwrap();
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn drain(log: BufReader<ChildStderr>) {
    log.lines().for_each(drop);
}

/// Waits for the end of a process.
fn wait(child: &mut Child) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}
