//! Where ReplicaSet and ReplicationController keep what the loop reads and writes.

use crate::{
    kinds::{
        LabelSelector, Time,
        apps::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
    },
    pods::wake::PodOwner,
};

/// The status of both kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    /// Only ReplicaSets report it.
    pub(crate) terminating: Option<i32>,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) since: Option<Time>,
}

/// An object that wants a number of equal Pods.
pub(crate) trait Replicas: PodOwner {
    fn replicas(&self) -> i32;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn observed_generation(&self) -> i64;
    fn status(&self) -> Status;
    /// A copy with the status and the current generation as the observed one.
    fn with_status(&self, status: Status) -> Self;
    /// Whether the kind reports Pods that are being deleted.
    const COUNTS_TERMINATING: bool;
}

macro_rules! conditions {
    (read $list:expr) => {
        $list
            .iter()
            .flatten()
            .map(|c| Condition {
                kind: c.type_.clone(),
                status: c.status.clone(),
                reason: c.reason.clone(),
                message: c.message.clone(),
                since: c.last_transition_time.clone(),
            })
            .collect()
    };
    (write $kind:ident, $list:expr) => {{
        let list: Vec<$kind> = $list
            .into_iter()
            .map(|c: Condition| $kind {
                type_: c.kind,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.since,
            })
            .collect();
        (!list.is_empty()).then_some(list)
    }};
}

impl PodOwner for ReplicaSet {
    fn selector(&self) -> Option<LabelSelector> {
        self.spec.as_ref().map(|s| s.selector.clone())
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }
}

impl Replicas for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn observed_generation(&self) -> i64 {
        self.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0)
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else { return Status::default() };
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            conditions: conditions!(read status.conditions),
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let written = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: Some(status.fully_labeled),
            ready_replicas: Some(status.ready),
            available_replicas: Some(status.available),
            terminating_replicas: status.terminating,
            observed_generation: self.metadata.generation,
            conditions: conditions!(write ReplicaSetCondition, status.conditions),
        };
        Self { status: Some(written), ..self.clone() }
    }
}

impl PodOwner for ReplicationController {
    fn selector(&self) -> Option<LabelSelector> {
        let labels = self.spec.as_ref()?.selector.clone().filter(|s| !s.is_empty())?;
        Some(LabelSelector { match_labels: Some(labels), match_expressions: None })
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }
}

impl Replicas for ReplicationController {
    const COUNTS_TERMINATING: bool = false;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn observed_generation(&self) -> i64 {
        self.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0)
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else { return Status::default() };
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            conditions: conditions!(read status.conditions),
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let written = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: Some(status.fully_labeled),
            ready_replicas: Some(status.ready),
            available_replicas: Some(status.available),
            observed_generation: self.metadata.generation,
            conditions: conditions!(write ReplicationControllerCondition, status.conditions),
        };
        Self { status: Some(written), ..self.clone() }
    }
}
