use futures::StreamExt;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::*;
use crate::{spdy::Headers, websocket::upgraded};

fn headers(kind: &str, port: &str, id: &str) -> Headers {
    Headers(vec![("streamtype".into(), kind.into()), ("port".into(), port.into()), ("requestid".into(), id.into())])
}

#[tokio::test]
async fn tunnelled_pairs_become_forwards() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let client = spdy::Connection::client(Tunnel::client(far).await).unwrap();
    let mut session = over_spdy(Tunnel::server(near).await).unwrap();
    client.open(&headers("error", "80", "1")).await.unwrap();
    client.open(&headers("error", "81", "2")).await.unwrap();
    let mut data = client.open(&headers("data", "81", "2")).await.unwrap();
    let mut forward = session.next().await.unwrap().unwrap();
    assert_eq!(forward.port, 81);
    data.output.write("ping".into()).await.unwrap();
    assert_eq!(forward.from_client.recv().await.unwrap(), "ping");
    forward.to_client.write("pong".into()).await.unwrap();
    assert_eq!(data.input.recv().await.unwrap(), "pong");
}

#[tokio::test]
async fn a_bad_port_is_an_error() {
    for port in ["0", "http", "70000", ""] {
        let (near, far) = tokio::io::duplex(4096);
        let client = spdy::Connection::client(far).unwrap();
        let mut session = over_spdy(near).unwrap();
        client.open(&headers("error", port, "1")).await.unwrap();
        assert!(session.next().await.unwrap().is_err(), "{port:?}");
    }
}

#[tokio::test]
async fn v4_channels_announce_their_port_first() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut session = over_websocket(near, &[80, 443]).await.unwrap();
    let mut client = upgraded(far, Role::Client).await;
    let forward = session.next().await.unwrap().unwrap();
    forward.to_client.write("x".into()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("the connection ended") };
        seen.push(bytes);
    }
    assert_eq!(seen, [&[0u8, 80, 0][..], &[1, 80, 0], &[2, 0xbb, 1], &[3, 0xbb, 1], b"\0x"]);
}
