//! What a plugin is: one file that can refuse nodes, rank nodes, and say which events may change its mind.

use std::{collections::BTreeMap, sync::Arc};

use client::Informer;
use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim},
    policy::v1::PodDisruptionBudget,
    storage::v1::{CSINode, StorageClass},
};

use crate::cluster::{NodeInfo, PodInfo};

/// The highest normalized score.
pub(crate) const SCORE_MAX: i64 = 100;

/// What a filter says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    /// Not now; taking other pods off the node might help.
    Full(Vec<String>),
    /// Not at all, whatever runs there.
    Never(String),
}

/// Other objects that plugins look at.
#[derive(Clone)]
pub(crate) struct Listers {
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) classes: Informer<StorageClass>,
    pub(crate) csi_nodes: Informer<CSINode>,
    pub(crate) budgets: Informer<PodDisruptionBudget>,
}

impl Listers {
    /// Labels of a namespace; none if it is not known.
    pub(crate) fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let namespace = self.namespaces.get(&client::Key::new("", name));
        namespace.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default()
    }
}

/// One scheduling attempt: a pod, the nodes as they are, and the listers.
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) nodes: &'a [Arc<NodeInfo>],
    /// `None` in tests of plugins that need none.
    pub(crate) listers: Option<&'a Listers>,
}

/// A plugin's view of one cycle.
pub(crate) trait View: Send + Sync {
    fn filter(&self, _node: &NodeInfo) -> Verdict {
        Verdict::Fits
    }

    /// A raw score for a node that fits; only called when the plugin's [`Plugin::weight`] is not 0.
    fn score(&self, _node: &NodeInfo) -> i64 {
        0
    }

    /// Brings raw scores to 0..=[`SCORE_MAX`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// A scheduling plugin; registered in `plugins::PLUGINS`.
pub(crate) trait Plugin: Send + Sync {
    /// Upstream's name, as configurations and metrics know it.
    fn name(&self) -> &'static str;

    /// Prepares for a cycle. `Ok(None)`: nothing to say about this pod. `Err`: the pod fits nowhere, and why.
    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String>;

    /// Share in the total score; 0: the plugin does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// Whether a pod that this plugin refused may fit after such an event.
    fn wakes(&self, event: Event) -> bool;
}

/// Changes that can make a pod schedulable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    NodeAdded,
    /// Labels, taints, allocatable or `spec.unschedulable` changed.
    NodeChanged,
    /// A placed pod appeared or changed its labels.
    PodPlaced,
    /// A placed pod is gone or ended.
    PodGone,
    /// A claim, volume, storage class or CSI node changed.
    Storage,
    NamespaceChanged,
}

/// Raw counts to 0..=[`SCORE_MAX`], the highest count best (or worst, if `reverse`).
pub(crate) fn scale(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * SCORE_MAX / max };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
