//! Changing what running containers may use, without starting them anew.
//!
//! A new amount is first accepted by the node ([`decide`]): until then the pod goes on with what it has, and its spec
//! and what it runs with differ. What is accepted is applied by its worker.

use std::sync::Arc;

use api::pod_resources::{self, Resources};
use k8s_openapi::api::core::v1 as core;

use super::PodExt;
use super::admission::{Offer, shortage};
use crate::cri::v1;

/// A resize that the node has not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred`: tried again when other pods end. `Infeasible`: never, on this node.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The pod to run when the spec asks for `wanted` and `current` runs, and why that is not what was asked for.
pub(crate) fn decide(
    current: &core::Pod,
    wanted: &Arc<core::Pod>,
    others: &[Arc<core::Pod>],
    offer: &Offer<'_>,
) -> (Arc<core::Pod>, Option<Pending>) {
    if same(current, wanted) {
        return (wanted.clone(), None);
    }
    let needed = pod_resources::requests(wanted);
    let refused = if pod_is_fixed(wanted) {
        Some(("Infeasible", "In-place resize of static-pods is not supported".to_owned()))
    } else if let Some((name, requested, _, capacity)) = shortage(&needed, &Resources::default(), offer.allocatable) {
        let message = format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
        Some(("Infeasible", message))
    } else {
        let mut used = Resources::default();
        for other in others {
            used.add(&pod_resources::requests(other));
        }
        shortage(&needed, &used, offer.allocatable).map(|(name, requested, used, capacity)| {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            ("Deferred", message)
        })
    };
    match refused {
        None => (wanted.clone(), None),
        Some((reason, message)) => (Arc::new(with_resources_of(wanted, current)), Some(Pending { reason, message })),
    }
}

/// The pod as its status says that it runs: what a kubelet that starts anew finds.
pub(crate) fn as_reported(pod: &core::Pod) -> core::Pod {
    let mut pod = pod.clone();
    let status = pod.status.clone().unwrap_or_default();
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let known: Vec<&core::ContainerStatus> = lists.into_iter().flatten().flatten().collect();
    for container in containers_mut(&mut pod) {
        let reported = known.iter().find(|status| status.name == container.name);
        if let Some(resources) = reported.and_then(|status| status.resources.clone()) {
            container.resources = Some(resources);
        }
    }
    pod
}

fn pod_is_fixed(pod: &core::Pod) -> bool {
    pod.is_static()
}

fn same(one: &core::Pod, other: &core::Pod) -> bool {
    one.containers().iter().all(|(_, container)| {
        let amounts = |container: &core::Container| {
            let resources = container.resources.clone().unwrap_or_default();
            let list = |list: Option<_>| list.as_ref().map(Resources::from_list).unwrap_or_default();
            (list(resources.requests), list(resources.limits))
        };
        other.container(&container.name).is_none_or(|(_, other)| amounts(container) == amounts(&other))
    })
}

fn with_resources_of(pod: &core::Pod, from: &core::Pod) -> core::Pod {
    let mut pod = pod.clone();
    for container in containers_mut(&mut pod) {
        if let Some((_, current)) = from.container(&container.name) {
            container.resources.clone_from(&current.resources);
        }
    }
    pod
}

fn containers_mut(pod: &mut core::Pod) -> impl Iterator<Item = &mut core::Container> {
    pod.spec.iter_mut().flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(&mut spec.containers))
}

/// Whether CPU and memory differ between what is applied and what is wanted.
pub(crate) fn differs(applied: &v1::LinuxContainerResources, wanted: &v1::LinuxContainerResources) -> (bool, bool) {
    let limit = |amount: i64| amount.max(0);
    let cpu = applied.cpu_shares != wanted.cpu_shares || limit(applied.cpu_quota) != limit(wanted.cpu_quota);
    let memory = limit(applied.memory_limit_in_bytes) != limit(wanted.memory_limit_in_bytes);
    (cpu, memory)
}

/// Whether a change of these resources needs a new start of the container.
pub(crate) fn needs_restart(container: &core::Container, (cpu, memory): (bool, bool)) -> bool {
    container.resize_policy.iter().flatten().any(|policy| {
        let changed = match policy.resource_name.as_str() {
            "cpu" => cpu,
            "memory" => memory,
            _ => false,
        };
        changed && policy.restart_policy == "RestartContainer"
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str) -> Arc<core::Pod> {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    #[test]
    fn the_node_has_the_last_word() {
        let allocatable = Resources { cpu_millis: 2000, ..Resources::default() };
        let offer = Offer { node: None, allocatable: &allocatable, max_pods: 9 };
        let others = [pod("1")];
        for (cpu, reason) in [("500m", None), ("1", None), ("1100m", Some("Deferred")), ("3", Some("Infeasible"))] {
            let (effective, pending) = decide(&pod("500m"), &pod(cpu), &others, &offer);
            assert_eq!(pending.map(|pending| pending.reason), reason, "{cpu}");
            assert_eq!(same(&effective, &pod(if reason.is_some() { "500m" } else { cpu })), true, "{cpu}");
        }
    }

    #[test]
    fn policies_by_resource() {
        let container: core::Container = serde_json::from_value(json!({"name": "c", "resizePolicy": [
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}))
        .unwrap();
        assert!(!needs_restart(&container, (true, false)) && needs_restart(&container, (false, true)));
    }
}
