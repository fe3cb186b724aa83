//! May a pod run here: the node's own answer, whatever a scheduler thought.
//!
//! A pod that does not fit fails at once, with the reason that tells which check refused it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod_resources::{self, Resources};
use k8s_openapi::api::core::v1 as core;

use super::PodExt;
use super::status::Failure;

/// What the node offers.
pub(crate) struct Offer<'a> {
    pub(crate) node: Option<&'a core::Node>,
    pub(crate) allocatable: &'a Resources,
    pub(crate) max_pods: u32,
}

/// Refuses `pod` if it cannot run beside `others`, all of them admitted and not finished.
pub(crate) fn admit(pod: &core::Pod, others: &[Arc<core::Pod>], offer: &Offer<'_>) -> Result<(), Failure> {
    let refuse = |reason: &str, message: String| {
        Err(Failure { reason: reason.to_owned(), message: format!("Pod was rejected: {message}") })
    };
    if pod.specification().os.as_ref().is_some_and(|os| os.name != "linux") {
        return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".to_owned());
    }
    if others.len() >= usize::try_from(offer.max_pods).unwrap_or(usize::MAX) {
        let used = others.len();
        let message =
            format!("Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {}", offer.max_pods);
        return refuse("OutOfpods", message);
    }
    let mut used = Resources::default();
    for other in others {
        used.add(&pod_resources::requests(other));
    }
    let wanted = pod_resources::requests(pod);
    if let Some((name, requested, used, capacity)) = shortage(&wanted, &used, offer.allocatable) {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        return refuse(&format!("OutOf{name}"), message);
    }
    if let Some(name) = unsafe_sysctl(pod) {
        return refuse("SysctlForbidden", format!("forbidden sysctl: \"{name}\" not allowlisted"));
    }
    let Some(node) = offer.node else { return Ok(()) };
    if !selected(pod, node) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return refuse("NodeAffinity", message.to_owned());
    }
    if let Some(port) = taken_port(pod, others) {
        return refuse("NodePorts", format!("Predicate NodePorts failed: host port {port} is in use"));
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let hostile = taints.filter(|taint| taint.effect == "NoExecute").find(|taint| !tolerated(pod, taint));
    match hostile.filter(|_| !pod.is_static()) {
        Some(taint) => refuse(
            "TaintToleration",
            format!("Predicate TaintToleration failed: node had untolerated taint {}", taint.key),
        ),
        None => Ok(()),
    }
}

/// Settings that stay in the pod's own namespaces and cannot hurt its neighbours.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The first setting that is not safe, or that would be the host's.
fn unsafe_sysctl(pod: &core::Pod) -> Option<String> {
    let context = pod.specification().security_context.as_ref()?;
    let names = context.sysctls.iter().flatten().map(|sysctl| sysctl.name.replace('/', "."));
    let host_ipc = pod.specification().host_ipc == Some(true);
    let shared =
        |name: &str| (pod.is_host_network() && name.starts_with("net.")) || (host_ipc && name.starts_with("kernel."));
    names.into_iter().find(|name| !SAFE_SYSCTLS.contains(&name.as_str()) || shared(name))
}

/// The first resource of which there is not enough: its name, what is requested, used and there.
pub(super) fn shortage(wanted: &Resources, used: &Resources, capacity: &Resources) -> Option<(String, i64, i64, i64)> {
    let amounts = [
        ("cpu", wanted.cpu_millis, used.cpu_millis, capacity.cpu_millis),
        ("memory", wanted.memory_bytes, used.memory_bytes, capacity.memory_bytes),
        ("ephemeral-storage", wanted.ephemeral_bytes, used.ephemeral_bytes, capacity.ephemeral_bytes),
    ];
    let of = |resources: &Resources, name: &str| resources.other.get(name).copied().unwrap_or(0);
    let other = wanted.other.iter().map(|(name, amount)| (name.as_str(), *amount, of(used, name), of(capacity, name)));
    let mut all = amounts.into_iter().chain(other);
    let short = all.find(|(_, requested, used, capacity)| *requested > 0 && *requested > capacity - used);
    short.map(|(name, requested, used, capacity)| (name.to_owned(), requested, used, capacity))
}

