//! subscribeRepos with permessage-deflate: the same events, compressed once for all who asked, where the operator wants it.

use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderMap;
use runtime::ws::{self, CloseCode, Decoder, Deflater, Event, Role, Socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{LONG, Relay, accepted, config, serve};

/// A subscriber that offers compression.
struct Client {
    stream: TcpStream,
    decoder: Decoder,
    input: Bytes,
    /// Whether the relay has taken it up.
    deflate: bool,
}

impl Client {
    async fn connect(relay: &Relay, query: &str) -> Client {
        let request = ws::Request {
            authority: relay.public.to_string(),
            target: format!("/xrpc/com.atproto.sync.subscribeRepos{query}"),
            headers: HeaderMap::new(),
            deflate: true,
        };
        let stream = TcpStream::connect(relay.public).await.unwrap();
        let Socket { stream, read, deflate } = ws::connect(stream, request, LONG).await.unwrap();
        let decoder = Decoder::new(Role::Client, 5 << 20).taking_deflated(deflate);
        Client { stream, decoder, input: read, deflate }
    }

    async fn next(&mut self) -> Event {
        loop {
            let mut rest = &self.input[..];
            let event = self.decoder.next(&mut rest).unwrap();
            self.input = self.input.slice_ref(rest);
            if let Some(event) = event {
                return event;
            }
            let mut buffer = vec![0; 64 << 10];
            let n = tokio::time::timeout(LONG, self.stream.read(&mut buffer)).await.expect("nothing came").unwrap();
            assert!(n > 0, "the end");
            buffer.truncate(n);
            self.input = buffer.into();
        }
    }

    async fn frames(&mut self, count: usize) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while frames.len() < count {
            match self.next().await {
                Event::Message { payload, .. } => frames.push(payload),
                Event::Ping(_) => {}
                event => panic!("{event:?}"),
            }
        }
        frames
    }
}

async fn plain_frames(relay: &Relay, query: &str, count: usize) -> Vec<Bytes> {
    let mut subscriber = relay.subscribe(query).await;
    let mut frames = Vec::new();
    while frames.len() < count {
        let message = tokio::time::timeout(LONG, subscriber.socket.next()).await.expect("nothing came");
        if let Message::Binary(frame) = message.unwrap().unwrap() {
            frames.push(frame);
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_gets_the_same_events_compressed_once_for_all() {
    const READ: &str = "mainstem_fanout_deflate_read_bytes_total";
    const MADE: &str = "mainstem_fanout_deflate_made_bytes_total";
    let mut config = config(&["--compression", "on"]);
    serve(&mut config).hub.ring_bytes = 64 << 10;
    serve(&mut config).hub.chunk_bytes = 16 << 10;
    let relay = Relay::start(config).await;
    let mut live = [Client::connect(&relay, "").await, Client::connect(&relay, "").await];
    assert!(live.iter().all(|client| client.deflate));
    let bystander = relay.subscribe("").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 3.0).await;
    relay.append(10, 5_000).await;
    let first = plain_frames(&relay, "?cursor=0", 10).await;
    for client in &mut live {
        assert_eq!(client.frames(10).await, first);
    }
    let once: usize = first.iter().map(|frame| frame.len() + 4).sum();
    assert_eq!(relay.metric(READ).await, once as f64, "once for both");
    assert!(relay.metric(MADE).await < once as f64 / 5.0, "it is one letter over and over");
    drop(bystander);

    // Past what the ring holds, so that some read behind it, and a shard of it.
    relay.append(200, 5_000).await;
    let all = plain_frames(&relay, "?cursor=0", 210).await;
    let mut replaying = Client::connect(&relay, "?cursor=0").await;
    assert_eq!(replaying.frames(210).await, all);
    let mut part = Client::connect(&relay, "?cursor=0&shard=0/1").await;
    assert_eq!(part.frames(210).await, all);
    for client in &mut live {
        assert_eq!(client.frames(200).await, all[10..]);
    }
    assert!(relay.metric("mainstem_fanout_deflated_bytes").await > 0.0);
    relay.append(1, 300).await;
    let last = plain_frames(&relay, "?cursor=210", 1).await;
    assert_eq!(replaying.frames(1).await, last, "live from there");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_off_unless_the_operator_wants_it() {
    let relay = Relay::start(config(&[])).await;
    let mut client = Client::connect(&relay, "").await;
    assert!(!client.deflate);
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    relay.append(1, 5_000).await;
    assert_eq!(client.frames(1).await[0].len(), plain_frames(&relay, "?cursor=0", 1).await[0].len());
    assert_eq!(relay.metric("mainstem_fanout_deflate_read_bytes_total").await, 0.0);
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_takedown_are_withheld_from_who_reads_compressed() {
    let relay = Relay::start(config(&["--compression", "on"])).await;
    let mut client = Client::connect(&relay, "").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    let mut taken_down = accepted("did:plc:ewvi7nxzyoun6zhxrhs64oiz", 500);
    taken_down.state.local = storage::repos::LocalStatus::TakenDown;
    let other = || accepted("did:plc:oky5czdrnfjpqslsw2a5iclo", 500);
    relay.append(3, 500).await;
    client.frames(3).await;
    relay.stores.log.append(vec![other(), taken_down, other()]).await.unwrap();
    client.frames(3).await;
    let served = plain_frames(&relay, "?cursor=0", 3).await;
    let mut replaying = Client::connect(&relay, "?cursor=0").await;
    assert_eq!(replaying.frames(3).await, served, "the takedown and the other's");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subscriber_sends_compressed_is_ignored_within_limits() {
    let relay = Relay::start(config(&["--compression", "on"])).await;
    let mut client = Client::connect(&relay, "").await;
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;
    let message = |bytes: usize| {
        let mut payload = Vec::new();
        assert!(Deflater::new(6).deflate(&vec![b'x'; bytes], &mut payload));
        let mut frame = ws::deflated_header(ws::Data::Binary, payload.len()).as_bytes().to_vec();
        frame[1] |= 0x80;
        // A mask of zeros changes nothing.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&payload);
        frame
    };
    client.stream.write_all(&message(1_000)).await.unwrap();
    relay.append(1, 300).await;
    client.frames(1).await;
    // Far less than the limit as it comes, far more when it is inflated.
    client.stream.write_all(&message(20 << 20)).await.unwrap();
    let Event::Close { code, .. } = client.next().await else { panic!("not closed") };
    assert_eq!(code, Some(CloseCode::TOO_LARGE));
    relay.drain().await;
}
