//! The loop, and the informer events that feed it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use client::{Change, Client, ErrorExt, Informer, Recorder, reference};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use tracing::Instrument;

use crate::{
    Config, bind,
    cluster::{Cluster, NodeInfo, PodInfo},
    cycle::{self, Decision, Refusals},
    explain,
    plugin::{Event, Listers},
    preemption,
    queue::Queue,
};

pub(crate) struct Scheduler {
    config: Config,
    client: Client,
    recorder: Recorder,
    listers: Listers,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    cluster: Mutex<Cluster>,
    queue: Queue,
    next_node: AtomicUsize,
}

impl Scheduler {
    pub(crate) fn new(config: Config) -> Self {
        let informers = &config.informers;
        Self {
            client: config.client.clone(),
            recorder: config.recorder.clone(),
            listers: Listers {
                namespaces: informers.of(),
                claims: informers.of(),
                volumes: informers.of(),
                classes: informers.of(),
                csi_nodes: informers.of(),
                budgets: informers.of(),
            },
            pods: informers.of(),
            nodes: informers.of(),
            cluster: Mutex::default(),
            queue: Queue::default(),
            next_node: AtomicUsize::new(0),
            config,
        }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        self.subscribe();
        let synced = async {
            self.nodes.synced().await;
            self.pods.synced().await;
            self.listers.namespaces.synced().await;
            self.listers.claims.synced().await;
            self.listers.volumes.synced().await;
            self.listers.classes.synced().await;
        };
        let cancel = self.config.cancel.clone();
        tokio::select! {
            () = synced => {}
            () = cancel.cancelled() => return,
        }
        loop {
            let pod = tokio::select! {
                pod = self.queue.next() => pod,
                () = cancel.cancelled() => return,
            };
            let span = tracing::info_span!("schedule", pod = %pod.key);
            self.attempt(pod).instrument(span).await;
        }
    }

    fn subscribe(self: &Arc<Self>) {
        let me = Arc::downgrade(self);
        self.nodes.on_change(move |change| {
            if let Some(me) = me.upgrade() {
                me.node_changed(change);
            }
        });
        let me = Arc::downgrade(self);
        self.pods.on_change(move |change| {
            if let Some(me) = me.upgrade() {
                me.pod_changed(change);
            }
        });
        macro_rules! forward {
            ($informer:expr, $event:expr) => {
                let me = Arc::downgrade(self);
                $informer.on_change(move |_| {
                    if let Some(me) = me.upgrade() {
                        me.queue.happened($event);
                    }
                });
            };
        }
        forward!(self.listers.claims, Event::Storage);
        forward!(self.listers.volumes, Event::Storage);
        forward!(self.listers.classes, Event::Storage);
        forward!(self.listers.csi_nodes, Event::Storage);
        forward!(self.listers.namespaces, Event::NamespaceChanged);
    }

