//! The conformance suite against a real etcd, which is started for it.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use super::*;
use crate::{cache, conformance};

/// A running etcd; killed with its data when dropped.
struct Server {
    process: Child,
    endpoint: String,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Starts a server and waits until it answers.
async fn start() -> (Server, Etcd) {
    let dir = tempfile::tempdir().unwrap();
    let free = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [0, 1].map(free).map(|listener| listener.local_addr().unwrap().port());
    let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let process = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path())
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed: apt-get install etcd-server");
    let options = Options { endpoints: vec![client.clone()], ..Options::default() };
    let store = Etcd::connect(&options).unwrap();
    let mut last = None;
    for _ in 0..200 {
        match store.revision().await {
            Ok(_) => return (Server { process, endpoint: client, _dir: dir }, store),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("etcd does not answer at {client}: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite() {
    let servers = Mutex::new(Vec::new());
    conformance::all(async || {
        let (server, store) = start().await;
        servers.lock().unwrap().push(server);
        store
    })
    .await;
}

struct Length(usize);

impl cache::Attributes for Length {
    fn of(_key: &str, value: &Bytes) -> Self {
        Self(value.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_over_it_is_consistent() {
    let (_server, store) = start().await;
    let store = Arc::new(store);
    let limits = cache::Limits::default();
    let cache = cache::Cache::<Length>::new(store.clone(), "/p/", limits, crate::Metrics::default());
    for round in 0..20 {
        conformance::commit(&*store, conformance::put(&format!("/p/{round}"), vec![b'x'; round])).await;
        let last = conformance::commit(&*store, conformance::put("/elsewhere", "x")).await;
        let (items, revision) = cache.list("/p/").await.unwrap();
        assert!(revision >= last);
        assert_eq!(items.iter().map(|item| item.attrs.0).max(), Some(round));
    }
}

#[tokio::test]
async fn an_absent_server_is_an_error_that_says_so() {
    let (server, store) = start().await;
    let endpoint = server.endpoint.clone();
    drop(server);
    let error = store.revision().await.unwrap_err();
    assert!(matches!(&error, Error::Backend(why) if why.starts_with("etcd: ")), "{endpoint}: {error}");
    assert!(matches!(Etcd::connect(&Options::default()), Err(ConnectError::NoEndpoint)));
}
