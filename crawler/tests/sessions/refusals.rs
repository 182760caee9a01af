//! What can't be read is refused and passed over.

use atproto::frame::FRAME_BYTES_MAX;
use crawler::{End, Start};
use futures_util::SinkExt;
use storage::refusal::Reason;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::world::{Pds, World, identity, quick, until};

#[tokio::test]
async fn bad_messages_are_refused_by_name_and_the_connection_stays() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;

    let mut seq = 0;
    let mut next = || {
        seq += 1;
        identity(seq)
    };
    let header_only = [0xa2, 0x61, b't', 0x67, b'#', b'c', b'o', b'm', b'm', b'i', b't', 0x62, b'o', b'p', 0x01];
    let no_seq = [&header_only[..], &[0xa0]].concat();
    let cut = identity(500)[..30].to_vec();
    let cases: [(Vec<u8>, Reason); 6] = [
        (vec![0; FRAME_BYTES_MAX + 1], Reason::FrameTooLarge),
        (vec![0xff; 100], Reason::BadHeader),
        (vec![], Reason::BadHeader),
        (header_only.to_vec(), Reason::BadPayload),
        (no_seq, Reason::BadPayload),
        (cut, Reason::BadPayload),
    ];
    let mut expected = Vec::new();
    for (bad, reason) in cases {
        let before = world.refusals.total(reason);
        connection.send(bad).await;
        connection.send(next()).await;
        expected.push(expected.len() as u64 + 1);
        world.intake.has(&expected).await;
        assert_eq!(world.refusals.total(reason), before + 1, "{reason}");
    }
    connection.socket.send(Message::text("hello")).await.unwrap();
    connection.events(&[7, 7, 3, 8]).await;
    world.intake.has(&[1, 2, 3, 4, 5, 6, 7, 8]).await;
    assert_eq!(world.refusals.total(Reason::BadHeader), 3, "the text");
    assert_eq!(world.refusals.total(Reason::SeqNotRising), 2);
    let refused = world.refusals.of_host(&pds.name, 0);
    let example = &refused.iter().find(|refused| refused.reason == Reason::SeqNotRising).unwrap().example;
    assert_eq!((example.seq, example.did.as_deref()), (Some(3), Some("did:web:account3.example.com")));
    assert_eq!((&*example.came, &*example.expected), ("seq 3", "a seq above 7, the last one"));

    assert_eq!(world.metric("mainstem_crawler_refusals_total"), 9.0);
    assert_eq!(pds.connects.load(std::sync::atomic::Ordering::Relaxed), 1, "one connection for all of it");
    world.intake.take(&[1, 2, 3, 4, 5, 6, 7, 8]);
    until("the cursor moved over them", || world.view(&pds).cursor.seq == Some(8)).await;
    world.stopped().await;
}

#[tokio::test]
async fn unknown_kinds_are_passed_over_and_move_the_cursor() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    // {op: 1, t: "#new"}, {seq: 2}
    let unknown = b"\xa2\x61t\x64#new\x62op\x01\xa1\x63seq\x02".to_vec();
    connection.events(&[1]).await;
    connection.send(unknown).await;
    world.intake.has(&[1]).await;
    world.intake.take(&[1]);
    until("the cursor moved over it", || world.view(&pds).cursor.seq == Some(2)).await;
    assert_eq!(world.metric("mainstem_crawler_refusals_total"), 0.0);
    world.stopped().await;
}

#[tokio::test]
async fn who_breaks_the_websocket_protocol_is_told_and_tried_again() {
    let (world, mut pds) = (World::new(quick()), Pds::new().await);
    world.read(&pds, Start::Oldest).await;
    let mut connection = pds.accept().await;
    // A frame with a reserved bit, written past tungstenite.
    connection.socket.get_mut().write_all(&[0xc2, 0x00]).await.unwrap();
    let Some(Message::Close(Some(close))) = connection.next().await else { panic!("no close frame") };
    assert_eq!(close.code, CloseCode::Protocol);
    pds.accept_at(Some(0)).await;
    assert_eq!(world.view(&pds).last_end.unwrap().end, End::Protocol);
    world.stopped().await;
}
