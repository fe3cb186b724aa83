//! The watch caches: one for each resource that somebody lists by selector or watches.
//!
//! What selects an object is read from its bytes once, when it is written: its labels, and for pods the node. Other
//! selectable fields are read when a selector first asks for them.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use store::{
    Store,
    cache::{self, Cache, Limits},
};

use crate::catalog::{self, Served};

/// Under which value a pod's watches are registered.
pub(crate) const NODE_NAME: &str = "spec.nodeName";

/// What is known of an object beside its bytes.
pub(crate) struct Attrs {
    key: Box<str>,
    value: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// The node of a pod.
    node: Option<Box<str>>,
    fields: OnceLock<Vec<(&'static str, String)>>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: HashMap<Box<str>, Box<str>>,
}

#[derive(Deserialize)]
struct PodNode {
    #[serde(default)]
    spec: PodNodeSpec,
}

#[derive(Default, Deserialize)]
struct PodNodeSpec {
    #[serde(default, rename = "nodeName")]
    node_name: Option<Box<str>>,
}

impl cache::Attributes for Attrs {
    fn of(key: &str, value: &Bytes) -> Self {
        let is_pod = key.starts_with(POD_PREFIX.get_or_init(|| catalog::prefix("", "pods", "")));
        let node = is_pod
            .then(|| serde_json::from_slice::<PodNode>(value).ok())
            .flatten()
            // A pod without a node is found under the empty name, for those who look for unassigned ones.
            .map(|pod| pod.spec.node_name.unwrap_or_default());
        Self { key: key.into(), value: value.clone(), labels: labels(value), node, fields: OnceLock::new() }
    }

    fn indexed(&self, visit: &mut dyn FnMut(&'static str, &str)) {
        if let Some(node) = &self.node {
            visit(NODE_NAME, node);
        }
    }
}

static POD_PREFIX: OnceLock<String> = OnceLock::new();

/// Labels stand in the metadata that begins every stored object: no more than that is parsed.
fn labels(value: &[u8]) -> Box<[(Box<str>, Box<str>)]> {
    let Some(rest) = value.get(super::select::METADATA_AT..) else { return Box::default() };
    match serde_json::Deserializer::from_slice(rest).into_iter::<Metadata>().next() {
        Some(Ok(metadata)) => metadata.labels.into_iter().collect(),
        _ => Box::default(),
    }
}

impl Attrs {
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| **own == *name).map(|(_, value)| &**value)
    }

    /// The kind's selectable fields.
    pub(crate) fn fields(&self, served: &Served) -> &[(&'static str, String)] {
        self.fields.get_or_init(|| {
            let object = serde_json::from_slice(&self.value).unwrap_or_default();
            served.resource.hooks.fields(&object)
        })
    }
}

/// The caches that are running.
pub(crate) struct Caches {
    store: Arc<dyn Store>,
    running: Mutex<HashMap<String, Cache<Attrs>>>,
}

impl Caches {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, running: Mutex::default() }
    }

    /// The cache of a resource; it begins with its first use.
    pub(crate) fn of(&self, served: &Served) -> Cache<Attrs> {
        let prefix = served.prefix("");
        let mut running = self.running.lock();
        if let Some(cache) = running.get(&prefix) {
            return cache.clone();
        }
        let cache = Cache::new(self.store.clone(), prefix.clone(), Limits::default(), store::Metrics::default());
        running.insert(prefix, cache.clone());
        cache
    }
}
