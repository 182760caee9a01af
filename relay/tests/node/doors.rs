//! Who gets in: limits in all, by address and by token, whom a proxy serves, and what the others are told.

use std::collections::VecDeque;

use futures_util::StreamExt;
use relay::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error as WsError, client::IntoClientRequest, http::HeaderValue},
};

use crate::harness::{LONG, Relay, Subscriber, config};

/// Subscribes with more headers. Gives the status and the error's name where it is refused.
async fn subscribe(relay: &Relay, headers: &[(&'static str, &str)]) -> Result<Subscriber, (u16, String)> {
    let url = format!("ws://{}/xrpc/com.atproto.sync.subscribeRepos", relay.public);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(Subscriber { socket }),
        Err(WsError::Http(answer)) => {
            let body = String::from_utf8(answer.body().clone().unwrap()).unwrap();
            Err((answer.status().as_u16(), body.split('"').nth(3).unwrap().to_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn refused(relay: &Relay, headers: &[(&'static str, &str)]) -> (u16, String) {
    subscribe(relay, headers).await.err().expect("let in")
}

fn with_tokens(args: &[&str], tokens: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tokens).unwrap();
    config(&[args, &["--subscriber-token-file", file.path().to_str().unwrap()]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_a_proxy_are_counted_each_for_itself() {
    let relay = Relay::start(config(&["--subscribers-per-address", "2", "--subscribers-max", "6"])).await;
    let told = |client: &'static str| [("x-forwarded-for", client)];
    let mut inside = Vec::new();
    // What clients write themselves stands left of what the proxy adds.
    for forged in ["192.0.2.1", "1.1.1.1, 192.0.2.1"] {
        inside.push(subscribe(&relay, &told(forged)).await.unwrap());
    }
    let too_many = (429, "RateLimitExceeded".to_owned());
    assert_eq!(refused(&relay, &told("2.2.2.2, 192.0.2.1")).await, too_many);
    for neighbour in ["192.0.2.2", "2001:db8::1", "2001:db8::2"] {
        inside.push(subscribe(&relay, &told(neighbour)).await.unwrap());
    }
    assert_eq!(refused(&relay, &told("2001:db8::3")).await, too_many);
    inside.push(subscribe(&relay, &told("2001:db8:0:1::3")).await.unwrap());
    assert_eq!(refused(&relay, &told("192.0.2.3")).await, (503, "NotEnoughResources".to_owned()));

    let clients: Vec<_> = relay.app.roster.list().iter().map(|view| view.guest.client.unwrap().to_string()).collect();
    assert_eq!(clients, ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::3"]);
    assert_eq!(relay.metric("mainstem_fanout_refused_total{reason=\"address_full\"}").await, 2.0);
    assert_eq!(relay.metric("mainstem_fanout_refused_total{reason=\"full\"}").await, 1.0);
    let away: Vec<_> = relay.app.roster.list_turned_away().iter().map(|row| row.client.unwrap().to_string()).collect();
    assert_eq!(away, ["192.0.2.3", "2001:db8::", "192.0.2.1"]);

    // Who goes makes room.
    drop(inside.remove(0));
    relay.wait_for_metric("mainstem_fanout_subscribers", 5.0).await;
    inside.push(subscribe(&relay, &told("192.0.2.1")).await.unwrap());
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_not_trusted_is_a_client_like_others() {
    let relay = Relay::start(config(&["--subscribers-per-address", "2", "--trusted-proxies", "none"])).await;
    let _inside = [
        subscribe(&relay, &[("x-forwarded-for", "192.0.2.1")]).await.unwrap(),
        subscribe(&relay, &[("x-forwarded-for", "192.0.2.2")]).await.unwrap(),
    ];
    assert_eq!(refused(&relay, &[("x-forwarded-for", "192.0.2.3")]).await.0, 429);
    let views = relay.app.roster.list();
    assert!(views.iter().all(|view| view.guest.client.unwrap().is_loopback()));
    assert_eq!(views[1].guest.forwarded_for.as_deref(), Some("192.0.2.2"), "shown as what it is: hearsay");
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn development_on_loopback_is_not_limited_by_address() {
    let relay = Relay::start(config(&["--subscribers-per-address", "1"])).await;
    let _inside = [subscribe(&relay, &[]).await.unwrap(), subscribe(&relay, &[]).await.unwrap()];
    relay.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_token_finds_its_seats_free() {
    let args = ["--subscribers-max", "1", "--subscribers-per-address", "1", "--trusted-proxies", "none"];
    let tokens = "# whom we know\nappview: 0123456789abcdef max=2\nsearch:fedcba9876543210\n";
    let relay = Relay::start(with_tokens(&args, tokens)).await;
    let stranger = subscribe(&relay, &[]).await.unwrap();
    assert_eq!(refused(&relay, &[]).await.0, 429);
    let appview = [("authorization", "Bearer 0123456789abcdef")];
    let mut inside = vec![subscribe(&relay, &appview).await.unwrap(), subscribe(&relay, &appview).await.unwrap()];
    assert_eq!(refused(&relay, &appview).await, (429, "RateLimitExceeded".to_owned()));
    inside.push(subscribe(&relay, &[("authorization", "Bearer fedcba9876543210")]).await.unwrap());
    let wrong = refused(&relay, &[("authorization", "Bearer fedcba987654321O")]).await;
    assert_eq!(wrong, (401, "AuthenticationRequired".to_owned()));

    let tokens: Vec<_> = relay.app.roster.list().into_iter().map(|view| view.guest.pass).collect();
    let names: Vec<_> = tokens.iter().map(|pass| pass.as_ref().map(|pass| &*pass.name)).collect();
    assert_eq!(names, [None, Some("appview"), Some("appview"), Some("search")]);
    let away = relay.app.roster.list_turned_away();
    assert_eq!((away[1].token.as_deref(), away[1].reason.as_str()), (Some("appview"), "token_full"));
    assert_eq!(relay.metric("mainstem_fanout_refused_total{reason=\"wrong_token\"}").await, 1.0);
    relay.append(3, 200).await;
    for subscriber in inside.iter_mut().chain([&mut { stranger }]) {
        subscriber.expect_events(1, 3).await;
    }
    relay.drain().await;
}

/// A stranger's flood of connections, most of which say nothing and wait: those within the limit are kept for the time
/// that a request has, the others are told and closed, and who comes from elsewhere notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_one_address_is_bounded_before_it_says_a_word() {
    const CONNECTIONS: usize = 10_000;
    let relay = Relay::start(config(&["--subscribers-per-address", "10", "--trusted-proxies", "127.0.0.2"])).await;
    let mut neighbour = subscribe(&relay, &[]).await.unwrap();
    relay.wait_for_metric("mainstem_fanout_subscribers", 1.0).await;

    // Those who are turned away are not waited for, nor do they have to wait long for others.
    let mut open = VecDeque::new();
    for n in 0..CONNECTIONS {
        let mut socket = TcpStream::connect(relay.public).await.unwrap();
        if n % 2 == 0 {
            // Half a handshake.
            let _ = socket.write_all(b"GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nupgrade: webso").await;
        }
        if open.len() > 300 {
            open.remove(200);
        }
        open.push_back(socket);
    }
    // Ten seats and a hundred for what is not a stream.
    relay.wait_for_metric("mainstem_http_connections{listener=\"public\"}", 110.0).await;
    relay
        .wait_for_metric(
            "mainstem_http_refused_total{listener=\"public\",reason=\"address_full\"}",
            (CONNECTIONS - 110) as f64,
        )
        .await;
    let mut answer = Vec::new();
    let told = tokio::time::timeout(LONG, open[110].read_to_end(&mut answer)).await.expect("it is closed");
    assert!(told.is_err() || answer.starts_with(b"HTTP/1.1 429 "), "{answer:?}");

    relay.append(5, 500).await;
    neighbour.expect_events(1, 5).await;
    // Another address finds the door open.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(relay.public).await.unwrap();
    let url = format!("ws://{}/xrpc/com.atproto.sync.subscribeRepos?cursor=0", relay.public);
    let (mut other, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let first = tokio::time::timeout(LONG, other.next()).await.unwrap().unwrap().unwrap();
    assert!(first.is_binary());

    // Who has not asked by then is gone, and the room is free again.
    let closed = async {
        for socket in &mut open {
            while socket.read(&mut [0; 256]).await.is_ok_and(|n| n > 0) {}
        }
    };
    tokio::time::timeout(LONG, closed).await.expect("they are kept");
    relay.wait_for_metric("mainstem_http_connections{listener=\"public\"}", 0.0).await;
    assert_eq!(relay.metric("mainstem_http_ended_total{listener=\"public\",reason=\"no_request\"}").await, 110.0);
    relay.append(1, 500).await;
    neighbour.expect_events(6, 6).await;
    relay.drain().await;
}
