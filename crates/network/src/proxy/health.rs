//! Health check node ports: load balancers ask here whether this node has endpoints of its own.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use client::Key;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::model::Health;

/// The running checks, by Service.
#[derive(Default)]
pub(super) struct Checks(HashMap<Key, Check>);

struct Check {
    port: u16,
    local_endpoints: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    /// Starts, changes or ends the check of a Service.
    pub(super) fn set(&mut self, key: &Key, health: Option<Health>) {
        let Some(health) = health else {
            self.0.remove(key);
            return;
        };
        if let Some(check) = self.0.get(key).filter(|check| check.port == health.port) {
            *check.local_endpoints.lock() = health.local_endpoints;
            return;
        }
        let local_endpoints = Arc::new(Mutex::new(health.local_endpoints));
        let task = tokio::spawn(serve(key.clone(), health.port, Arc::clone(&local_endpoints)));
        self.0.insert(key.clone(), Check { port: health.port, local_endpoints, task });
    }
}

/// Plain HTTP, as the protocol of load balancers' health checks is.
async fn serve(key: Key, port: u16, local_endpoints: Arc<Mutex<usize>>) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(service = %key, port, %error, "cannot listen on the health check node port");
            return;
        }
    };
    while let Ok((stream, _)) = listener.accept().await {
        let count = *local_endpoints.lock();
        tokio::spawn(answer(stream, key.clone(), count));
    }
}

async fn answer(mut stream: TcpStream, key: Key, count: usize) {
    let mut request = [0; 1024];
    // Whatever is asked, the answer is the same; a client that is gone needs none.
    if stream.read(&mut request).await.is_err() {
        return;
    }
    let code = if count > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = format!(
        "{{\"service\":{{\"namespace\":{:?},\"name\":{:?}}},\"localEndpoints\":{count}}}",
        key.namespace, key.name
    );
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nX-Load-Balancing-Endpoint-Weight: {count}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}
