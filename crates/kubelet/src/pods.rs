//! All pods of the node: who has a worker, who may have one, who should not be here.
//!
//! Sources are the API (pods bound to this node) and the static manifests. A pod is admitted once, against those
//! admitted before; what runs in the runtime without a pod in either source is removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Change, Informer};
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use crate::labels;
use crate::pod::admission::{self, Offer};
use crate::pod::resize::{self, Pending};
use crate::pod::status::Failure;
use crate::pod::worker::{self, Handle, Orders};
use crate::pod::{PodExt, resources};
use crate::refer;
use crate::shared::Shared;

/// Cheap to clone; clones are the same set.
#[derive(Clone)]
pub(crate) struct Pods {
    shared: Arc<Shared>,
    node: Informer<core::Node>,
    state: Arc<Mutex<State>>,
    ended: mpsc::UnboundedSender<String>,
    /// Fires when the set or a pod of it changes.
    pub(crate) changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    workers: HashMap<String, Handle>,
    /// Mirrors of static pods, by the hash they carry (the static pod's UID).
    mirrors: HashMap<String, Arc<core::Pod>>,
}

/// A pod with the status that its worker sees.
pub(crate) struct Seen {
    pub(crate) pod: Arc<core::Pod>,
    pub(crate) status: Option<core::PodStatus>,
}

impl Seen {
    fn is_finished(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed")) || self.pod.is_terminal()
    }
}

impl Pods {
    pub(crate) fn new(shared: Arc<Shared>, node: Informer<core::Node>) -> Self {
        let (ended, mut ends) = mpsc::unbounded_channel::<String>();
        let pods = Self { shared, node, state: Arc::default(), ended, changed: Arc::default() };
        let own = pods.clone();
        tokio::spawn(async move {
            while let Some(uid) = ends.recv().await {
                own.ended(&uid);
            }
        });
        pods
    }

    /// Takes the API's word on one pod.
    pub(crate) fn api_changed(&self, change: &Change<core::Pod>) {
        match (&change.old, &change.new) {
            (_, Some(pod)) if pod.is_mirror() => self.mirror_changed(pod, false),
            (Some(pod), None) if pod.is_mirror() => self.mirror_changed(pod, true),
            (old, Some(pod)) => {
                if let Some(old) = old.as_ref().filter(|old| old.uid() != pod.uid()) {
                    self.remove(old);
                }
                self.set(pod.clone());
            }
            (Some(pod), None) => self.remove(pod),
            (None, None) => {}
        }
    }

    /// Makes `pod` what its worker works towards; starts one for a pod not seen before.
    pub(crate) fn set(&self, pod: Arc<core::Pod>) {
        let mut state = self.state.lock();
        if let Some(handle) = state.workers.get(pod.uid()) {
            let current = handle.orders.borrow().pod.clone();
            let (effective, pending) = self.decide(&state, &current, &pod);
            handle.orders.send_modify(|orders| {
                orders.pod = effective;
                orders.wanted = pod;
                orders.pending = pending;
            });
            return;
        }
        let failure = self.admit(&state, &pod).err();
        if let Some(failure) = &failure {
            self.shared.recorder.warning(&refer::pod(&pod), &failure.reason, &failure.message);
        }
        let mirror = state.mirrors.get(pod.uid()).cloned();
        let (effective, pending) = match pod.reported().start_time {
            Some(_) => self.decide(&state, &resize::as_reported(&pod), &pod),
            None => (pod.clone(), None),
        };
        let orders = Orders { mirror, failure, wanted: pod.clone(), pending, ..Orders::new(effective) };
        let handle = worker::spawn(self.shared.clone(), orders, self.ended.clone());
        state.workers.insert(pod.uid().to_owned(), handle);
        self.counted(&state);
    }

    /// The source no longer has `pod`.
    pub(crate) fn remove(&self, pod: &core::Pod) {
        if let Some(handle) = self.state.lock().workers.get(pod.uid()) {
            handle.orders.send_modify(|orders| {
                if orders.pod.uid() == pod.uid() && !orders.pod.is_static() {
                    // The last state tells how much grace a deletion left.
                    orders.pod = Arc::new(pod.clone());
                }
                orders.removed = true;
            });
        }
    }

