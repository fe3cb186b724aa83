//! Shared informers: one list and watch per kind and selector, its result in memory, changes told in order.
//!
//! Invariants: handlers see every object appear before they see it change or go; what was deleted while the watch was
//! down is told as deleted after the next list; `managedFields` are dropped, nobody here reads them.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    error::ErrorExt,
    key::{Key, Object},
    metrics::{KindLabels, RELISTS},
};

/// Objects asked for in one page of a list.
const PAGE: u32 = 500;
/// The server ends a watch after this long; it is then opened again where it was.
const WATCH_S: u32 = 290;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Trouble after this long without any is new trouble.
const CALM: Duration = Duration::from_secs(60);
/// A watch that ends this early has not worked.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// What happened to an object: appeared (`old` is `None`), changed, or went (`new` is `None`).
#[derive(Clone, Debug)]
pub struct Change<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K: Object> Change<K> {
    /// Key of the object.
    pub fn key(&self) -> Key {
        self.new.as_ref().or(self.old.as_ref()).map(|object| Key::of(&**object)).unwrap_or_default()
    }
}

type Shared = Mutex<HashMap<(TypeId, String, String), Box<dyn Any + Send>>>;

/// The informers of a process; clones share them.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    cancel: CancellationToken,
    shared: Arc<Shared>,
}

impl Informers {
    /// Informers that end with `cancel`.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, shared: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all objects of a kind, started by the first call.
    pub fn of<K: Object>(&self) -> Informer<K> {
        self.select("", "")
    }

    /// The informer of the objects that a field and a label selector select.
    pub fn select<K: Object>(&self, fields: &str, labels: &str) -> Informer<K> {
        let id = (TypeId::of::<K>(), fields.to_string(), labels.to_string());
        let mut shared = self.shared.lock();
        if let Some(known) = shared.get(&id).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return known.clone();
        }
        let informer = Informer::<K>::new();
        let selector = (fields.to_string(), labels.to_string());
        tokio::spawn(run(informer.clone(), self.client.clone(), selector, self.cancel.clone()));
        shared.insert(id, Box::new(informer.clone()));
        informer
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type IndexFn<K> = fn(&K) -> Vec<String>;
/// Keys by the value that an index files them under.
type Entries = HashMap<String, BTreeSet<Key>>;

struct Store<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, (IndexFn<K>, Entries)>,
}

impl<K: Object> Store<K> {
    fn set(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        for (index_of, entries) in self.indexes.values_mut() {
            if let Some(old) = &old {
                unindex(entries, index_of(old), &key);
            }
            for value in index_of(&object) {
                entries.entry(value).or_default().insert(key.clone());
            }
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for (index_of, entries) in self.indexes.values_mut() {
            unindex(entries, index_of(&old), key);
        }
        Some(old)
    }
}

fn unindex(entries: &mut Entries, values: Vec<String>, key: &Key) {
    for value in values {
        if let Some(keys) = entries.get_mut(&value) {
            keys.remove(key);
            if keys.is_empty() {
                entries.remove(&value);
            }
        }
    }
}

struct Inner<K> {
    store: RwLock<Store<K>>,
    /// Held while a change is applied and told, so that a late handler misses none and sees none twice.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// Objects of a kind as they are; clones share them.
pub struct Informer<K>(Arc<Inner<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Object> Informer<K> {
    fn new() -> Self {
        Self(Arc::new(Inner {
            store: RwLock::new(Store { objects: BTreeMap::new(), indexes: HashMap::new() }),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }))
    }

    /// Returns once the first list is in.
    pub async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0.store.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.store.read().objects.values().cloned().collect()
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let store = self.0.store.read();
        let from = Key::new(namespace, "");
        store
            .objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, o)| Arc::clone(o))
            .collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.store.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index; a second one of the same name changes nothing, so a name must say whose index it is.
    pub fn add_index(&self, name: &'static str, index_of: fn(&K) -> Vec<String>) {
        let mut store = self.0.store.write();
        if store.indexes.contains_key(name) {
            return;
        }
        let mut entries = Entries::new();
        for (key, object) in &store.objects {
            for value in index_of(object) {
                entries.entry(value).or_default().insert(key.clone());
            }
        }
        store.indexes.insert(name, (index_of, entries));
    }

    /// The objects that an index files under `value`; none if there is no such index.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let store = self.0.store.read();
        let keys = store.indexes.get(name).and_then(|(_, entries)| entries.get(value));
        keys.into_iter().flatten().filter_map(|key| store.objects.get(key).cloned()).collect()
    }

