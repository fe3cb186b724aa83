//! Events: what happened to an object, written beside it without holding anybody up.
//!
//! Like upstream's correlator: the same event again raises the count of the first one; many similar events become one
//! that says so; a source that floods is cut to a trickle.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use crate::error::ErrorExt;

/// Events that may wait to be written; more are dropped with a log line.
const BACKLOG: usize = 1000;
/// From this many different messages on, with no pause of [`SIMILAR_WINDOW`] between them, similar events are one.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// A source may write this many events about an object at once, and one more for each [`SPAM_REFILL`].
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL: Duration = Duration::from_secs(300);
const COMBINED: &str = "(combined from similar events): ";
/// Memory of past events is thrown away beyond this many entries.
const MEMORY_MAX: usize = 4096;

/// Writes events of one component; clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Incident>,
    source: Arc<EventSource>,
}

struct Incident {
    source: Arc<EventSource>,
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// `component` and `host` become the events' source. Must be called inside a tokio runtime.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (queue, incidents) = mpsc::channel(BACKLOG);
        tokio::spawn(write_all(client, incidents));
        let source = EventSource {
            component: Some(component.to_string()),
            host: Some(host.to_string()).filter(|host| !host.is_empty()),
        };
        Self { queue, source: Arc::new(source) }
    }

    /// Something expected.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Normal", reason, message.into());
    }

    /// Something that somebody should look at.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Warning", reason, message.into());
    }

    fn record(&self, about: &ObjectReference, kind: &'static str, reason: &str, message: String) {
        let incident = Incident {
            source: Arc::clone(&self.source),
            about: about.clone(),
            kind,
            reason: reason.to_string(),
            message,
            at: Timestamp::now(),
        };
        if let Err(error) = self.queue.try_send(incident) {
            tracing::warn!(reason, %error, "event dropped");
        }
    }
}

/// What makes events alike, message aside.
type Group = (String, String, String, &'static str, String);

struct Similar {
    messages: Vec<String>,
    last: Instant,
}

struct Written {
    name: String,
    count: i32,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

#[derive(Default)]
struct Memory {
    similar: HashMap<Group, Similar>,
    written: HashMap<(Group, String), Written>,
    buckets: HashMap<(String, String), Bucket>,
}

impl Memory {
    /// Whether the source may write about the object now.
    fn allow(&mut self, component: &str, uid: &str) -> bool {
        let now = Instant::now();
        let bucket = self
            .buckets
            .entry((component.to_string(), uid.to_string()))
            .or_insert(Bucket { tokens: SPAM_BURST, at: now });
        let refilled = now.duration_since(bucket.at).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(SPAM_BURST);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }

    /// The message to write: the given one, or that of the group once there are too many different ones.
    fn message(&mut self, group: &Group, message: String) -> String {
        let now = Instant::now();
        let similar = self.similar.entry(group.clone()).or_insert(Similar { messages: Vec::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR_MAX && !similar.messages.contains(&message) {
            similar.messages.push(message.clone());
        }
        if similar.messages.len() < SIMILAR_MAX { message } else { format!("{COMBINED}{message}") }
    }

    fn trim(&mut self) {
        if self.similar.len() > MEMORY_MAX {
            self.similar.clear();
        }
        if self.written.len() > MEMORY_MAX {
            self.written.clear();
        }
        if self.buckets.len() > MEMORY_MAX {
            self.buckets.clear();
        }
    }
}

async fn write_all(client: Client, mut incidents: mpsc::Receiver<Incident>) {
    let mut memory = Memory::default();
    while let Some(incident) = incidents.recv().await {
        memory.trim();
        let component = incident.source.component.clone().unwrap_or_default();
        let uid = incident.about.uid.clone().unwrap_or_default();
        if !memory.allow(&component, &uid) {
            tracing::debug!(reason = incident.reason, "event dropped: its source floods");
            continue;
        }
        let name = incident.about.name.clone().unwrap_or_default();
        if let Err(error) = write(&client, &mut memory, incident).await {
            let reason = &error as &dyn std::error::Error;
            if error.is_forbidden() || error.is_not_found() {
                // An event in a namespace that is going away; nobody would read it.
                tracing::debug!(object = name, error = reason, "event not written");
            } else {
                tracing::warn!(object = name, error = reason, "event not written");
            }
        }
    }
}

async fn write(client: &Client, memory: &mut Memory, incident: Incident) -> Result<(), kube::Error> {
    let Incident { source, about, kind, reason, message, at } = incident;
    let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or("default".into());
    let group: Group = (
        source.component.clone().unwrap_or_default(),
        about.uid.clone().unwrap_or_default(),
        about.name.clone().unwrap_or_default(),
        kind,
        format!("{reason}/{}", about.field_path.as_deref().unwrap_or_default()),
    );
    let message = memory.message(&group, message);
    let combined = message.starts_with(COMBINED);
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let same = (group, if combined { String::new() } else { message.clone() });
    if let Some(written) = memory.written.get_mut(&same) {
        written.count += 1;
        let patch = json!({"count": written.count, "lastTimestamp": Time(at), "message": message});
        match api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            // Its time to live is over: written anew below.
            Err(error) if error.is_not_found() => {
                memory.written.remove(&same);
            }
            Err(error) => return Err(error),
        }
    }
    let mut event = Event {
        involved_object: about.clone(),
        type_: Some(kind.to_string()),
        reason: Some(reason),
        message: Some(message),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        count: Some(1),
        source: Some((*source).clone()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        event_time: None::<MicroTime>,
        ..Event::default()
    };
    let name = format!("{}.{:016x}", about.name.as_deref().unwrap_or_default(), at.as_nanosecond() as u64);
    event.metadata.name = Some(name.clone());
    event.metadata.namespace = Some(namespace);
    api.create(&PostParams::default(), &event).await?;
    memory.written.insert(same, Written { name, count: 1 });
    Ok(())
}

#[cfg(test)]
mod tests;
