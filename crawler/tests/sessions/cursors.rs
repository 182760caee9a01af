//! Where reading begins, and what is saved of it.

use std::time::Duration;

use crawler::{Config, End, Start};
use storage::hosts::{HostCursor, HostStatus};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::world::{Pds, SOON, World, quick, until};

fn at(epoch: u32, seq: u64) -> HostCursor {
    HostCursor { epoch, seq: Some(seq) }
}

#[tokio::test]
async fn a_reconnect_asks_for_the_low_water_mark_of_receipts() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept_at(Some(0)).await;
    assert!(connection.agent.starts_with("Mainstem/"), "{}", connection.agent);
    connection.events(&[1, 2, 4, 5, 9]).await;
    world.intake.has(&[1, 2, 4, 5, 9]).await;
    world.intake.take(&[9, 1, 5, 2]);
    world.saves(&pds, at(0, 2)).await;
    connection.close().await;

    let mut connection = pds.accept_at(Some(2)).await;
    connection.events(&[4, 5, 9, 10]).await;
    world.intake.has(&[1, 2, 4, 5, 9, 4, 5, 9, 10]).await;
    assert_eq!(world.view(&pds).in_flight, 4);
    // A late receipt of what the first connection brought moves nothing.
    let first_four = &world.intake.frames()[2];
    first_four.receipts.taken(4);
    assert_eq!(world.view(&pds).cursor, at(0, 2));
    world.intake.take(&[4, 5]);
    world.saves(&pds, at(0, 5)).await;
    world.intake.take(&[10, 9]);
    world.saves(&pds, at(0, 10)).await;

    // After a restart of the process the store says where to go on.
    let hosts = world.hosts.clone();
    world.stopped().await;
    let world = World::with_hosts(quick(), hosts);
    let mut connection = pds.accept_at(Some(10)).await;
    connection.events(&[11]).await;
    world.intake.has(&[11]).await;
    assert_eq!(world.intake.frames()[0].host_epoch, 0);
    world.stopped().await;
}

#[tokio::test]
async fn a_new_host_is_read_live_and_then_from_its_cursor() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Live).await;
    let mut connection = pds.accept_at(None).await;
    connection.events(&[700]).await;
    world.intake.has(&[700]).await;
    assert_eq!(world.view(&pds).cursor, at(0, 699));
    world.intake.take(&[700]);
    connection.close().await;
    pds.accept_at(Some(700)).await;
    world.stopped().await;
}

#[tokio::test]
async fn frames_carry_what_they_came_with() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Live).await;
    let mut connection = pds.accept().await;
    let bytes = crate::world::identity(77);
    connection.send(bytes.clone()).await;
    world.intake.has(&[77]).await;
    let frame = &world.intake.frames()[0];
    assert_eq!(frame.host, pds.name);
    assert_eq!((frame.host_epoch, frame.upstream_seq, frame.received_at_micros), (0, 77, 1_000_000));
    assert_eq!(frame.did.as_str(), "did:web:account2.example.com");
    assert_eq!(frame.kind, atproto::event::Kind::Identity);
    assert_eq!(frame.bytes, bytes);
    let slot = &frame.bytes[frame.seq_slot.start as usize..frame.seq_slot.end as usize];
    assert_eq!(slot, [0x18, 77]);
    world.stopped().await;
}

#[tokio::test]
async fn a_lower_first_seq_is_a_reset_and_loses_nothing() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[100, 101]).await;
    world.intake.has(&[100, 101]).await;
    world.intake.take(&[100, 101]);
    connection.close().await;

    let mut connection = pds.accept_at(Some(101)).await;
    connection.events(&[3, 4, 2, 101, 102]).await;
    world.intake.has(&[100, 101, 3, 4, 101, 102]).await;
    let epochs: Vec<u32> = world.intake.frames().iter().map(|frame| frame.host_epoch).collect();
    assert_eq!(epochs, [0, 0, 1, 1, 1, 1]);
    world.intake.take(&[3]);
    world.saves(&pds, at(1, 3)).await;
    world.intake.frames()[1].receipts.taken(101);
    world.intake.take(&[4]);
    world.saves(&pds, at(1, 4)).await;
    assert_eq!(world.metric("mainstem_crawler_seq_resets_total"), 1.0);
    connection.close().await;
    pds.accept_at(Some(4)).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_new_epoch_is_in_the_row_before_an_event_of_it_is_handed_on() {
    let never = Config { save_every: Duration::from_secs(3600), ..quick() };
    let (world, mut pds) = (World::new(never), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[100]).await;
    world.intake.has(&[100]).await;
    world.intake.take(&[100]);
    connection.close().await;

    let mut connection = pds.accept_at(Some(100)).await;
    connection.events(&[3]).await;
    world.intake.has(&[100, 3]).await;
    assert_eq!(world.saved(&pds).await, HostCursor { epoch: 1, seq: None });
    world.stopped().await;
}

