//! A scripted API: what a client needs to be tested against, with its failures on demand.
//!
//! Speaks list (paged), watch, get, create, replace and merge patch for any collection, by path. Knows no kind, and
//! nothing of validation: the server itself has its own tests.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

type Body = BoxBody<Bytes, Infallible>;
/// Namespace (empty if there is none) and name.
type Id = (String, String);

/// One change, as watchers are told of it.
#[derive(Clone)]
struct Change {
    revision: u64,
    collection: String,
    kind: &'static str,
    object: Value,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By collection, such as `/api/v1/services`.
    objects: BTreeMap<String, BTreeMap<Id, Value>>,
    changes: Vec<Change>,
    /// Watches from before this revision have expired.
    compacted: u64,
    /// What the next requests get instead of an answer.
    failures: Vec<u16>,
    requests: Vec<String>,
}

/// The API; clones share it.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    /// Counts changes; a second number counts how often watches were cut.
    version: Arc<watch::Sender<(u64, u64)>>,
}

impl Default for Api {
    fn default() -> Self {
        Self { state: Arc::default(), version: Arc::new(watch::Sender::new((0, 0))) }
    }
}

impl Api {
    /// Writes an object into a collection such as `/apis/discovery.k8s.io/v1/endpointslices`.
    pub fn put(&self, collection: &str, object: Value) -> Value {
        let stored = self.state.lock().put(collection, object);
        self.version.send_modify(|version| version.0 += 1);
        stored
    }

    /// Deletes an object; nothing happens if there is none.
    pub fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        let id = (namespace.to_string(), name.to_string());
        let Some(mut object) = state.objects.get_mut(collection).and_then(|objects| objects.remove(&id)) else {
            return;
        };
        state.revision += 1;
        let revision = state.revision;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        state.changes.push(Change { revision, collection: collection.into(), kind: "DELETED", object });
        drop(state);
        self.version.send_modify(|version| version.0 += 1);
    }

    /// All objects of a collection.
    pub fn all(&self, collection: &str) -> Vec<Value> {
        self.state.lock().objects.get(collection).map(|all| all.values().cloned().collect()).unwrap_or_default()
    }

    /// Ends all watches.
    pub fn cut(&self) {
        self.version.send_modify(|version| version.1 += 1);
    }

    /// Forgets all changes so far: a watch from before has expired.
    pub fn compact(&self) {
        let mut state = self.state.lock();
        state.compacted = state.revision;
        state.changes.clear();
    }

    /// The next request gets this status code; several calls add up.
    pub fn fail_next(&self, code: u16) {
        self.state.lock().failures.push(code);
    }

    /// Method, path and query of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// Returns when the API is in a state that `holds`, looked at after each request and each change.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut version = self.version.subscribe();
        let reached = async {
            while !holds(self) {
                // The sender lives as long as `self`.
                let _ = version.changed().await;
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(20), reached).await.is_err() {
            panic!("the API never got into the state waited for; requests so far:\n{}", self.requests().join("\n"));
        }
    }

    async fn answer<B: http_body::Body>(self, request: Request<B>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = parts.uri.path().to_string();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let failure = {
            let mut state = self.state.lock();
            state.requests.push(format!("{} {}", parts.method, parts.uri));
            (!state.failures.is_empty()).then(|| state.failures.remove(0))
        };
        let answer = match failure {
            Some(code) => failed(code, "Scripted"),
            None if query.get("watch").is_some_and(|watch| watch != "false") => self.watch(&path, &query),
            None => self.state.lock().once(&parts.method, &path, &query, &body),
        };
        self.version.send_modify(|version| version.0 += 1);
        answer
    }

    fn watch(&self, path: &str, query: &BTreeMap<String, String>) -> Response<Body> {
        let (collection, namespace, _) = split(path);
        let from: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        if from < self.state.lock().compacted {
            return failed(410, "Expired");
        }
        let mut version = self.version.subscribe();
        let cuts = version.borrow_and_update().1;
        let (state, mut from) = (Arc::clone(&self.state), from);
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<_, Infallible>>();
        tokio::spawn(async move {
            loop {
                let fresh: Vec<Change> = state.lock().changes.iter().filter(|c| c.revision > from).cloned().collect();
                for change in fresh {
                    from = change.revision;
                    let wanted = change.collection == collection
                        && (namespace.is_empty() || change.object["metadata"]["namespace"] == namespace.as_str());
                    let line = format!("{}\n", json!({"type": change.kind, "object": change.object}));
                    if wanted && sender.send(Ok(http_body::Frame::data(Bytes::from(line)))).is_err() {
                        return;
                    }
                }
                let changed = tokio::select! {
                    changed = version.changed() => changed.is_ok(),
                    () = sender.closed() => false,
                };
                if !changed || version.borrow().1 != cuts {
                    return;
                }
            }
        });
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            let line = receiver.recv().await?;
            Some((line, receiver))
        });
        Response::new(BodyExt::boxed(SyncBody(Mutex::new(Box::pin(StreamBody::new(lines))))))
    }
}

