//! The servers themselves: that they start, end, and leave nothing behind.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use testservers::Kafka;

const SOON: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that is gone, or waits to be reaped.
fn is_gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[test]
fn a_broker_is_killed_started_again_and_ended_with_its_data() {
    let kafka = Kafka::start(1).unwrap();
    let broker = &kafka.brokers()[0];
    let pid = broker.pid().unwrap();
    TcpStream::connect(broker.address()).unwrap();
    broker.stop().unwrap();
    broker.go_on().unwrap();
    broker.kill().unwrap();
    assert!(is_gone(pid));
    TcpStream::connect(broker.address()).unwrap_err();
    broker.restart().unwrap();
    TcpStream::connect(broker.address()).unwrap();
    broker.end().unwrap();
    broker.restart().unwrap();
    let (pid, dir) = (broker.pid().unwrap(), broker.dir());
    drop(kafka);
    assert!(is_gone(pid));
    assert!(!dir.parent().unwrap().exists());
}

/// Not a test by itself: a process that starts a broker, says where, and waits to be killed.
#[test]
#[ignore = "run by the test below"]
fn holds_a_broker() {
    let broker = &Kafka::shared().brokers()[0];
    println!("broker {} {}", broker.pid().unwrap(), broker.dir().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_broker_ends_with_the_process_that_started_it() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "holds_a_broker"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("broker ")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    let [.., pid, dir] = words[..] else { panic!("{line}") };
    let (pid, dir) = (pid.parse().unwrap(), PathBuf::from(dir));
    assert!(!is_gone(pid) && dir.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the broker has ended", || is_gone(pid));
    wait_until("its data are gone", || !dir.parent().unwrap().exists());
}
