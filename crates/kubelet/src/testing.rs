//! What worker tests run against: a runtime and an API in memory.
//!
//! The runtime answers CRI over a real unix socket with the calls that a pod's life needs; the API answers just enough
//! for informers and events, and keeps the statuses and deletions of pods.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use client::Informers;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::cri::v1;
use crate::shared::Shared;

/// Nanoseconds since the epoch that grow by a second with each reading, so that orders by time are stable.
static CLOCK: AtomicU64 = AtomicU64::new(1_700_000_000);

fn now() -> i64 {
    i64::try_from(CLOCK.fetch_add(1, Ordering::Relaxed)).unwrap() * 1_000_000_000
}

#[derive(Default)]
struct State {
    sandboxes: Vec<(v1::PodSandboxConfig, v1::PodSandbox)>,
    containers: Vec<v1::ContainerStatus>,
    sandbox_of: HashMap<String, String>,
    images: Vec<String>,
    /// Error texts by call: each call of that name fails with it.
    failures: HashMap<&'static str, String>,
    calls: Vec<String>,
    next: u32,
}

/// A CRI runtime in memory.
#[derive(Clone, Default)]
pub(crate) struct FakeRuntime(Arc<Mutex<State>>);

type Reply = Result<Vec<u8>, tonic::Status>;

impl FakeRuntime {
    pub(crate) fn with_image(self, image: &str) -> Self {
        self.0.lock().images.push(image.to_owned());
        self
    }

    pub(crate) fn fail(&self, call: &'static str, text: &str) {
        self.0.lock().failures.insert(call, text.to_owned());
    }

    pub(crate) fn mend(&self, call: &str) {
        self.0.lock().failures.remove(call);
    }

