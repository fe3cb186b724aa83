//! Sums up what the objects of a namespace use, under the names that quotas give it.

use std::{collections::BTreeMap, str::FromStr};

use api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::{
    kinds::core::{PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ScopedResourceSelectorRequirement, Service},
    meta::seconds,
    pods::state,
};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// Amounts by name.
#[derive(Debug, Default)]
pub(super) struct Usage {
    amounts: BTreeMap<String, Quantity>,
}

/// Whether the name is summed up here, and not a count of objects of any kind.
pub(super) fn is_computed(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "count/pods"
            | "cpu"
            | "memory"
            | "ephemeral-storage"
            | "services"
            | "count/services"
            | "services.loadbalancers"
            | "services.nodeports"
            | "persistentvolumeclaims"
            | "count/persistentvolumeclaims"
    ) || ["requests.", "limits.", "hugepages-"].iter().any(|p| name.starts_with(p))
        || name.contains(CLASS_SUFFIX)
}

fn parse(text: &Text) -> Quantity {
    Quantity::from_str(&text.0).unwrap_or_default()
}

/// Equal names with amounts of equal value.
pub(super) fn same(a: &BTreeMap<String, Text>, b: &BTreeMap<String, Text>) -> bool {
    a.len() == b.len() && a.iter().all(|(name, text)| b.get(name).is_some_and(|other| parse(other) == parse(text)))
}

impl Usage {
    pub(super) fn of(&self, name: &str) -> Text {
        Text(self.amounts.get(name).copied().unwrap_or_default().to_string())
    }

    pub(super) fn set_count(&mut self, name: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.amounts.insert(name.to_owned(), Quantity::from_int(count, Format::DecimalSi));
    }

    fn add(&mut self, name: &str, amount: &Quantity) {
        self.amounts.entry(name.to_owned()).or_insert(Quantity::from_int(0, amount.format())).add(amount);
    }

    fn count(&mut self, name: &str, count: usize) {
        self.add(name, &Quantity::from_int(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi));
    }

    pub(super) fn add_pod(&mut self, quota: &ResourceQuota, pod: &Pod, now: Timestamp) {
        if !in_scope(quota, pod) {
            return;
        }
        self.count("count/pods", 1);
        if state::is_terminal(pod) || is_overdue(pod, now) {
            return;
        }
        self.count("pods", 1);
        let sums = [("requests.", api::pod_resources::requests(pod)), ("limits.", api::pod_resources::limits(pod))];
        for (prefix, sum) in sums {
            let mut put = |name: &str, amount: Quantity| {
                if amount.is_zero() {
                    return;
                }
                self.add(&format!("{prefix}{name}"), &amount);
                if prefix == "requests." && (is_plain(name) || name.starts_with("hugepages-")) {
                    self.add(name, &amount);
                }
            };
            put("cpu", Quantity::from_milli(sum.cpu_millis, Format::DecimalSi));
            put("memory", Quantity::from_int(sum.memory_bytes, Format::BinarySi));
            put("ephemeral-storage", Quantity::from_int(sum.ephemeral_bytes, Format::BinarySi));
            for (name, amount) in &sum.other {
                put(name, Quantity::from_int(*amount, Format::DecimalSi));
            }
        }
    }

    pub(super) fn add_service(&mut self, service: &Service) {
        self.count("services", 1);
        self.count("count/services", 1);
        let Some(spec) = &service.spec else { return };
        let ports = spec.ports.iter().flatten();
        match spec.type_.as_deref() {
            Some("NodePort") => self.count("services.nodeports", ports.count()),
            Some("LoadBalancer") => {
                self.count("services.loadbalancers", 1);
                let with_ports = spec.allocate_load_balancer_node_ports != Some(false);
                let allocated = ports.filter(|p| with_ports || p.node_port.is_some_and(|n| n != 0)).count();
                self.count("services.nodeports", allocated);
            }
            _ => {}
        }
    }