    fn node_changed(&self, change: &Change<Node>) {
        let event = match (&change.old, &change.new) {
            (_, None) => {
                if let Some(old) = &change.old {
                    self.cluster.lock().remove_node(old.metadata.name.as_deref().unwrap_or_default());
                }
                return;
            }
            (None, Some(_)) => Some(Event::NodeAdded),
            (Some(old), Some(new)) => relevant(old, new).then_some(Event::NodeChanged),
        };
        if let Some(new) = &change.new {
            self.cluster.lock().set_node(Arc::clone(new));
        }
        if let Some(event) = event {
            self.queue.happened(event);
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let Some(new) = &change.new else {
            if let Some(old) = &change.old {
                let uid = old.metadata.uid.as_deref().unwrap_or_default();
                self.queue.remove(uid);
                self.cluster.lock().forget_nomination(uid);
                self.gone(uid);
            }
            return;
        };
        let info = Arc::new(PodInfo::new(Arc::clone(new)));
        if let Some(node) = info.node_name().map(str::to_string) {
            self.queue.remove(&info.uid);
            if info.ended() {
                self.gone(&info.uid);
                return;
            }
            let fresh = self.cluster.lock().node_of(&info.uid).is_none();
            let labels = change.old.as_ref().is_none_or(|old| old.metadata.labels != new.metadata.labels);
            self.cluster.lock().place(info, &node);
            if fresh || labels {
                self.queue.happened(Event::PodPlaced);
            }
        } else if self.mine(new) && !info.ended() && new.metadata.deletion_timestamp.is_none() {
            let moved = change
                .old
                .as_ref()
                .is_none_or(|old| old.spec != new.spec || old.metadata.labels != new.metadata.labels);
            if self.cluster.lock().node_of(&info.uid).is_some() {
                return; // assumed: the binding is on its way
            }
            if moved { self.queue.add(info) } else { self.queue.refresh(info) }
        } else {
            self.queue.remove(&info.uid);
        }
    }

    fn gone(&self, uid: &str) {
        let placed = {
            let mut cluster = self.cluster.lock();
            let placed = cluster.node_of(uid).is_some();
            cluster.remove_pod(uid);
            placed
        };
        if placed {
            self.queue.happened(Event::PodGone);
        }
    }

    /// Ours, and not held back by a scheduling gate.
    fn mine(&self, pod: &Pod) -> bool {
        pod.spec.as_ref().is_some_and(|spec| {
            spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == self.config.name
                && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        })
    }

    async fn attempt(self: &Arc<Self>, pod: Arc<PodInfo>) {
        let nodes = self.cluster.lock().snapshot(&pod);
        let start = self.next_node.load(Ordering::Relaxed);
        match cycle::decide(&pod, &nodes, Some(&self.listers), start) {
            Decision::Node { name, evaluated } => {
                self.next_node.store((start + evaluated) % nodes.len().max(1), Ordering::Relaxed);
                let node = nodes.iter().find(|node| node.name == name).cloned();
                drop(nodes);
                self.cluster.lock().place(Arc::clone(&pod), &name);
                self.queue.placed(&pod);
                if let Some(node) = node {
                    let me = Arc::clone(self);
                    tokio::spawn(async move { me.bind(pod, node).await }.in_current_span());
                }
            }
            Decision::Nowhere(refusals) => self.nowhere(pod, &nodes, refusals).await,
        }
    }

    async fn bind(&self, pod: Arc<PodInfo>, node: Arc<NodeInfo>) {
        let done = match bind::reserve_volumes(&self.client, &self.listers, &pod, &node).await {
            Ok(()) => bind::bind(&self.client, &pod, &node.name).await,
            Err(error) => Err(error),
        };
        let error = match done {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {}", pod.key, node.name);
                self.recorder.normal(&reference(&*pod.pod), "Scheduled", message);
                return;
            }
            Err(error) => error,
        };
        self.gone(&pod.uid);
        match &error {
            bind::Error::Waiting { .. } => {
                self.queue.refused(pod, ["VolumeBinding"].into());
            }
            bind::Error::Bind { source, .. } if source.is_not_found() || source.is_conflict() => {
                // Deleted, or bound by another: the informer says which.
                tracing::debug!(error = &error as &dyn std::error::Error, "binding lost a race");
                if self.pods.get(&pod.key).is_some_and(|now| {
                    now.metadata.uid.as_deref() == Some(&pod.uid) && now.metadata.deletion_timestamp.is_none()
                }) {
                    self.queue.failed(pod);
                }
            }
            _ => {
                tracing::warn!(error = &error as &dyn std::error::Error, "binding failed");
                self.recorder.warning(&reference(&*pod.pod), "FailedScheduling", error.to_string());
                self.queue.failed(pod);
            }
        }
    }

    async fn nowhere(&self, pod: Arc<PodInfo>, nodes: &[Arc<NodeInfo>], refusals: Refusals) {
        let plan = preemption::plan(&pod, nodes, &refusals, Some(&self.listers));
        let message = match &plan {
            Some(_) => refusals.to_string(),
            None => explain::with_preemption(&refusals),
        };
        let nominated = plan.as_ref().map(|plan| plan.node.clone());
        if let Some(plan) = &plan {
            self.cluster.lock().nominate(Arc::clone(&pod), &plan.node);
        }
        self.recorder.warning(&reference(&*pod.pod), "FailedScheduling", message.clone());
        // Back in the queue before the writes: their events must find it there.
        self.queue.refused(Arc::clone(&pod), refusals.plugins);
        bind::report(&self.client, &pod, "Unschedulable", &message, nominated.as_deref()).await;
        for victim in plan.iter().flat_map(|plan| &plan.victims) {
            bind::evict(&self.client, &self.recorder, victim, &pod, nominated.as_deref().unwrap_or_default()).await;
        }
    }
}

/// Whether anything changed that decides about pods; status heartbeats do not.
fn relevant(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || old.spec != new.spec || allocatable(old) != allocatable(new)
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("queued", &self.queue.depths()).finish_non_exhaustive()
    }
}
