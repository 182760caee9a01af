//! A write that fails for another reason than a full disk ends the backend, through the handler.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;

use std::{
    fs,
    sync::{Arc, Mutex},
};

use harness::{Data, append, config, window};
use storage::{conformance::sample, error::Error, seq::Seq};
use storage_local::{Config, open};

#[tokio::test]
async fn a_failed_write_is_fatal() {
    let data = Data::new();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let teller = Arc::clone(&told);
    let fatal = Arc::new(move |what: &str| teller.lock().unwrap().push(what.to_owned()));
    let opened = open(Config { segment_bytes: 1000, fatal, ..config(&data) }).unwrap();
    append(&opened, 1, 5).await;
    // The next segment can't be made.
    fs::rename(data.path().join("log"), data.path().join("elsewhere")).unwrap();
    let log = opened.stores().log;
    let failed = log.append(sample::batch(10, 5, 300)).await;
    assert!(matches!(failed, Err(Error::Indeterminate { .. })), "{failed:?}");
    assert_eq!(window(&opened).last, Seq(5));
    // The caller may hear of it before the handler.
    while told.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(told.lock().unwrap()[0].starts_with("failed to write to the log: "), "{told:?}");
    while !matches!(log.append(sample::batch(20, 1, 300)).await, Err(Error::Closed)) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(opened.close().await, Err(Error::Closed)));
    fs::remove_dir_all(data.path().join("log")).unwrap_or_default();
    fs::rename(data.path().join("elsewhere"), data.path().join("log")).unwrap();
    let opened = open(config(&data)).unwrap();
    assert_eq!(window(&opened).last, Seq(5));
    opened.close().await.unwrap();
}

#[tokio::test]
async fn metrics_tell_what_was_done() {
    let data = Data::new();
    let config = config(&data);
    let registry = config.metrics.clone();
    let opened = open(config).unwrap();
    append(&opened, 1, 5).await;
    append(&opened, 3, 5).await;
    let bytes = window(&opened).bytes;
    let repos = || registry.gather().iter().find(|family| family.name() == "mainstem_repos").cloned();
    // The states are written a little later.
    while repos().unwrap().get_metric()[0].get_gauge().get_value() < 7.0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let families = registry.gather();
    let family = |name: &str| families.iter().find(|family| family.name() == name).unwrap().get_metric()[0].clone();
    assert_eq!(family("mainstem_log_events_total").get_counter().get_value(), 10.0);
    assert_eq!(family("mainstem_log_last_seq").get_gauge().get_value(), 10.0);
    assert_eq!(family("mainstem_log_first_seq").get_gauge().get_value(), 1.0);
    assert_eq!(family("mainstem_log_bytes").get_gauge().get_value(), bytes as f64);
    assert_eq!(family("mainstem_repos").get_gauge().get_value(), 7.0);
    assert_eq!(family("mainstem_log_full").get_gauge().get_value(), 0.0);
    let groups = family("mainstem_log_group_events");
    assert_eq!(groups.get_histogram().get_sample_count(), 2);
    assert_eq!(groups.get_histogram().get_sample_sum(), 10.0);
    assert!(family("mainstem_log_sync_seconds").get_histogram().get_sample_count() >= 2);
    opened.close().await.unwrap();
}