    /// Calls `handler` for every change from now on, and first for every object that is already there.
    ///
    /// Handlers run one after the other in the informer's task: they must not block, nor call `on_change`.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.0.handlers.lock();
        for object in self.list() {
            handler(&Change { old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    fn tell(handlers: &[Handler<K>], change: &Change<K>) {
        for handler in handlers {
            handler(change);
        }
    }

    fn set(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let (key, object) = (Key::of(&object), Arc::new(object));
        let handlers = self.0.handlers.lock();
        let old = self.0.store.write().set(key, Arc::clone(&object));
        if let Some(old) = &old
            && old.meta().resource_version == object.meta().resource_version
            && old.meta().uid == object.meta().uid
        {
            return;
        }
        match old {
            // Deleted and created anew while nobody looked: two changes.
            Some(old) if old.meta().uid != object.meta().uid => {
                Self::tell(&handlers, &Change { old: Some(old), new: None });
                Self::tell(&handlers, &Change { old: None, new: Some(object) });
            }
            old => Self::tell(&handlers, &Change { old, new: Some(object) }),
        }
    }

    fn remove(&self, key: &Key, last: Option<K>) {
        let handlers = self.0.handlers.lock();
        if let Some(old) = self.0.store.write().remove(key) {
            let old = match last {
                Some(mut last) => {
                    last.meta_mut().managed_fields = None;
                    Arc::new(last)
                }
                None => old,
            };
            Self::tell(&handlers, &Change { old: Some(old), new: None });
        }
    }
}

async fn run<K: Object>(
    informer: Informer<K>,
    client: Client,
    (fields, labels): (String, String),
    cancel: CancellationToken,
) {
    let api: Api<K> = Api::all(client);
    let kind = K::kind(&()).into_owned();
    let mut backoff = BACKOFF_MIN;
    let mut revision: Option<String> = None;
    loop {
        let step = async {
            let from = match &revision {
                Some(revision) => revision.clone(),
                None => {
                    RELISTS.get_or_create(&KindLabels { kind: kind.clone() }).inc();
                    list(&informer, &api, &fields, &labels).await?
                }
            };
            informer.0.synced.send_replace(true);
            revision = Some(from.clone());
            follow(&informer, &api, &fields, &labels, from, &mut revision).await
        };
        let start = Instant::now();
        let ended = tokio::select! {
            ended = step => ended,
            () = cancel.cancelled() => return,
        };
        if start.elapsed() > CALM {
            backoff = BACKOFF_MIN;
        }
        match ended {
            Ok(()) if start.elapsed() > TOO_SHORT => continue,
            Ok(()) => tracing::debug!(kind, "watch ended at once"),
            Err(error) if error.is_expired() => {
                tracing::debug!(kind, "watch is too far behind; listing again");
                revision = None;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(kind, error, "watch failed; trying again in {backoff:?}");
            }
        }
        let jitter = backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(jitter) => {}
            () = cancel.cancelled() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Reads everything, tells the differences, and gives the revision to watch from.
async fn list<K: Object>(
    informer: &Informer<K>,
    api: &Api<K>,
    fields: &str,
    labels: &str,
) -> Result<String, kube::Error> {
    let mut params = ListParams::default().fields(fields).labels(labels).limit(PAGE);
    let mut gone: BTreeSet<Key> = informer.0.store.read().objects.keys().cloned().collect();
    loop {
        let page = api.list(&params).await?;
        for object in page.items {
            gone.remove(&Key::of(&object));
            informer.set(object);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                for key in gone {
                    informer.remove(&key, None);
                }
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Follows changes until the watch ends; `reached` keeps up with what was told.
async fn follow<K: Object>(
    informer: &Informer<K>,
    api: &Api<K>,
    fields: &str,
    labels: &str,
    from: String,
    reached: &mut Option<String>,
) -> Result<(), kube::Error> {
    let params = WatchParams::default().fields(fields).labels(labels).timeout(WATCH_S);
    let events = api.watch(&params, &from).await?;
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                reached.clone_from(&object.meta().resource_version);
                informer.set(object);
            }
            WatchEvent::Deleted(object) => {
                reached.clone_from(&object.meta().resource_version);
                informer.remove(&Key::of(&object), Some(object));
            }
            WatchEvent::Bookmark(mark) => *reached = Some(mark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
