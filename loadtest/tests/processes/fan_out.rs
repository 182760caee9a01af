//! The measurement of fan-out from end to end, as small as it can be: its figures mean nothing, their form does.

use std::process::Command;

use serde_json::Value;

use crate::harness::{alone, mainstem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_tells_its_figures() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let (json, plots) = (folder.path().join("fan-out.json"), folder.path().join("plots"));
    let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    run.args(["fan-out", "--profile", "small", "--commits", "12000", "--records", "5", "--subscribers", "1,10"]);
    run.args(["--deliveries", "20000", "--paced", "10", "--seconds", "1", "--readers", "1,4", "--window", "1000"]);
    run.args(["--quiet", "50", "--herd", "10", "--behind", "2000", "--herd-live", "5", "--hostile", "5"]);
    run.arg("--relay").arg(mainstem()).arg("--traffic").arg(folder.path().join("traffic"));
    run.arg("--folder").arg(folder.path()).arg("--json").arg(&json).arg("--plots").arg(&plots);
    let done = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let (said, progress) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{progress}");
    assert!(said.contains("× raw") && said.contains("(at most 1.5)"), "{said}{progress}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let number = |pointer: &str| {
        let found = report.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing in {report:#}"));
        found.as_f64().unwrap_or_else(|| panic!("{pointer} is {found}"))
    };
    for pointer in [
        "/scenarios/live/alone_micros_per_event/0",
        "/scenarios/live/rows/1/deliveries_per_second",
        "/scenarios/live/rows/1/raw_sockets_micros_per_delivery",
        "/scenarios/pace/all/p99_millis",
        "/scenarios/pace/all/deliveries",
        "/scenarios/replay/rows/0/bytes_per_second/median",
        "/scenarios/replay/rows/1/ratio",
        "/scenarios/quiet/connected_bytes",
        "/scenarios/herd/before/p99_millis",
        "/scenarios/herd/seconds",
        "/scenarios/herd/bytes",
        "/scenarios/slow/beside/events_per_second",
        "/scenarios/shards/parts/deliveries_per_second",
        "/scenarios/shards/replay_parts_bytes_per_second",
        "/scenarios/compression/live/1/deflated_bytes_per_event/0",
        "/scenarios/compression/live/2/inflated",
        "/scenarios/compression/replay/2/events_per_second",
    ] {
        assert!(number(pointer) > 0.0, "{pointer}");
    }
    assert_eq!(report["checks"].as_array().unwrap().iter().filter(|check| check["holds"].is_null()).count(), 0);
    for name in ["fan-out-cost.svg", "fan-out-replay.svg", "fan-out-pace.svg", "fan-out-herd.svg"] {
        assert!(std::fs::read_to_string(plots.join(name)).unwrap().ends_with("</svg>\n"), "{name}");
    }
}
