use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::*;
use crate::{spdy::Headers, websocket::upgraded};

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

#[tokio::test]
async fn v5_channels_carry_the_streams_and_the_exit_code() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut session = over_websocket(near, ALL, true).await.unwrap();
    let mut client = upgraded(far, Role::Client).await;
    client.send(Message::binary(&b"\0hello"[..])).await.unwrap();
    client.send(Message::binary(&[255u8, 0][..])).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    assert_eq!(stdin.recv().await.unwrap(), "hello");
    assert!(stdin.recv().await.is_none(), "the client closed stdin");

    session.stdout.as_ref().unwrap().write("out".into()).await.unwrap();
    session.finish(Outcome::Exit(3)).await.unwrap();
    let mut seen = Vec::new();
    while let Some(Ok(Message::Binary(bytes))) = client.next().await {
        seen.push(bytes);
    }
    assert_eq!(&seen[..4], [&b"\x01"[..], b"\x02", b"\x03", b"\x01out"]);
    let status = seen.iter().rfind(|message| message[0] == ERROR && message.len() > 1).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn spdy_streams_are_sorted_by_type_whatever_their_order() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let client = spdy::Connection::client(far).unwrap();
    let mut streams = Vec::new();
    for kind in ["error", "stdin", "stdout", "stderr"] {
        streams.push(client.open(&Headers(vec![("streamtype".into(), kind.into())])).await.unwrap());
    }
    let mut session = over_spdy(spdy::Connection::server(near).unwrap(), ALL).await.unwrap();
    streams[1].output.write("in".into()).await.unwrap();
    assert_eq!(session.stdin.as_mut().unwrap().recv().await.unwrap(), "in");
    session.stderr.as_ref().unwrap().write("err".into()).await.unwrap();
    session.finish(Outcome::Exit(0)).await.unwrap();
    assert_eq!(streams[3].input.recv().await.unwrap(), "err");
    let status: serde_json::Value = serde_json::from_slice(&streams[0].input.recv().await.unwrap()).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn sizes_survive_being_cut_and_glued() {
    let (sender, input) = mpsc::channel(8);
    let mut resize = Resize { input, partial: Vec::new() };
    for part in [&br#"{"Width":80,"#[..], br#""Height":24}"#, b"\n{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4}"]
    {
        sender.send(Bytes::from_static(part)).await.unwrap();
    }
    drop(sender);
    let mut sizes = Vec::new();
    while let Some(Size { width, height }) = resize.next().await {
        sizes.push((width, height));
    }
    assert_eq!(sizes, [(80, 24), (1, 2), (3, 4)]);
}
