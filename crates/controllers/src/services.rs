//! Services and the Pods behind them: what the endpoint controllers share.

pub(crate) mod slices;

use std::{net::IpAddr, sync::Arc};

use client::{Change, Informer, Key, Queue};

use crate::{
    kinds::{
        IntOrString,
        core::{Pod, PodSpec, Service, ServicePort, ServiceSpec},
    },
    meta::{Labels, Meta},
    pods::state,
};

/// Set on endpoints of Services without an address of their own.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Service's spec, if a controller has to find its endpoints.
pub(crate) fn selecting(service: &Service) -> Option<&ServiceSpec> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    (!external && spec.selector.is_some()).then_some(spec)
}

pub(crate) fn selects(spec: &ServiceSpec, labels: &Labels) -> bool {
    let selector = spec.selector.as_ref();
    selector.is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// What of a Pod shows in endpoints; other changes wake nobody.
fn projection(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    (
        pod.status.as_ref().map(|s| (&s.pod_ip, s.pod_ips.as_deref().unwrap_or_default())),
        state::is_ready(pod),
        pod.is_deleting(),
        state::is_terminal(pod),
        spec.map(|s| (&s.hostname, &s.subdomain, &s.node_name)),
        pod.labels(),
        pod.uid(),
    )
}

/// Queues the Services that a change of a Pod may concern.
pub(crate) fn wake(change: &Change<Pod>, queue: &Queue<Key>, services: &Informer<Service>) {
    let unchanged = match (&change.old, &change.new) {
        (Some(old), Some(new)) => projection(old) == projection(new),
        _ => false,
    };
    let Some(namespace) = change.new.as_ref().or(change.old.as_ref()).map(|p| p.namespace().to_owned()) else { return };
    if unchanged {
        return;
    }
    for service in services.list_in(&namespace) {
        let Some(spec) = selecting(&service) else { continue };
        if [&change.old, &change.new].into_iter().flatten().any(|p| selects(spec, p.labels())) {
            queue.add(service.key());
        }
    }
}

/// The Pods that the Service selects and that may take traffic, sorted by name.
pub(crate) fn backends(spec: &ServiceSpec, pods: Vec<Arc<Pod>>, terminating_too: bool) -> Vec<Arc<Pod>> {
    let has_address = |pod: &Pod| pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_some_and(|ip| !ip.is_empty());
    let mut found: Vec<_> = pods
        .into_iter()
        .filter(|p| selects(spec, p.labels()) && !state::is_terminal(p) && has_address(p))
        .filter(|p| terminating_too || !p.is_deleting())
        .collect();
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found
}

/// The Pod's address of one family.
pub(crate) fn address(pod: &Pod, ipv6: bool) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|p| p.ip.as_str()).chain(status.pod_ip.as_deref());
    all.filter_map(|text| text.parse::<IpAddr>().ok()).find(|ip| ip.is_ipv6() == ipv6).map(|ip| ip.to_string())
}

/// The Pod's hostname, when the Service publishes it in DNS.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec: &PodSpec = pod.spec.as_ref()?;
    let ours = spec.subdomain.as_deref() == Some(service.name());
    spec.hostname.clone().filter(|h| !h.is_empty() && ours)
}

/// The number behind the Service port's target in this Pod, if the Pod has such a port.
pub(crate) fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".to_owned());
            let mut named = ports.filter(|p| p.name.as_ref() == Some(name));
            named.find(|p| protocol(&p.protocol) == protocol(&port.protocol)).map(|p| p.container_port)
        }
    }
}