fn tolerated(pod: &core::Pod, taint: &core::Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    pod.specification().tolerations.iter().flatten().any(|toleration| {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let effect = some(&toleration.effect).is_none_or(|effect| effect == taint.effect);
        let key = some(&toleration.key).is_none_or(|key| key == taint.key);
        let exists = toleration.operator.as_deref() == Some("Exists");
        effect && key && (exists || toleration.value.as_deref().unwrap_or_default() == value)
    })
}

/// A host port of the pod that another pod holds on the same address.
fn taken_port(pod: &core::Pod, others: &[Arc<core::Pod>]) -> Option<i32> {
    let ports = |pod: &core::Pod| -> Vec<(i32, String, String)> {
        let containers = pod.containers();
        let all = containers.iter().flat_map(|(_, container)| container.ports.iter().flatten());
        all.filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((number, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), address))
        })
        .collect()
    };
    let held: Vec<_> = others.iter().flat_map(|other| ports(other)).collect();
    let clash = |(number, protocol, address): &(i32, String, String)| {
        held.iter().any(|(other, of, at)| {
            let any = at == "0.0.0.0" || address == "0.0.0.0";
            number == other && protocol == of && (any || at == address)
        })
    };
    ports(pod).iter().find(|port| clash(port)).map(|port| port.0)
}

/// Whether the node has what `nodeSelector` and the required node affinity ask for.
fn selected(pod: &core::Pod, node: &core::Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let spec = pod.specification();
    let simple = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    simple
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| {
                let (labelled, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
                let any = labelled.is_some_and(|list| !list.is_empty()) || fields.is_some_and(|list| !list.is_empty());
                any && labelled.into_iter().flatten().all(|need| holds(need, labels.get(&need.key).map(String::as_str)))
                    && fields.into_iter().flatten().all(|need| need.key == "metadata.name" && holds(need, Some(name)))
            })
        })
}

fn holds(need: &core::NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = || need.values.iter().flatten();
    let listed = value.is_some_and(|value| values().any(|other| other == value));
    let compare = |order: fn(&i64, &i64) -> bool| {
        let number = value.and_then(|value| value.parse::<i64>().ok());
        let bound = values().next().and_then(|bound| bound.parse::<i64>().ok());
        number.zip(bound).is_some_and(|(number, bound)| order(&number, &bound))
    };
    match need.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> core::Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn reasons() {
        let cpu = |amount: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]});
        let port = || json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        let affinity = |values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": values}]}]}}}})
        };
        let node: core::Node = serde_json::from_value(json!({
            "metadata": {"name": "node", "labels": {"zone": "a"}},
            "spec": {"taints": [{"key": "k", "effect": "NoExecute"}, {"key": "soft", "effect": "NoSchedule"}]},
        }))
        .unwrap();
        let tolerate = json!([{"operator": "Exists"}]);
        let with = |mut spec: Value| {
            spec["tolerations"] = tolerate.clone();
            spec
        };
        let others = [Arc::new(pod(cpu("1500m"))), Arc::new(pod(port()))];
        let allocatable = Resources { cpu_millis: 2000, memory_bytes: 1 << 30, ..Resources::default() };
        for (spec, expect) in [
            (with(json!({})), None),
            (with(cpu("500m")), None),
            (with(cpu("600m")), Some("OutOfcpu")),
            (with(port()), Some("NodePorts")),
            (with(json!({"nodeSelector": {"zone": "b"}})), Some("NodeAffinity")),
            (with(affinity(json!(["a", "b"]))), None),
            (with(affinity(json!(["b"]))), Some("NodeAffinity")),
            (json!({}), Some("TaintToleration")),
            (with(json!({"os": {"name": "windows"}})), Some("PodOSNotSupported")),
            (
                with(json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}})),
                Some("SysctlForbidden"),
            ),
            (with(json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}})), None),
        ] {
            let offer = Offer { node: Some(&node), allocatable: &allocatable, max_pods: 3 };
            let refused = admit(&pod(spec.clone()), &others, &offer).err().map(|failure| failure.reason);
            assert_eq!(refused.as_deref(), expect, "{spec}");
        }
        let offer = Offer { node: None, allocatable: &allocatable, max_pods: 2 };
        let full = admit(&pod(json!({})), &others, &offer).unwrap_err();
        assert_eq!(
            full.message,
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
    }
}