    /// Ends the running container of that name.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let mut state = self.0.lock();
        let running = v1::ContainerState::ContainerRunning;
        let found = state.containers.iter_mut().rev().find(|one| named(one, name) && one.state() == running);
        end(found.expect("no such container runs"), code);
    }

    /// Makes every sandbox unusable, as a reboot does.
    pub(crate) fn lose_sandboxes(&self) {
        let mut state = self.0.lock();
        for (_, sandbox) in &mut state.sandboxes {
            sandbox.set_state(v1::PodSandboxState::SandboxNotready);
        }
        for container in &mut state.containers {
            end(container, 255);
        }
    }

    pub(crate) fn add_image(&self, image: &str) {
        self.0.lock().images.push(image.to_owned());
    }

    /// Calls that changed something, oldest first: `run`, `create a`, `start a`, `stop a`, ...
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.lock().calls.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let state = self.0.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    fn serve(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let runtime = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let runtime = runtime.clone();
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let runtime = runtime.clone();
                    async move {
                        let call = request.uri().path().rsplit('/').next().unwrap().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        Ok::<_, Infallible>(grpc(runtime.answer(&call, &body[5..])))
                    }
                });
                tokio::spawn(async move {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    }

    fn answer(&self, call: &str, body: &[u8]) -> Reply {
        let mut state = self.0.lock();
        if let Some(text) = state.failures.get(call) {
            return Err(tonic::Status::unknown(text.clone()));
        }
        match call {
            "Version" => reply(v1::VersionResponse { runtime_name: "fake".into(), ..Default::default() }),
            "ListPodSandbox" => {
                let filter = decode::<v1::ListPodSandboxRequest>(body).filter.unwrap_or_default().label_selector;
                let items = state.sandboxes.iter().map(|(_, sandbox)| sandbox.clone());
                reply(v1::ListPodSandboxResponse { items: items.filter(|one| has(&one.labels, &filter)).collect() })
            }
            "PodSandboxStatus" => {
                let id = decode::<v1::PodSandboxStatusRequest>(body).pod_sandbox_id;
                let (_, sandbox) = state.sandboxes.iter().find(|(_, one)| one.id == id).ok_or_else(gone)?;
                reply(v1::PodSandboxStatusResponse {
                    status: Some(v1::PodSandboxStatus {
                        id,
                        state: sandbox.state,
                        network: Some(v1::PodSandboxNetworkStatus { ip: "10.0.0.7".into(), ..Default::default() }),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
            }
            "RunPodSandbox" => {
                let config = decode::<v1::RunPodSandboxRequest>(body).config.unwrap();
                state.next += 1;
                let id = format!("s{}", state.next);
                state.calls.push("run".into());
                let sandbox = v1::PodSandbox {
                    id: id.clone(),
                    metadata: config.metadata.clone(),
                    created_at: now(),
                    labels: config.labels.clone(),
                    ..Default::default()
                };
                state.sandboxes.push((config, sandbox));
                reply(v1::RunPodSandboxResponse { pod_sandbox_id: id })
            }
            "StopPodSandbox" => {
                let id = decode::<v1::StopPodSandboxRequest>(body).pod_sandbox_id;
                let found = state.sandboxes.iter_mut().find(|(_, one)| one.id == id);
                found.ok_or_else(gone)?.1.set_state(v1::PodSandboxState::SandboxNotready);
                reply(v1::StopPodSandboxResponse {})
            }
            "RemovePodSandbox" => {
                let id = decode::<v1::RemovePodSandboxRequest>(body).pod_sandbox_id;
                state.sandboxes.retain(|(_, one)| one.id != id);
                reply(v1::RemovePodSandboxResponse {})
            }
            "ListContainers" => {
                let filter = decode::<v1::ListContainersRequest>(body).filter.unwrap_or_default().label_selector;
                let matching = state.containers.iter().filter(|one| has(&one.labels, &filter));
                let containers = matching.map(|one| v1::Container {
                    id: one.id.clone(),
                    pod_sandbox_id: state.sandbox_of[&one.id].clone(),
                    state: one.state,
                    labels: one.labels.clone(),
                    ..Default::default()
                });
                reply(v1::ListContainersResponse { containers: containers.collect() })
            }
            "ContainerStatus" => {
                let id = decode::<v1::ContainerStatusRequest>(body).container_id;
                let status = state.containers.iter().find(|one| one.id == id).cloned().ok_or_else(gone)?;
                reply(v1::ContainerStatusResponse { status: Some(status), ..Default::default() })
            }
            "CreateContainer" => {
                let request = decode::<v1::CreateContainerRequest>(body);
                let config = request.config.unwrap();
                state.next += 1;
                let id = format!("c{}", state.next);
                let name = config.metadata.as_ref().unwrap().name.clone();
                state.calls.push(format!("create {name}"));
                state.sandbox_of.insert(id.clone(), request.pod_sandbox_id);
                state.containers.push(v1::ContainerStatus {
                    id: id.clone(),
                    metadata: config.metadata,
                    created_at: now(),
                    image: config.image,
                    labels: config.labels,
                    annotations: config.annotations,
                    mounts: config.mounts,
                    ..Default::default()
                });
                reply(v1::CreateContainerResponse { container_id: id })
            }
            "StartContainer" => {
                let id = decode::<v1::StartContainerRequest>(body).container_id;
                let found = state.containers.iter_mut().find(|one| one.id == id).ok_or_else(gone)?;
                found.set_state(v1::ContainerState::ContainerRunning);
                found.started_at = now();
                let call = format!("start {}", found.metadata.as_ref().unwrap().name);
                state.calls.push(call);
                reply(v1::StartContainerResponse {})
            }
            "StopContainer" => {
                let id = decode::<v1::StopContainerRequest>(body).container_id;
                let found = state.containers.iter_mut().find(|one| one.id == id).ok_or_else(gone)?;
                end(found, 137);
                let call = format!("stop {}", found.metadata.as_ref().unwrap().name);
                state.calls.push(call);
                reply(v1::StopContainerResponse {})
            }
            "RemoveContainer" => {
                let id = decode::<v1::RemoveContainerRequest>(body).container_id;
                state.containers.retain(|one| one.id != id);
                reply(v1::RemoveContainerResponse {})
            }
            "ImageStatus" => {
                let image = decode::<v1::ImageStatusRequest>(body).image.unwrap_or_default().image;
                let found = state.images.contains(&image);
                let image = found.then(|| v1::Image { id: image, size: 7, ..Default::default() });
                reply(v1::ImageStatusResponse { image, ..Default::default() })
            }
            "PullImage" => {
                let image = decode::<v1::PullImageRequest>(body).image.unwrap_or_default().image;
                state.calls.push(format!("pull {image}"));
                state.images.push(image.clone());
                reply(v1::PullImageResponse { image_ref: image })
            }
            other => Err(tonic::Status::unimplemented(other.to_owned())),
        }
    }
}

fn named(container: &v1::ContainerStatus, name: &str) -> bool {
    container.metadata.as_ref().is_some_and(|metadata| metadata.name == name)
}

fn end(container: &mut v1::ContainerStatus, code: i32) {
    if container.state() != v1::ContainerState::ContainerExited {
        container.set_state(v1::ContainerState::ContainerExited);
        container.exit_code = code;
        // Just now by the real clock: back-off counts from here.
        container.finished_at = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    }
}

fn has(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn gone() -> tonic::Status {
    tonic::Status::not_found("gone")
}

fn decode<M: Message + Default>(body: &[u8]) -> M {
    M::decode(body).unwrap()
}

fn reply(message: impl Message) -> Reply {
    Ok(message.encode_to_vec())
}

type GrpcBody = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

/// One gRPC answer: a length-prefixed message and the status in the trailers.
fn grpc(reply: Reply) -> http::Response<GrpcBody> {
    let mut frames = Vec::new();
    let mut trailers = http::HeaderMap::new();
    match reply {
        Ok(message) => {
            let mut data = BytesMut::new();
            data.put_u8(0);
            data.put_u32(u32::try_from(message.len()).unwrap());
            data.extend_from_slice(&message);
            frames.push(Ok(Frame::data(data.freeze())));
            trailers.insert("grpc-status", 0.into());
        }
        Err(status) => {
            trailers.insert("grpc-status", (status.code() as i32).into());
            trailers.insert("grpc-message", status.message().parse().unwrap());
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures::stream::iter(frames));
    http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

#[derive(Default)]
struct Written {
    statuses: HashMap<String, Value>,
    deleted: Vec<String>,
    events: Vec<String>,
}

/// As much of an API server as a pod worker talks to.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<Written>>);

impl FakeApi {
    pub(crate) fn status(&self, pod: &str) -> Value {
        self.0.lock().statuses.get(pod).cloned().unwrap_or_default()
    }

    pub(crate) fn deleted(&self) -> Vec<String> {
        self.0.lock().deleted.clone()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.0.lock().events.clone()
    }

    fn client(&self) -> client::Client {
        let api = self.clone();
        client::in_process(tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }))
    }

    async fn answer(&self, request: http::Request<kube::client::Body>) -> http::Response<axum::body::Body> {
        let (parts, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().split('/').collect();
        if parts.uri.query().is_some_and(|query| query.contains("watch=")) {
            let never = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>().boxed();
            return http::Response::new(axum::body::Body::new(StreamBody::new(never)));
        }
        let answer = match (parts.method.as_str(), path.as_slice()) {
            ("PATCH", [.., "pods", name, "status"]) => {
                let mut written = self.0.lock();
                let status = written.statuses.entry((*name).to_owned()).or_insert_with(|| json!({}));
                merge(status, &body["status"]);
                json!({"apiVersion": "v1", "kind": "Pod", "status": status,
                       "metadata": {"name": name, "namespace": "n", "uid": body["metadata"]["uid"]}})
            }
            ("DELETE", [.., "pods", name]) => {
                self.0.lock().deleted.push((*name).to_owned());
                json!({"apiVersion": "v1", "kind": "Status", "status": "Success"})
            }
            ("POST" | "PATCH", [.., "events"] | [.., "events", _]) => {
                let text = format!(
                    "{} {}",
                    body["reason"].as_str().unwrap_or_default(),
                    body["message"].as_str().or(body["note"].as_str()).unwrap_or_default()
                );
                self.0.lock().events.push(text);
                body
            }
            ("GET", [.., "services"]) => {
                json!({"apiVersion": "v1", "kind": "ServiceList", "metadata": {"resourceVersion": "1"}, "items": []})
            }
            _ => {
                let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
                let body = Full::new(Bytes::from(status.to_string()));
                return http::Response::builder().status(404).body(axum::body::Body::new(body)).unwrap();
            }
        };
        http::Response::new(axum::body::Body::new(Full::new(Bytes::from(answer.to_string()))))
    }
}

/// Enough of a strategic merge for what a publisher sends.
fn merge(into: &mut Value, patch: &Value) {
    for (name, value) in patch.as_object().into_iter().flatten() {
        if name == "conditions" {
            let mut all: Vec<Value> = into["conditions"].as_array().cloned().unwrap_or_default();
            for one in value.as_array().into_iter().flatten() {
                all.retain(|old| old["type"] != one["type"]);
                all.push(one.clone());
            }
            into["conditions"] = all.into();
        } else if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            let directive = |one: &Value| one.get("$patch").is_some();
            into[name] = match value {
                Value::Array(list) => list.iter().filter(|one| !directive(one)).cloned().collect(),
                other => other.clone(),
            };
        }
    }
}

/// A node in a temporary directory.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: FakeRuntime,
    pub(crate) api: FakeApi,
    _directory: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new(runtime: FakeRuntime) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let api = FakeApi::default();
        let informers = Informers::new(api.client(), CancellationToken::new());
        std::fs::create_dir(directory.path().join("cgroup")).unwrap();
        let config = Config {
            log_dir: directory.path().join("logs"),
            runtime_socket: directory.path().join("cri.sock"),
            cgroup_mount: directory.path().join("cgroup"),
            node_ips: vec!["192.0.2.1".parse().unwrap()],
            ..Config::new("node", directory.path(), informers)
        };
        runtime.serve(&config.runtime_socket);
        let shared = crate::shared(config);
        let _ = shared.runtime_name.set("fake".to_owned());
        Self { shared, runtime, api, _directory: directory }
    }
}

/// Waits until `check` gives something; fails with what `last` shows.
pub(crate) async fn eventually<T>(check: impl Fn() -> Option<T>, last: impl Fn() -> String) -> T {
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(tokio::time::Instant::now() < limit, "still waiting; last seen: {}", last());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
