//! ConfigMaps, Secrets and the like that pods of this node refer to, and nothing else of their kinds.
//!
//! A kubelet may read an object only while a pod bound to its node refers to it (the node authorizer says so), so there
//! is no informer over all Secrets: each object in use has a watch of its own, opened on first use and closed when the
//! last pod that used it is gone. A change wakes the pods that use it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, ErrorExt};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::NamespaceResourceScope;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// An object that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch {kind} {namespace}/{name}")]
pub(crate) struct Error {
    kind: String,
    namespace: String,
    name: String,
    #[source]
    source: Box<kube::Error>,
}

/// A kind that is read by name.
pub(crate) trait Named: client::Object + kube::Resource<Scope = NamespaceResourceScope> {}
impl<K: client::Object + kube::Resource<Scope = NamespaceResourceScope>> Named for K {}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Id {
    kind: TypeId,
    namespace: String,
    name: String,
}

struct Entry {
    /// `Option<Arc<K>>` of the kind in the id; `None` inside: known to be absent.
    value: Option<Box<dyn Any + Send + Sync>>,
    /// Wakes pods by UID.
    users: HashMap<String, Arc<Notify>>,
    cancel: CancellationToken,
}

#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    entries: Arc<Mutex<HashMap<Id, Entry>>>,
    /// The pod that asks, for handles made by [`Objects::for_pod`].
    user: Option<(String, Arc<Notify>)>,
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, entries: Arc::default(), user: None }
    }

    /// A handle that notes what the pod uses and wakes it on changes.
    pub(crate) fn for_pod(&self, uid: &str, wake: Arc<Notify>) -> Self {
        Self { user: Some((uid.to_owned(), wake)), ..self.clone() }
    }

    /// The object, or `None` if there is none by that name.
    pub(crate) async fn get<K: Named>(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Error> {
        let id = Id { kind: TypeId::of::<K>(), namespace: namespace.to_owned(), name: name.to_owned() };
        {
            let mut entries = self.entries.lock();
            if let Some(entry) = entries.get_mut(&id) {
                if let Some((uid, wake)) = &self.user {
                    entry.users.insert(uid.clone(), wake.clone());
                }
                let known = entry.value.as_ref().and_then(|value| value.downcast_ref::<Option<Arc<K>>>());
                // What was absent is asked for again: a pod that waits for it should not wait for the watch too.
                if let Some(Some(value)) = known {
                    return Ok(Some(value.clone()));
                }
            }
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await.map_err(|source| Error {
            kind: K::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let found = found.map(Arc::new);
        if let Some((uid, wake)) = &self.user {
            self.begin(id, api, uid.clone(), wake.clone(), found.clone());
        }
        Ok(found)
    }

    /// Drops what only this pod used.
    pub(crate) fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            entry.users.remove(uid);
            if entry.users.is_empty() {
                entry.cancel.cancel();
            }
            !entry.users.is_empty()
        });
    }

    /// Namespace and name of every object in use, for tests and debugging.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> std::collections::BTreeSet<(String, String)> {
        self.entries.lock().keys().map(|id| (id.namespace.clone(), id.name.clone())).collect()
    }

    fn begin<K: Named>(&self, id: Id, api: Api<K>, uid: String, wake: Arc<Notify>, found: Option<Arc<K>>) {
        let cancel = {
            let mut entries = self.entries.lock();
            let known = entries.contains_key(&id);
            let entry = entries.entry(id.clone()).or_insert_with(|| Entry {
                value: None,
                users: HashMap::new(),
                cancel: CancellationToken::new(),
            });
            entry.users.insert(uid, wake);
            entry.value = Some(Box::new(found.clone()));
            if known {
                return;
            }
            entry.cancel.clone()
        };
        let entries = self.entries.clone();
        tokio::spawn(async move { cancel.run_until_cancelled(follow(entries, id, api, found)).await });
    }
}

/// Keeps one entry current until it is cancelled.
async fn follow<K: Named>(entries: Arc<Mutex<HashMap<Id, Entry>>>, id: Id, api: Api<K>, first: Option<Arc<K>>) {
    let only = ListParams::default().fields(&format!("metadata.name={}", id.name));
    let parameters = WatchParams::default().fields(&format!("metadata.name={}", id.name)).timeout(290);
    let mut version = first.as_ref().and_then(|object| object.resource_version());
    let store = |value: Option<Arc<K>>| {
        let mut entries = entries.lock();
        let Some(entry) = entries.get_mut(&id) else { return };
        entry.value = Some(Box::new(value));
        for wake in entry.users.values() {
            wake.notify_one();
        }
    };
    let mut delay = Duration::from_millis(200);
    loop {
        let from = match &version {
            Some(version) => version.clone(),
            // A list, for its version: an absent object has none to watch from.
            None => match api.list(&only).await {
                Ok(list) => {
                    let from = list.metadata.resource_version.unwrap_or_default();
                    version = Some(from.clone());
                    store(list.items.into_iter().next().map(Arc::new));
                    from
                }
                Err(error) => {
                    debug!(kind = %K::kind(&()), namespace = id.namespace, name = id.name, %error, "will try again");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_secs(30));
                    continue;
                }
            },
        };
        match api.watch(&parameters, &from).await {
            Ok(stream) => {
                let mut stream = std::pin::pin!(stream);
                let began = tokio::time::Instant::now();
                while let Some(event) = stream.next().await {
                    match event {
                        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                            version = object.resource_version();
                            store(Some(Arc::new(object)));
                        }
                        Ok(WatchEvent::Deleted(object)) => {
                            version = object.resource_version();
                            store(None);
                        }
                        Ok(WatchEvent::Bookmark(mark)) => version = Some(mark.metadata.resource_version),
                        Ok(WatchEvent::Error(status)) => {
                            debug!(code = status.code, message = status.message, "watch ended; reading anew");
                            version = None;
                            break;
                        }
                        Err(_) => break,
                    }
                }
                if began.elapsed() > Duration::from_secs(5) {
                    delay = Duration::from_millis(200);
                    continue;
                }
            }
            Err(error) if error.code() == Some(410) => version = None,
            Err(error) => debug!(kind = %K::kind(&()), name = id.name, %error, "failed to watch; will try again"),
        }
        // A watch that ends at once must not be reopened in a tight loop.
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(30));
    }
}
