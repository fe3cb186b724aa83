//! Exec, attach and port-forward as a client on the wire sees them.

use futures::{SinkExt as _, StreamExt as _};
use navarch_runtime::cri;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{Lab, Options, lab};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

struct Socket(WebSocketStream<UnixStream>);

impl Socket {
    async fn open(lab: &Lab, url: &str, protocol: &str) -> Socket {
        let token = url.rsplit('/').next().unwrap();
        let mut request = format!("ws://localhost/{token}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let stream = UnixStream::connect(lab.dir.join("stream.sock")).await.unwrap();
        Socket(tokio_tungstenite::client_async(request, stream).await.unwrap().0)
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message: Vec<u8> = [&[channel], bytes].concat();
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    /// The next message that is not empty.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let next = tokio::time::timeout(std::time::Duration::from_secs(10), self.0.next())
                .await
                .expect("a message in time");
            match next {
                Some(Ok(Message::Binary(message))) if message.len() > 1 => {
                    return Some((message[0], message[1..].to_vec()));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Reads until `text` has come on `channel`.
    async fn expect(&mut self, channel: u8, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let (from, bytes) =
                self.next().await.unwrap_or_else(|| panic!("closed after {seen:?}, waiting for {text:?}"));
            assert_eq!(from, channel, "{}", String::from_utf8_lossy(&bytes));
            seen += &String::from_utf8_lossy(&bytes);
        }
    }

    /// What comes until the end, by channel.
    async fn rest(mut self) -> [String; 4] {
        let mut all: [String; 4] = Default::default();
        while let Some((channel, bytes)) = self.next().await {
            if channel == CLOSE {
                continue;
            }
            all[usize::from(channel)] += &String::from_utf8_lossy(&bytes);
        }
        all
    }
}

async fn exec(lab: &mut Lab, container: &str, script: &str, stdin: bool, tty: bool) -> Socket {
    let cmd = vec!["sh".into(), "-c".into(), script.into()];
    let request = cri::ExecRequest { container_id: container.to_owned(), cmd, tty, stdin, stdout: true, stderr: !tty };
    let url = lab.runtime.exec(request).await.unwrap().into_inner().url;
    assert!(url.starts_with("http+unix://%2F"), "{url}");
    Socket::open(lab, &url, "v5.channel.k8s.io").await
}

#[test]
fn exec_streams() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("streams");
        let sandbox = lab.run_sandbox(&config).await;
        let id = lab.run(&sandbox, lab.shell("c", "sleep 1000")).await;

        let mut socket = exec(&mut lab, &id, "cat; echo err >&2; exit 3", true, false).await;
        socket.send(STDIN, b"first ").await;
        socket.expect(STDOUT, "first ").await;
        socket.send(STDIN, b"second").await;
        socket.send(CLOSE, &[STDIN]).await;
        let [_, out, err, status] = socket.rest().await;
        assert_eq!((out.as_str(), err.as_str()), ("second", "err\n"));
        assert!(status.contains("NonZeroExitCode") && status.contains("\"3\""), "{status}");

        let socket = exec(&mut lab, &id, "seq 20000", false, false).await;
        let [_, out, _, status] = socket.rest().await;
        assert_eq!((out.len(), status.contains("Success")), (108_894, true), "{status}");

        let mut socket = exec(&mut lab, &id, "stty size; read x; stty size; tty; echo got $x", true, true).await;
        socket.send(RESIZE, br#"{"Width":91,"Height":33}"#).await;
        socket.expect(STDOUT, "\n").await;
        socket.send(STDIN, b"hello\n").await;
        let [_, out, _, status] = socket.rest().await;
        assert!(out.contains("33 91") && out.contains("/dev/pts/") && out.contains("got hello"), "{out:?}");
        assert!(status.contains("Success"), "{status}");

        let request = cri::ExecRequest {
            container_id: id.clone(),
            cmd: vec!["nothing".into()],
            stdout: true,
            ..Default::default()
        };
        let url = lab.runtime.exec(request).await.unwrap().into_inner().url;
        let [_, _, _, status] = Socket::open(&lab, &url, "v4.channel.k8s.io").await.rest().await;
        assert!(status.contains("executable file not found"), "{status}");
    });
}

#[test]
fn attach_and_a_container_with_a_terminal() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("attach");
        let sandbox = lab.run_sandbox(&config).await;
        let interactive =
            cri::ContainerConfig { stdin: true, stdin_once: true, ..lab.shell("c", "echo up; cat; echo bye >&2") };
        let id = lab.run(&sandbox, interactive).await;
        let request =
            cri::AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
        let url = lab.runtime.attach(request).await.unwrap().into_inner().url;
        let mut socket = Socket::open(&lab, &url, "v5.channel.k8s.io").await;
        socket.send(STDIN, b"typed\n").await;
        socket.send(CLOSE, &[STDIN]).await;
        let [_, out, err, status] = socket.rest().await;
        assert!(out.ends_with("typed\n"), "{out:?}");
        assert_eq!((err.as_str(), status.contains("Success")), ("bye\n", true), "{status}");
        lab.exited(&id).await;
        assert_eq!(lab.output("attach", "c"), ["stdout F up", "stdout F typed", "stderr F bye"]);

