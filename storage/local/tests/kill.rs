//! SIGKILL at any moment: what was answered is there, nothing is there twice, and the next seq is a new one.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use harness::{Data, config, read_all, window};
use rand::RngExt;
use storage::{conformance::sample, seq::Seq};
use storage_local::{Config, open};

const ROUNDS: u64 = 12;

fn small(config: Config) -> Config {
    Config { segment_bytes: 200_000, tail_bytes_max: 10_000, ..config }
}

/// Not a test: the process that is killed. Reads a directory from its input, appends for ever, and says what was
/// answered.
#[tokio::test]
#[ignore = "is started by the test below"]
async fn child() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let data = Data::at(PathBuf::from(line.trim()));
    let opened = open(small(config(&data))).unwrap();
    let log = opened.stores().log;
    loop {
        let first = window(&opened).last.0 + 1;
        let batches = (0..4).map(|number| log.append(sample::batch(first + number * 5, 5, 700)));
        for answered in futures(batches).await {
            answered.unwrap();
        }
        println!("answered {}", window(&opened).last);
        std::io::stdout().flush().unwrap();
    }
}

/// Awaits several appends at once.
async fn futures<F: Future + Send>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut answers: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in all.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *answer = Some(ready);
            }
        }
        if answers.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_answered() {
    let data = Data::new();
    let mut before = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", data.path().display()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let answered_of = |line: &str| line.strip_prefix("answered ").map(|seq| seq.parse::<u64>().unwrap());
        // It runs when it has answered once; then it is killed at any moment.
        let mut answered = lines.by_ref().find_map(|line| answered_of(&line.unwrap())).expect("the child appends");
        std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it has said before it died; its last line may be torn.
        for line in lines.map_while(Result::ok) {
            answered = answered_of(&line).unwrap_or(answered);
        }
        let opened = open(small(config(&data))).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let all = read_all(&opened, Seq(0)).await;
        assert!((1..).zip(&all).all(|(seq, event)| event.seq == Seq(seq)));
        assert!(all.len() as u64 >= answered, "round {round}: {answered} were answered, {} are there", all.len());
        assert!(all[..before.len()] == before[..], "round {round}: what was read before is as it was");
        let repos = opened.stores().repos;
        assert_eq!(repos.count().await.unwrap(), all.len() as u64);
        before = all;
        // Every other round goes on after a crash instead of a close.
        if round % 2 == 0 {
            opened.close().await.unwrap();
        }
    }
}
