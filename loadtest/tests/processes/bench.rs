//! The benchmark from end to end, as small as it can be: its figures mean nothing, their form does.

use std::process::Command;

use serde_json::Value;

use crate::harness::{alone, mainstem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_tells_all_its_figures() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let (json, plots) = (folder.path().join("bench.json"), folder.path().join("plots"));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    bench.args(["bench", "--profile", "small", "--rounds", "1", "--workers", "2,1", "--rate", "50", "--latency", "1"]);
    bench.arg("--relay").arg(mainstem()).arg("--traffic").arg(folder.path().join("traffic"));
    bench.arg("--folder").arg(folder.path()).arg("--json").arg(&json).arg("--plots").arg(&plots);
    let done = tokio::task::spawn_blocking(move || bench.output().unwrap()).await.unwrap();
    let (said, progress) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{progress}");
    assert!(said.contains("× bare verification") && progress.contains("warming up"), "{said}{progress}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let number = |pointer: &str| {
        let found = report.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing in {report:#}"));
        found.as_f64().unwrap_or_else(|| panic!("{pointer} is {found}"))
    };
    for pointer in [
        "/machine/cores",
        "/traffic/measured/frame_bytes_mean",
        "/yardsticks/bare_verification_micros_per_event/median",
        "/yardsticks/bare_verification_before_micros_per_event/most",
        "/yardsticks/bare_verification_after_micros_per_event/least",
        "/yardsticks/fsync/p99_micros",
        "/yardsticks/append/events_per_second",
        "/yardsticks/loopback/bytes_per_second",
        "/two_workers_ratio",
        "/subjects/0/cpu_micros_per_event/median",
        "/subjects/0/ratio/median",
        "/subjects/0/events_per_second/median",
        "/subjects/0/rss_bytes_max/median",
        "/subjects/0/latency/p50_micros",
        "/subjects/0/latency/fsync/p50_micros",
        "/subjects/1/rounds/0/bare_after/verification_micros_per_event",
    ] {
        assert!(number(pointer) > 0.0, "{pointer}");
    }
    // Too little work for the kernel's tick: it may count as none.
    assert!(number("/yardsticks/sha256_micros_per_event/median") >= 0.0);
    let latency = &report["subjects"][0]["latency"];
    // On a busy machine the run is void and says so, and is a run all the same.
    assert_eq!(latency["void"].is_null(), latency["idle_share"].as_f64().unwrap() >= 0.3, "{latency}");
    for name in ["cost.svg", "latency.svg", "memory.svg"] {
        assert!(std::fs::read_to_string(plots.join(name)).unwrap().ends_with("</svg>\n"), "{name}");
    }
}