    pub(super) fn add_claim(&mut self, claim: &PersistentVolumeClaim) {
        self.count("persistentvolumeclaims", 1);
        self.count("count/persistentvolumeclaims", 1);
        let Some(spec) = &claim.spec else { return };
        let class = spec.storage_class_name.as_deref().filter(|c| !c.is_empty());
        if let Some(class) = class {
            self.count(&format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), 1);
        }
        let requested = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
        let Some(requested) = requested.map(parse) else { return };
        let allocated =
            claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref()).and_then(|a| a.get("storage"));
        let amount = allocated.map_or(requested, |a| requested.max(parse(a)));
        self.add("requests.storage", &amount);
        if let Some(class) = class {
            self.add(&format!("{class}{CLASS_SUFFIX}requests.storage"), &amount);
        }
    }
}

fn is_plain(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// Deleted, and its time to end is over: a node that is gone must not hold the quota.
fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds;
    pod.metadata.deletion_timestamp.as_ref().zip(grace).is_some_and(|(at, grace)| at.0 + seconds(grace) < now)
}

fn in_scope(quota: &ResourceQuota, pod: &Pod) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let plain = spec.scopes.iter().flatten().all(|scope| has_scope(pod, scope));
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    plain && selected.into_iter().all(|r| matches_requirement(pod, r))
}

fn has_scope(pod: &Pod, scope: &str) -> bool {
    let spec = pod.spec.as_ref();
    let ends = spec.and_then(|s| s.active_deadline_seconds).is_some_and(|d| d >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => priority_class(pod).is_some(),
        "CrossNamespacePodAffinity" => spec.is_some_and(reaches_other_namespaces),
        _ => false,
    }
}

fn priority_class(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.priority_class_name.as_deref().filter(|n| !n.is_empty())
}

fn matches_requirement(pod: &Pod, requirement: &ScopedResourceSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    if requirement.scope_name != "PriorityClass" {
        return has_scope(pod, &requirement.scope_name) == (requirement.operator != "DoesNotExist");
    }
    let class = priority_class(pod);
    let listed = class.is_some_and(|c| values.iter().any(|v| v == c));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => class.is_some(),
        "DoesNotExist" => class.is_none(),
        _ => false,
    }
}

fn is_best_effort(pod: &Pod) -> bool {
    if let Some(class) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        return class == "BestEffort";
    }
    let none = |r: &api::pod_resources::Resources| r.cpu_millis == 0 && r.memory_bytes == 0;
    none(&api::pod_resources::requests(pod)) && none(&api::pod_resources::limits(pod))
}

fn reaches_other_namespaces(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.iter().flat_map(|a| {
        let soft = a.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let hard = a.required_during_scheduling_ignored_during_execution.iter().flatten();
        hard.chain(soft.map(|s| &s.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.iter().flat_map(|a| {
        let soft = a.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let hard = a.required_during_scheduling_ignored_during_execution.iter().flatten();
        hard.chain(soft.map(|s| &s.pod_affinity_term))
    });
    near.chain(far).any(|t| t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn sums() {
        let quota: ResourceQuota =
            from_value(json!({"metadata": {}, "spec": {"scopes": ["NotBestEffort"]}})).expect("quota");
        let pod = |phase: &str, resources: serde_json::Value| -> Pod {
            from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}, "status": {"phase": phase}}))
                .expect("pod")
        };
        let some = json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1"}});
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let mut usage = Usage::default();
        usage.add_pod(&quota, &pod("Running", some.clone()), now);
        usage.add_pod(&quota, &pod("Pending", some.clone()), now);
        usage.add_pod(&quota, &pod("Succeeded", some), now);
        usage.add_pod(&quota, &pod("Running", json!({})), now);
        usage.add_service(
            &from_value(json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}}))
                .expect("service"),
        );
        usage.add_claim(
            &from_value(json!({"metadata": {}, "spec": {"storageClassName": "fast",
            "resources": {"requests": {"storage": "5Gi"}}}}))
            .expect("claim"),
        );
        let cases = [
            ("pods", "2"),
            ("count/pods", "3"),
            ("cpu", "500m"),
            ("requests.cpu", "500m"),
            ("limits.cpu", "2"),
            ("requests.memory", "2Gi"),
            ("services", "1"),
            ("services.nodeports", "2"),
            ("requests.storage", "5Gi"),
            ("fast.storageclass.storage.k8s.io/persistentvolumeclaims", "1"),
            ("services.loadbalancers", "0"),
        ];
        for (name, expected) in cases {
            assert_eq!(usage.of(name).0, expected, "{name}");
        }
    }
}