#[tokio::test]
async fn a_host_that_takes_the_cursor_as_inclusive_is_not_reset() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[5]).await;
    world.intake.has(&[5]).await;
    world.intake.take(&[5]);
    connection.close().await;
    let mut connection = pds.accept_at(Some(5)).await;
    connection.events(&[5, 6]).await;
    world.intake.has(&[5, 6]).await;
    assert_eq!(world.intake.frames()[1].host_epoch, 0);
    world.stopped().await;
}

#[tokio::test]
async fn after_future_cursor_the_host_is_begun_as_a_new_one() {
    for (start, asked) in [(Start::Live, None), (Start::Oldest, Some(0))] {
        let (world, mut pds) = (World::new(quick()), Pds::new().await);
        world.read(&pds, start).await;
        let mut connection = pds.accept_at(asked).await;
        connection.events(&[100]).await;
        world.intake.has(&[100]).await;
        world.intake.take(&[100]);
        connection.close().await;
        let mut connection = pds.accept_at(Some(100)).await;
        connection.error("FutureCursor").await;

        let mut connection = pds.accept_at(asked).await;
        assert_eq!(world.view(&pds).last_end.unwrap().end, End::Reset);
        connection.events(&[7]).await;
        world.intake.has(&[100, 7]).await;
        assert_eq!(world.intake.frames()[1].host_epoch, 1);
        world.intake.take(&[7]);
        world.saves(&pds, at(1, 7)).await;
        world.stopped().await;
    }
}

#[tokio::test]
async fn error_frames_lead_back_to_the_cursor_and_info_to_nothing() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.send(atproto::event::encode_info("OutdatedCursor", None)).await;
    connection.events(&[50]).await;
    world.intake.has(&[50]).await;
    world.intake.take(&[50]);
    assert_eq!(world.metric("mainstem_crawler_outdated_cursors_total"), 1.0);
    for (error, end) in [("ConsumerTooSlow", End::TooSlow), ("SomethingElse", End::ErrorFrame)] {
        connection.error(error).await;
        connection = pds.accept_at(Some(50)).await;
        let last = world.view(&pds).last_end.unwrap();
        assert_eq!((last.end, last.detail), (end, format!("{error}: says the test")));
    }
    world.stopped().await;
}

#[tokio::test]
async fn a_stop_waits_for_receipts_saves_the_cursor_and_says_goodbye() {
    let config = crawler::Config { settle_within: SOON, ..quick() };
    let (world, mut pds) = (World::new(config), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[1, 2, 3]).await;
    world.intake.has(&[1, 2, 3]).await;
    let (intake, hosts, name) = (world.intake.clone(), world.hosts.clone(), pds.name.clone());
    let (last_word, ()) = tokio::join!(
        async {
            let close = connection.next().await.unwrap();
            // Only now, when the crawler has stopped reading, is the rest judged.
            intake.take(&[2, 1, 3]);
            close
        },
        world.stopped(),
    );
    let Message::Close(Some(close)) = last_word else { panic!("{last_word:?}") };
    assert_eq!(close.code, CloseCode::Away);
    let row = hosts.get(&name).await.unwrap().unwrap();
    assert_eq!(row.cursor, at(0, 3));
    assert_eq!(row.status, HostStatus::Active);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_and_saves_no_more_than_was_taken() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[1, 2, 3]).await;
    world.intake.has(&[1, 2, 3]).await;
    world.intake.take(&[1, 3]);
    let (hosts, name) = (world.hosts.clone(), pds.name.clone());
    tokio::join!(connection.close(), world.stopped());
    assert_eq!(hosts.get(&name).await.unwrap().unwrap().cursor, at(0, 1));
}

#[tokio::test]
async fn too_many_in_flight_stop_the_reading() {
    let config = crawler::Config { in_flight_max: std::num::NonZeroUsize::new(2).unwrap(), ..quick() };
    let (world, mut pds) = (World::new(config), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    connection.events(&[1, 2, 3, 4]).await;
    world.intake.has(&[1, 2]).await;
    assert_eq!(world.view(&pds).in_flight, 2);
    world.intake.take(&[2]);
    world.intake.has(&[1, 2, 3]).await;
    world.intake.take(&[1, 3]);
    until("took the last", || world.intake.seqs() == [1, 2, 3, 4]).await;
    world.stopped().await;
}
