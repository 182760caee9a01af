//! How a relay ends.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Got, LONG, Relay, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_get_what_was_logged_and_are_told_to_come_back() {
    let relay = Relay::start(config(&[])).await;
    let mut subscribers = [relay.subscribe("").await, relay.subscribe("").await];
    relay.wait_for_metric("mainstem_fanout_subscribers", 2.0).await;
    relay.append(20, 500).await;
    relay.tasks.shutdown("test");
    let public = relay.public;
    let read = async {
        for subscriber in &mut subscribers {
            subscriber.expect_events(1, 20).await;
            assert_eq!(subscriber.next().await, Got::Closed(Some(1001)));
        }
    };
    tokio::join!(read, relay.drain());
    assert!(tokio::net::TcpStream::connect(public).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_does_not_hold_it_up() {
    let relay = Relay::start(config(&[])).await;
    let mut slow = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    for _ in 0..40 {
        relay.append(10, 100_000).await;
    }
    tokio::time::timeout(Duration::from_secs(10), relay.drain()).await.expect("it took too long");
    // What it has of the last frame is of no use, what is before it is whole.
    let mut next = 1;
    while let Ok(Some(Ok(Message::Binary(_)))) =
        tokio::time::timeout(LONG, futures_util::StreamExt::next(&mut slow.socket)).await
    {
        next += 1;
    }
    assert!(next < 400);
}
