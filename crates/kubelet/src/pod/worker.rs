//! One task per pod, from its first sight to its last trace.
//!
//! ```text
//! Syncing ──(deleted, evicted, out of time, all done)──> Stopping ──> Stopped ──(deleted)──> gone
//! ```
//!
//! The worker takes orders (what the API or a manifest says) and wakes (something happened in the runtime, a probe
//! changed its mind, an object in use changed, a pull ended). Each turn reads the runtime anew and does what
//! [`super::plan`] says; nothing is decided by what an event said. Only one thing may take long in a turn, a hook, and
//! that is given up when the pod has to stop.

mod finish;
mod pull;
mod resize;
mod sync;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, watch};
use tracing::{Instrument, debug, info_span};

use super::PodExt;
use super::backoff::Backoff;
use super::observed::{Observed, Observer};
use super::plan::Health;
use super::publish::Publisher;
use super::resize::Pending;
use super::status::{self, Failure, Waiting};
use crate::cri::v1::LinuxContainerResources;
use crate::objects::Objects;
use crate::probes::{Probes, Tools};
use crate::shared::Shared;
use crate::volumes::{Tokens, Volumes};

/// What a pod should be, as its worker was last told.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) pod: Arc<core::Pod>,
    /// Of a static pod: the API's image of it, which takes its status.
    pub(crate) mirror: Option<Arc<core::Pod>>,
    /// The API (or the manifest directory) no longer has it.
    pub(crate) removed: bool,
    /// It must fail: rejected at the door, or evicted.
    pub(crate) failure: Option<Failure>,
    /// Seconds of grace instead of the pod's own.
    pub(crate) grace: Option<i64>,
    /// The pod as its source has it: `pod` may keep older resources while a resize is `pending`.
    pub(crate) wanted: Arc<core::Pod>,
    pub(crate) pending: Option<Pending>,
}

impl Orders {
    pub(crate) fn new(pod: Arc<core::Pod>) -> Self {
        Self { wanted: pod.clone(), pod, mirror: None, removed: false, failure: None, grace: None, pending: None }
    }
}

/// The manager's end of a worker.
pub(crate) struct Handle {
    pub(crate) orders: watch::Sender<Orders>,
    pub(crate) wake: Arc<Notify>,
    /// The status as the worker sees it now, for the node's server and for admission.
    pub(crate) status: watch::Receiver<Option<core::PodStatus>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Syncing,
    Stopping,
    /// Nothing runs; volumes and cgroup are gone. What is left waits for deletion.
    Stopped,
}

/// What a turn ends with.
enum Next {
    /// Wait for orders or a wake, at most until then.
    Wait(Option<Timestamp>),
    Again,
    Gone,
}

/// Longest and shortest wait after a turn that failed.
const RETRY_MAX: Duration = Duration::from_secs(20);
const RETRY_MIN: Duration = Duration::from_millis(500);

struct Worker {
    shared: Arc<Shared>,
    uid: String,
    orders: watch::Receiver<Orders>,
    wake: Arc<Notify>,
    shown: watch::Sender<Option<core::PodStatus>>,
    stage: Stage,
    start: Timestamp,
    observer: Observer,
    observed: Observed,
    publisher: Publisher,
    probes: Probes,
    volumes: Volumes,
    tokens: Tokens,
    objects: Objects,
    /// Why containers wait, from the last turn.
    waiting: HashMap<String, Waiting>,
    restarts: Backoff,
    pulls: pull::Pulls,
    /// Addresses of the pod; kept after its sandbox is gone.
    addresses: Vec<String>,
    failure: Option<Failure>,
    /// What was last set for running containers, by id.
    applied: HashMap<String, LinuxContainerResources>,
    pending: Option<Pending>,
    /// Why the last resize could not be applied.
    resize_error: Option<String>,
    retry: Duration,
    /// When the grace of a pod that stops ends.
    deadline: Option<tokio::time::Instant>,
    synced_once: bool,
}

/// Starts a worker. It ends by itself once the pod is gone, and tells `ended` its UID.
pub(crate) fn spawn(shared: Arc<Shared>, orders: Orders, ended: tokio::sync::mpsc::UnboundedSender<String>) -> Handle {
    let wake = Arc::new(Notify::new());
    let uid = orders.pod.uid().to_owned();
    let (sender, receiver) = watch::channel(orders);
    let (shown, status) = watch::channel(None);
    let handle = Handle { orders: sender, wake: wake.clone(), status };
    let cancel = shared.config.cancel.clone();
    let worker = Worker::new(shared, uid.clone(), receiver, wake, shown);
    tokio::spawn(async move {
        // A process that ends leaves its containers alone.
        cancel.run_until_cancelled(worker.run()).await;
        let _ = ended.send(uid);
    });
    handle
}