    fn mirror_changed(&self, mirror: &Arc<core::Pod>, gone: bool) {
        let Some(uid) = mirror.annotation(labels::MIRROR) else { return };
        let mut state = self.state.lock();
        if gone {
            state.mirrors.remove(uid);
        } else {
            state.mirrors.insert(uid.to_owned(), mirror.clone());
        }
        if let Some(handle) = state.workers.get(uid) {
            let mirror = (!gone).then(|| mirror.clone());
            handle.orders.send_modify(|orders| orders.mirror = mirror);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Mirrors that the API has, by the UID of their static pod.
    pub(crate) fn mirrors(&self) -> HashMap<String, Arc<core::Pod>> {
        self.state.lock().mirrors.clone()
    }

    /// Something happened to a pod in the runtime. False: nobody here knows it.
    pub(crate) fn wake(&self, uid: &str) -> bool {
        let state = self.state.lock();
        let handle = state.workers.get(uid);
        if let Some(handle) = handle {
            handle.wake.notify_one();
        }
        handle.is_some()
    }

    /// Makes a pod fail and stop.
    pub(crate) fn fail(&self, uid: &str, failure: Failure, grace: Option<i64>) {
        if let Some(handle) = self.state.lock().workers.get(uid) {
            handle.orders.send_modify(|orders| {
                orders.failure.get_or_insert(failure);
                orders.grace = grace;
            });
        }
    }

    /// Every pod with its status.
    pub(crate) fn all(&self) -> Vec<Seen> {
        let state = self.state.lock();
        state.workers.values().map(seen).collect()
    }

    pub(crate) fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Seen> {
        let state = self.state.lock();
        let named = state.workers.values().filter(|handle| {
            let orders = handle.orders.borrow();
            let right = uid.is_none_or(|uid| orders.pod.uid() == uid);
            right && orders.pod.namespace() == namespace && orders.pod.name() == name
        });
        // Of two pods of one name, the one that is not going is meant.
        named.min_by_key(|handle| handle.orders.borrow().removed).map(seen)
    }

    /// The status of a pod as its worker sees it, and its changes.
    pub(crate) fn watch(&self, uid: &str) -> Option<watch::Receiver<Option<core::PodStatus>>> {
        self.state.lock().workers.get(uid).map(|handle| handle.status.clone())
    }

    fn admit(&self, state: &State, pod: &Arc<core::Pod>) -> Result<(), Failure> {
        // Nothing is asked of a pod that already runs or is on its way out.
        if pod.is_deleting() || pod.is_terminal() || pod.reported().start_time.is_some() {
            return Ok(());
        }
        let name = &self.shared.config.node_name;
        let node = self.node.get(&client::Key::new("", name));
        admission::admit(pod, &others(state, pod.uid()), &self.offer(node.as_deref()))
    }

    fn offer<'a>(&'a self, node: Option<&'a core::Node>) -> Offer<'a> {
        Offer { node, allocatable: &self.shared.fields.allocatable, max_pods: self.shared.config.max_pods }
    }

    /// What of a new spec's resources the pod may have now.
    fn decide(&self, state: &State, current: &core::Pod, wanted: &Arc<core::Pod>) -> (Arc<core::Pod>, Option<Pending>) {
        resize::decide(current, wanted, &others(state, wanted.uid()), &self.offer(None))
    }

    /// Gives pods that wait for more what others have left.
    fn retry_resizes(&self, state: &State) {
        for handle in state.workers.values().filter(|handle| handle.orders.borrow().pending.is_some()) {
            let (current, wanted) = {
                let orders = handle.orders.borrow();
                (orders.pod.clone(), orders.wanted.clone())
            };
            let (effective, pending) = self.decide(state, &current, &wanted);
            handle.orders.send_if_modified(|orders| {
                let changed = orders.pending != pending;
                orders.pod = effective;
                orders.pending = pending;
                changed
            });
        }
    }

    fn ended(&self, uid: &str) {
        let mut state = self.state.lock();
        state.workers.remove(uid);
        self.counted(&state);
        self.retry_resizes(&state);
    }

    /// Brings what depends on the whole set up to date.
    fn counted(&self, state: &State) {
        self.shared.metrics.pods.set(i64::try_from(state.workers.len()).unwrap_or(i64::MAX));
        let burstable = state
            .workers
            .values()
            .map(seen)
            .filter(|seen| !seen.is_finished() && resources::qos(&seen.pod) == resources::Qos::Burstable);
        let shares = burstable.map(|seen| api::pod_resources::requests(&seen.pod).cpu_millis).sum();
        self.shared.cgroups.set_burstable(shares);
        self.changed.notify_waiters();
    }

    /// Removes what the runtime, the disk and the cgroups have of pods that are in no source.
    ///
    /// Called once the sources have been read whole, and when the runtime tells of a pod that nobody knows.
    pub(crate) async fn remove_strangers(&self) {
        let known: HashSet<String> = self.state.lock().workers.keys().cloned().collect();
        let sandboxes = match self.shared.runtime.sandboxes(HashMap::new()).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "failed to look for pods that should not be here");
                return;
            }
        };
        let mut strangers: HashMap<String, core::Pod> = HashMap::new();
        for sandbox in sandboxes {
            let Some(metadata) = sandbox.metadata.filter(|metadata| !known.contains(&metadata.uid)) else { continue };
            strangers.insert(metadata.uid.clone(), stranger(&metadata.uid, &metadata.namespace, &metadata.name));
        }
        let directories = std::fs::read_dir(self.shared.config.data_dir.join("pods"));
        let on_disk =
            directories.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        for uid in on_disk.chain(self.shared.cgroups.pods()) {
            if !known.contains(&uid) {
                strangers.entry(uid.clone()).or_insert_with(|| stranger(&uid, "", &uid));
            }
        }
        for (uid, pod) in strangers {
            info!(pod = pod.full_name(), "removing a pod that is not in the API");
            let orders = Orders { removed: true, ..Orders::new(Arc::new(pod)) };
            let mut state = self.state.lock();
            if !state.workers.contains_key(&uid) {
                let handle = worker::spawn(self.shared.clone(), orders, self.ended.clone());
                state.workers.insert(uid, handle);
            }
        }
    }
}

/// The pods beside `uid` that hold resources.
fn others(state: &State, uid: &str) -> Vec<Arc<core::Pod>> {
    let all = state.workers.values().map(seen);
    all.filter(|seen| seen.pod.uid() != uid && !seen.is_finished()).map(|seen| seen.pod).collect()
}

fn seen(handle: &Handle) -> Seen {
    Seen { pod: handle.orders.borrow().pod.clone(), status: handle.status.borrow().clone() }
}

/// As much of a pod as the runtime knows: enough to stop it.
fn stranger(uid: &str, namespace: &str, name: &str) -> core::Pod {
    let mut pod = core::Pod::default();
    pod.metadata.uid = Some(uid.to_owned());
    pod.metadata.namespace = Some(namespace.to_owned());
    pod.metadata.name = Some(name.to_owned());
    pod
}
