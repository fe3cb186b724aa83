//! Which nodes a DaemonSet's Pods belong on, and the Pod for one node.

use crate::{
    kinds::{
        apps::DaemonSet,
        core::{
            Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
            Toleration,
        },
    },
    meta::Meta,
    pods::{scheduling, template},
    revisions::HASH_LABEL,
};

const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// Conditions of a node that must not drive daemons away: key, effect, only for Pods on the host's network.
const TOLERATED: [(&str, &str, bool); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute", false),
    ("node.kubernetes.io/unreachable", "NoExecute", false),
    ("node.kubernetes.io/disk-pressure", "NoSchedule", false),
    ("node.kubernetes.io/memory-pressure", "NoSchedule", false),
    ("node.kubernetes.io/pid-pressure", "NoSchedule", false),
    ("node.kubernetes.io/unschedulable", "NoSchedule", false),
    ("node.kubernetes.io/network-unavailable", "NoSchedule", true),
];

/// `(should run, may go on running)` on the node.
pub(super) fn verdict(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let Some(spec) = set.spec.as_ref().and_then(|s| s.template.spec.as_ref()) else { return (false, false) };
    let named = spec.node_name.as_deref().unwrap_or_default();
    if !named.is_empty() && named != node.name() || !scheduling::admits(spec, node) {
        return (false, false);
    }
    let tolerations = tolerations(spec);
    let taints = scheduling::taints(node);
    let against = |effects: &[&str]| {
        scheduling::untolerated(taints, &tolerations, |t| effects.contains(&t.effect.as_str())).is_some()
    };
    (!against(&["NoExecute", "NoSchedule"]), !against(&["NoExecute"]))
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for (key, effect, on_host_network) in TOLERATED {
        if on_host_network && spec.host_network != Some(true) {
            continue;
        }
        let added = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        match all.iter_mut().find(|t| t.key == added.key && t.effect == added.effect && t.operator == added.operator) {
            Some(same) => *same = added,
            None => all.push(added),
        }
    }
    all
}

fn generation(set: &DaemonSet) -> Option<&str> {
    set.annotation(GENERATION_ANNOTATION)
}

/// Whether the Pod was made from the present template.
pub(super) fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let by_generation = generation(set).is_some_and(|g| pod.label(GENERATION_LABEL) == Some(g));
    by_generation || !hash.is_empty() && pod.label(HASH_LABEL) == Some(hash)
}

/// The node that a Pod is on or is pinned to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let named = fields.into_iter().find(|f| f.key == "metadata.name" && f.operator == "In")?;
    named.values.as_ref()?.first().map(String::as_str)
}

/// The Pod for one node.
pub(super) fn daemon_pod(set: &DaemonSet, node: &str, hash: &str) -> Option<Pod> {
    let template = &set.spec.as_ref()?.template;
    let mut pod = template::pod(set, template);
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let spec = pod.spec.as_mut()?;
    spec.tolerations = Some(tolerations(spec));
    let pin = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm { match_fields: Some(vec![pin]), match_expressions: None }],
    });
    Some(pod)
}
