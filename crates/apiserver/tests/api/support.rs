//! A server over a store in a temporary directory, called in this process.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use navarch_apiserver::{Body, Config, Server, ServiceAccountKeys, UserInfo};
use rcgen::KeyPair;
use serde_json::Value;
use store::Embedded;
use tempfile::TempDir;
use tower::Service;

pub(crate) struct Api {
    pub(crate) server: Arc<Server>,
    user: UserInfo,
    _directory: Arc<TempDir>,
}

/// An answer, its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The reason of a `Status`.
    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_string()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_string()
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(directory.path(), store::embedded::Options::default()).unwrap();
        let config = Config {
            service_accounts: Some(ServiceAccountKeys {
                keys: vec![navarch_apiserver::Pem::data(KeyPair::generate().unwrap().serialize_pem())],
                issuers: vec!["https://issuer.test".into()],
                audiences: Vec::new(),
            }),
            advertise_address: Some([192, 0, 2, 1].into()),
            ..Config::default()
        };
        let server = Server::new(config, Arc::new(store)).unwrap();
        server.bootstrap().await.unwrap();
        Self { server, user: UserInfo::master("admin"), _directory: Arc::new(directory) }
    }

    /// The same server, as somebody else.
    pub(crate) fn as_user(&self, user: UserInfo) -> Self {
        Self { server: self.server.clone(), user, _directory: self._directory.clone() }
    }

    pub(crate) async fn raw(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.server.service(self.user.clone()).call(request).await.unwrap()
    }

    pub(crate) async fn send(&self, method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("user-agent", "test/1")
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.raw(request).await;
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(Duration::from_secs(20), body.collect()).await.unwrap().unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", "").await
    }

    pub(crate) async fn post(&self, path: &str, object: Value) -> Answer {
        self.send(Method::POST, path, "application/json", object.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, object: Value) -> Answer {
        self.send(Method::PUT, path, "application/json", object.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, "", "").await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, patch: Value) -> Answer {
        self.send(Method::PATCH, path, kind, patch.to_string()).await
    }

    /// Creates an object that must be taken.
    pub(crate) async fn create(&self, path: &str, object: Value) -> Value {
        let answer = self.post(path, object).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.message());
        answer.json()
    }

    /// A watch, event by event.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let request = Request::get(path).body(Full::default()).unwrap();
        let response = self.raw(request).await;
        assert_eq!(response.status(), 200, "{path}");
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

pub(crate) struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// Type and object of the next event; panics when none comes within some seconds.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                return (event["type"].as_str().unwrap().to_string(), event["object"].take());
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await;
            let frame = frame.expect("no event came in time").expect("the watch ended").unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// `TYPE name` of the next events.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let (kind, object) = self.next().await;
            seen.push(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default()));
        }
        seen
    }
}