/// Lets a body that is only `Send` be boxed as one that is `Sync`.
struct SyncBody<B>(Mutex<Pin<Box<B>>>);

impl<B: http_body::Body> http_body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        self.0.lock().as_mut().poll_frame(context)
    }
}

impl State {
    fn put(&mut self, collection: &str, mut object: Value) -> Value {
        self.revision += 1;
        let text = |field: &Value| field.as_str().unwrap_or_default().to_string();
        let id = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}-{}", id.0, id.1).into();
        }
        let old = self.objects.entry(collection.into()).or_default().insert(id, object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let (revision, collection) = (self.revision, collection.to_string());
        self.changes.push(Change { revision, collection, kind, object: object.clone() });
        object
    }

    /// Everything but a watch.
    fn once(&mut self, method: &Method, path: &str, query: &BTreeMap<String, String>, body: &[u8]) -> Response<Body> {
        let (collection, namespace, name) = split(path);
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(name) = name else {
            if method == Method::POST {
                let id = (namespace, sent["metadata"]["name"].as_str().unwrap_or_default().to_string());
                if self.objects.get(&collection).is_some_and(|objects| objects.contains_key(&id)) {
                    return failed(409, "AlreadyExists");
                }
                return answered(&self.put(&collection, sent));
            }
            return self.list(&collection, &namespace, query);
        };
        let found = self.objects.get(&collection).and_then(|objects| objects.get(&(namespace, name))).cloned();
        let Some(mut object) = found else { return failed(404, "NotFound") };
        let sent_version = &sent["metadata"]["resourceVersion"];
        match *method {
            Method::GET => answered(&object),
            Method::PUT if !sent_version.is_null() && *sent_version != object["metadata"]["resourceVersion"] => {
                failed(409, "Conflict")
            }
            Method::PUT => answered(&self.put(&collection, sent)),
            Method::PATCH => {
                merge(&mut object, sent);
                answered(&self.put(&collection, object))
            }
            _ => failed(405, "MethodNotAllowed"),
        }
    }

    fn list(&self, collection: &str, namespace: &str, query: &BTreeMap<String, String>) -> Response<Body> {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let start = number("continue").unwrap_or(0);
        let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let all = self.objects.get(collection).into_iter().flatten();
        let wanted: Vec<&Value> = all
            .filter(|((known, _), _)| namespace.is_empty() || known == namespace)
            .map(|(_, object)| object)
            .collect();
        let end = start.saturating_add(limit).min(wanted.len());
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if end < wanted.len() {
            metadata["continue"] = end.to_string().into();
        }
        answered(
            &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": wanted[start.min(end)..end]}),
        )
    }
}

/// `/api/v1/namespaces/NS/pods/NAME` to (`/api/v1/pods`, NS, NAME).
fn split(path: &str) -> (String, String, Option<String>) {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let head = if parts.first() == Some(&"api") { 2 } else { 3 };
    let mut namespace = String::new();
    if parts.get(head) == Some(&"namespaces") && parts.len() > head + 2 {
        namespace = parts[head + 1].to_string();
        parts.drain(head..head + 2);
    }
    let name = parts.get(head + 1).map(ToString::to_string);
    parts.truncate(head + 1);
    (format!("/{}", parts.join("/")), namespace, name)
}

fn merge(object: &mut Value, patch: Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    object.remove(&name);
                } else {
                    merge(object.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (object, patch) => *object = patch,
    }
}

fn answered(value: &Value) -> Response<Body> {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed())
}

fn failed(code: u16, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    let mut response = answered(&status);
    match StatusCode::from_u16(code) {
        Ok(code) => *response.status_mut() = code,
        Err(_) => *response.body_mut() = Empty::new().boxed(),
    }
    response
}

impl<B> tower::Service<Request<B>> for Api
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}