        let terminal = cri::ContainerConfig {
            stdin: true,
            tty: true,
            ..lab.shell("t", "echo up; while read x; do echo got $x $(stty size); done")
        };
        let id = lab.run(&sandbox, terminal).await;
        let request =
            cri::AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: true };
        let url = lab.runtime.attach(request).await.unwrap().into_inner().url;
        let mut socket = Socket::open(&lab, &url, "v5.channel.k8s.io").await;
        socket.send(RESIZE, br#"{"Width":55,"Height":22}"#).await;
        // The size goes another way than the input: ask until it has arrived.
        let mut seen = String::new();
        while !seen.contains("got you 22 55") {
            socket.send(STDIN, b"you\n").await;
            let (channel, bytes) = socket.next().await.unwrap_or_else(|| panic!("closed after {seen:?}"));
            assert_eq!(channel, STDOUT);
            seen += &String::from_utf8_lossy(&bytes);
        }
        drop(socket);
        assert_eq!(lab.status(&id).await.state, cri::ContainerState::ContainerRunning as i32);
    });
}

#[test]
fn logs_are_reopened_after_a_rotation() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("rotate");
        let sandbox = lab.run_sandbox(&config).await;
        let id = lab.run(&sandbox, lab.shell("c", "while :; do echo line; sleep 0.02; done")).await;
        let path = lab.dir.join("logs/rotate/c.log");
        let lines = || std::fs::read_to_string(&path).unwrap_or_default().lines().count();
        crate::support::eventually(
            "there are lines",
            async || if lines() > 2 { Ok(()) } else { Err(lines().to_string()) },
        )
        .await;
        std::fs::rename(&path, path.with_extension("log.1")).unwrap();
        lab.runtime.reopen_container_log(cri::ReopenContainerLogRequest { container_id: id }).await.unwrap();
        crate::support::eventually(
            "there are new lines",
            async || if lines() > 2 { Ok(()) } else { Err(lines().to_string()) },
        )
        .await;
    });
}

#[test]
fn ports_are_forwarded_into_the_pod() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("ports");
        let sandbox = lab.run_sandbox(&config).await;
        let id = lab.run(&sandbox, lab.shell("c", "nc -l -p 8080 -e cat")).await;
        crate::support::eventually("the server listens", async || {
            let listens = lab.exec_sync(&id, "cat /proc/net/tcp /proc/net/tcp6 | grep ':1F90 '", 5).await.unwrap();
            if listens.exit_code == 0 { Ok(()) } else { Err(format!("{listens:?}")) }
        })
        .await;
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.clone(), port: vec![8080] };
        let url = lab.runtime.port_forward(request).await.unwrap().into_inner().url;
        let mut socket = Socket::open(&lab, &url, "v4.channel.k8s.io").await;
        let (mut told, mut answer) = (0, String::new());
        socket.send(0, b"hello\n").await;
        while !answer.contains("hello\n") {
            let (channel, bytes) = socket.next().await.unwrap();
            match (channel, told) {
                // Each channel begins with the number of its port.
                (_, 0 | 1) => {
                    assert_eq!(bytes, 8080_u16.to_le_bytes());
                    told += 1;
                }
                _ => answer += &String::from_utf8_lossy(&bytes),
            }
        }
    });
}
