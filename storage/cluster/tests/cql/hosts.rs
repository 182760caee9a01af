//! Whose cursor counts.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use storage::{
    conformance::sample,
    hosts::{Host, HostCursor, HostStatus, Hosts},
};
use storage_cluster::cql::hosts::Claims;

use crate::harness::Keyspace;

fn at(seq: u64) -> HostCursor {
    HostCursor { epoch: 0, seq: Some(seq) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawler_that_was_replaced_saves_its_cursors_in_vain() {
    let keyspace = Keyspace::make().await;
    let claim = |number| -> Claims { Arc::new(move |_| Some(number)) };
    let (old, new) = (keyspace.hosts(claim(7)).await, keyspace.hosts(claim(8)).await);
    let host = sample::host(1);
    old.add(&Host::new(host.clone(), HostStatus::Active, 1)).await.unwrap();
    let cursor = async || new.get(&host).await.unwrap().unwrap().cursor;
    for seq in [5, 100] {
        old.save_cursors(&[(host.clone(), at(seq))]).await.unwrap();
    }
    assert_eq!(cursor().await, at(100));
    new.save_cursors(&[(host.clone(), at(90))]).await.unwrap();
    assert_eq!(cursor().await, at(90));
    for seq in 101..150 {
        old.save_cursors(&[(host.clone(), at(seq))]).await.unwrap();
    }
    assert_eq!(cursor().await, at(90));
    new.save_cursors(&[(host.clone(), at(91)), (host.clone(), at(92))]).await.unwrap();
    assert_eq!(cursor().await, at(92), "of one host twice, the later counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_claim_saves_no_cursor_and_who_claims_anew_goes_on() {
    let keyspace = Keyspace::make().await;
    let number = Arc::new(AtomicI64::new(3));
    let claims = number.clone();
    let crawler = keyspace.hosts(Arc::new(move |_| Some(claims.load(Ordering::Relaxed)))).await;
    let operator = keyspace.hosts(Arc::new(|_| None)).await;
    let host = sample::host(1);
    operator.add(&Host::new(host.clone(), HostStatus::Active, 1)).await.unwrap();
    let cursor = async || operator.get(&host).await.unwrap().unwrap().cursor;
    crawler.save_cursors(&[(host.clone(), at(50))]).await.unwrap();
    operator.save_cursors(&[(host.clone(), at(20))]).await.unwrap();
    assert_eq!(cursor().await, at(50));
    crawler.save_cursors(&[(host.clone(), at(10))]).await.unwrap();
    assert_eq!(cursor().await, at(10), "the crawler may go back");
    number.store(4_000_000, Ordering::Relaxed);
    crawler.save_cursors(&[(host.clone(), at(60))]).await.unwrap();
    assert_eq!(cursor().await, at(60));
}
