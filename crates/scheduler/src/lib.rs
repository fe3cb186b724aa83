//! Where pods go.
//!
//! ```text
//! informers -> queue (active | back-off | unschedulable) -> cycle: snapshot, filter, score -> assume -> bind task
//!                  ^------------------ cluster events that may help ------------------------------- failure
//! ```
//!
//! One loop takes one pod at a time and decides from a snapshot in memory; binding runs beside it, and the decided pod
//! counts as placed from the moment of the decision. Reads: Pod, Node, Namespace, PersistentVolume,
//! PersistentVolumeClaim, StorageClass, CSINode, PodDisruptionBudget. Writes: pods/binding, pods/status, victims of
//! preemption, and the claims and volumes that wait for their first consumer.
//!
//! Invariant: nothing is remembered that a restart could not read back; assumed pods are bound or forgotten.

mod bind;
mod cluster;
mod cycle;
mod events;
mod explain;
mod plugin;
mod plugins;
mod preemption;
mod queue;
mod selectors;

use std::sync::Arc;

use client::{Client, Informers, Recorder};
use tokio_util::sync::CancellationToken;

/// What the scheduler is started with.
pub struct Config {
    /// `spec.schedulerName` of the pods it takes.
    pub name: String,
    pub informers: Informers,
    /// What bindings and statuses are written with.
    pub client: Client,
    pub recorder: Recorder,
    pub cancel: CancellationToken,
}

/// Schedules until cancelled.
pub async fn run(config: Config) {
    let scheduler = Arc::new(events::Scheduler::new(config));
    scheduler.run().await;
}