impl Worker {
    fn new(
        shared: Arc<Shared>,
        uid: String,
        orders: watch::Receiver<Orders>,
        wake: Arc<Notify>,
        shown: watch::Sender<Option<core::PodStatus>>,
    ) -> Self {
        let pod = orders.borrow().pod.clone();
        let reported = pod.reported();
        let addresses = reported.pod_ips.iter().flatten().map(|address| address.ip.clone()).collect();
        let start = reported.start_time.as_ref().map_or_else(Timestamp::now, |time| time.0);
        Self {
            publisher: Publisher::new(shared.client.clone()),
            probes: Probes::new(wake.clone()),
            objects: shared.objects.for_pod(&uid, wake.clone()),
            shared,
            uid,
            orders,
            wake,
            shown,
            stage: Stage::Syncing,
            start,
            observer: Observer::default(),
            observed: Observed::default(),
            volumes: Volumes::default(),
            tokens: Tokens::default(),
            waiting: HashMap::new(),
            restarts: Backoff::default(),
            pulls: pull::Pulls::default(),
            addresses,
            failure: None,
            applied: HashMap::new(),
            pending: None,
            resize_error: None,
            retry: RETRY_MIN,
            deadline: None,
            synced_once: false,
        }
    }

    async fn run(mut self) {
        loop {
            let orders = self.orders.borrow_and_update().clone();
            let span = info_span!("pod", pod = %orders.pod.full_name(), stage = ?self.stage);
            let began = tokio::time::Instant::now();
            let next = self.turn(orders).instrument(span).await;
            self.shared.metrics.turn(began.elapsed());
            match next {
                Next::Again => {}
                Next::Gone => break,
                Next::Wait(until) => self.wait(until).await,
            }
        }
        self.objects.release(&self.uid);
    }

    async fn turn(&mut self, orders: Orders) -> Next {
        let pod = orders.pod.clone();
        self.publisher.observe(orders.mirror.as_ref().filter(|_| pod.is_static()).unwrap_or(&pod));
        self.pending.clone_from(&orders.pending);
        if self.failure.is_none() {
            self.failure.clone_from(&orders.failure);
        }
        if self.stage == Stage::Syncing && (must_stop(&orders) || self.failure.is_some() || pod.is_terminal()) {
            self.stage = Stage::Stopping;
        }
        match self.stage {
            Stage::Syncing => self.sync(&pod).await,
            Stage::Stopping => self.stop(&orders).await,
            Stage::Stopped => self.finish(&orders).await,
        }
    }

    async fn wait(&mut self, until: Option<Timestamp>) {
        let left = until.map(|until| Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default());
        let timer = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wake.notified() => {}
            changed = self.orders.changed() => {
                if changed.is_err() {
                    // The manager is gone, so the process ends.
                    std::future::pending::<()>().await;
                }
            }
            () = timer => {}
        }
    }

    /// The wait after a failure, twice as long each time.
    fn back_off(&mut self) -> Next {
        let delay = self.retry;
        self.retry = (self.retry * 2).min(RETRY_MAX);
        Next::Wait(Timestamp::now().checked_add(delay).ok())
    }

    async fn observe(&mut self) -> Result<(), crate::cri::Error> {
        self.observed = self.observer.observe(&self.shared.runtime, &self.uid).await?;
        if let Some(sandbox) = self.observed.sandbox().filter(|sandbox| !sandbox.addresses.is_empty()) {
            self.addresses.clone_from(&sandbox.addresses);
        }
        Ok(())
    }

    /// Where probes and hooks of the pod go.
    fn address<'a>(&'a self, pod: &core::Pod) -> &'a str {
        let addresses = if pod.is_host_network() { &self.shared.fields.addresses } else { &self.addresses };
        addresses.first().map_or("", String::as_str)
    }

    fn tools(&self) -> Tools {
        let shared = &self.shared;
        Tools { runtime: shared.runtime.clone(), recorder: shared.recorder.clone(), metrics: shared.metrics.clone() }
    }

    /// Computes the status and hands it to the publisher. `terminal`: nothing will start again.
    fn publish(&mut self, pod: &core::Pod, terminal: bool) -> core::PodStatus {
        let last = self.publisher.last();
        let old = last.as_ref().unwrap_or_else(|| pod.reported());
        let health = |id: &str| -> Option<Health> { self.probes.health(id) };
        let status = status::status(&status::Inputs {
            pod,
            observed: &self.observed,
            old,
            waiting: &self.waiting,
            health: &health,
            failure: self.failure.as_ref(),
            pending: self.pending.as_ref(),
            resize_error: self.resize_error.as_deref(),
            terminal,
            node_addresses: &self.shared.fields.addresses,
            runtime_name: self.shared.runtime_name(),
            addresses: &self.addresses,
            start: self.start,
            now: Timestamp::now(),
        });
        debug!(phase = status.phase, "status");
        self.publisher.publish(status.clone());
        self.shown.send_replace(Some(status.clone()));
        status
    }
}

/// Whether the orders say that the pod has to go.
fn must_stop(orders: &Orders) -> bool {
    orders.removed || orders.pod.is_deleting()
}

#[cfg(test)]
mod tests;
