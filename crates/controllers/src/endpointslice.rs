//! Writes the EndpointSlices of each Service that selects Pods.
//!
//! Reads: Service, Pod, Node, EndpointSlice.  Writes: EndpointSlice.
//! Invariant: nothing is planned while a slice that was created has not been seen, because slices have generated
//! names and would be made twice.

use std::{collections::BTreeMap, sync::Arc};

use client::{Informer, Key, reference};
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        core::{Node, ObjectReference, Pod, Service, ServiceSpec},
        discovery::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone},
    },
    meta::{Labels, Meta},
    pods::{expectations::Expectations, hash, state},
    services::{self, slices},
};

pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
const CAPACITY: usize = 100;
const ZONE: &str = "topology.kubernetes.io/zone";

struct Loop {
    scope: Scope,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    pending: Arc<Expectations>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pending = Arc::new(Expectations::default());
    let services = driver.watch::<Service>(driver::wake);
    let pods = driver.watch::<Pod>({
        let services = services.clone();
        move |change, queue| services::wake(change, queue, &services)
    });
    let nodes = driver.watch::<Node>({
        let services = services.clone();
        move |change, queue| {
            let zone = |n: &Option<Arc<Node>>| n.as_ref().and_then(|n| n.label(ZONE).map(str::to_owned));
            if zone(&change.old) != zone(&change.new) {
                services.list().iter().for_each(|s| queue.add(s.key()));
            }
        }
    });
    let slices = driver.watch::<EndpointSlice>({
        let pending = pending.clone();
        move |change, queue| {
            for slice in change.old.iter().chain(&change.new) {
                let Some(service) = slice.label(slices::SERVICE_NAME) else { continue };
                if slice.label(slices::MANAGED_BY) != Some(MANAGER) {
                    continue;
                }
                let key = Key::new(slice.namespace(), service);
                if change.old.is_none() {
                    pending.creation_settled(&key);
                }
                queue.add(key);
            }
        }
    });
    slices.add_index(slices::BY_SERVICE, slices::by_service);
    let this = Arc::new(Loop { scope, services, pods, nodes, slices, pending });
    vec![driver.run(5, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(service) = self.services.get(&key) else {
            // The garbage collector takes the slices of a Service that is gone.
            self.pending.forget(&key);
            return Ok(None);
        };
        let Some(spec) = services::selecting(&service) else { return Ok(None) };
        if !self.pending.satisfied(&key) {
            return Ok(None);
        }
        let existing = self.slices.by_index(slices::BY_SERVICE, &slices::index_value(MANAGER, &key));
        let backends = services::backends(spec, self.pods.list_in(&key.namespace), true);
        let zone = |node: &str| self.nodes.get(&Key::new("", node)).and_then(|n| n.label(ZONE).map(str::to_owned));
        let groups = groups(&service, spec, &backends, zone);
        let frame = slices::Frame::new(&*service, labels(&service, spec), CAPACITY);
        let plan = slices::plan(&frame, groups, &existing);
        let pending = &self.pending;
        let outcome = slices::apply(
            &self.scope.writer,
            plan,
            |count| pending.expect_creations(&key, count),
            || pending.creation_settled(&key),
        )
        .await;
        match outcome {
            Ok(()) => Ok(None),
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) => {
                if !error.is_transient() {
                    let text = format!("Error updating Endpoint Slices for Service {key}: {}", error.message());
                    self.scope.recorder.warning(&reference(&*service), "FailedToUpdateEndpointSlices", text);
                }
                Err(error)
            }
        }
    }
}

fn labels(service: &Service, spec: &ServiceSpec) -> Labels {
    let mut labels = service.labels().clone();
    for reserved in [services::HEADLESS, slices::SERVICE_NAME, slices::MANAGED_BY] {
        labels.remove(reserved);
    }
    if services::is_headless(spec) {
        labels.insert(services::HEADLESS.to_owned(), String::new());
    }
    labels.insert(slices::SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(slices::MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// The endpoints by address type and ports; one empty group for an address type without any.
fn groups(
    service: &Service,
    spec: &ServiceSpec,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<slices::Group> {
    let families = spec.ip_families.clone().filter(|f| !f.is_empty());
    let families = families.unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut all = Vec::new();
    for (address_type, ipv6) in [("IPv4", false), ("IPv6", true)] {
        if !families.iter().any(|f| f == address_type) {
            continue;
        }
        let mut found: BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
        for pod in pods {
            let Some(address) = services::address(pod, ipv6) else { continue };
            let ports = ports(spec, pod);
            let group = found.entry(hash::canonical(&ports).to_string()).or_insert_with(|| (ports, Vec::new()));
            group.1.push(endpoint(service, spec, pod, address, &zone));
        }
        if found.is_empty() {
            all.push(slices::Group { address_type, ports: Vec::new(), endpoints: Vec::new() });
        }
        all.extend(found.into_values().map(|(ports, endpoints)| slices::Group { address_type, ports, endpoints }));
    }
    all
}

fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let port = |p: &crate::kinds::core::ServicePort| {
        Some(EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(services::target(pod, p)?),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: p.app_protocol.clone(),
        })
    };
    spec.ports.iter().flatten().filter_map(port).collect()
}

fn endpoint(
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    address: String,
    zone: &impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let serving = state::is_ready(pod);
    let terminating = pod.is_deleting();
    let ready = spec.publish_not_ready_addresses == Some(true) || serving && !terminating;
    let node = Some(state::node_name(pod).to_owned()).filter(|n| !n.is_empty());
    let zone = node.as_deref().and_then(zone);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(spec, ready, zone.as_deref(), node.as_deref()),
        hostname: services::hostname(pod, service),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.uid().to_owned()),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// `spec.trafficDistribution` as hints: each endpoint serves its own zone, and its own node when nodes are preferred.
fn hints(spec: &ServiceSpec, ready: bool, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let preference = spec.traffic_distribution.as_deref()?;
    let zone = zone.map(|z| vec![ForZone { name: z.to_owned() }]);
    let node = node.map(|n| vec![ForNode { name: n.to_owned() }]);
    let hints = match preference {
        "PreferClose" | "PreferSameZone" => EndpointHints { for_zones: Some(zone?), for_nodes: None },
        "PreferSameNode" => EndpointHints { for_zones: zone, for_nodes: Some(node?) },
        _ => return None,
    };
    ready.then_some(hints)
}
