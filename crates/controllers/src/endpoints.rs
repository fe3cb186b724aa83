//! Writes the Endpoints object of each Service that selects Pods.
//!
//! Reads: Service, Pod, Endpoints.  Writes: Endpoints.
//! Kept for clients of the older API; the proxy reads EndpointSlices. Holds at most 1,000 addresses.

use std::{collections::BTreeMap, sync::Arc};

use client::{Informer, Key, reference};
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        ObjectMeta,
        core::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServiceSpec},
    },
    meta::{Labels, Meta},
    pods::state,
    services,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const CAPACITY: usize = 1000;

struct Loop {
    scope: Scope,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let services = driver.watch::<Service>(driver::wake);
    let pods = driver.watch::<Pod>({
        let services = services.clone();
        move |change, queue| services::wake(change, queue, &services)
    });
    let endpoints = driver.watch::<Endpoints>(|change, queue| {
        let ours = |e: &Arc<Endpoints>| e.label(MANAGED_BY).is_some();
        if change.old.as_ref().or(change.new.as_ref()).is_some_and(ours) {
            driver::wake(change, queue);
        }
    });
    let this = Arc::new(Loop { scope, services, pods, endpoints });
    vec![driver.run(5, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let writer = &self.scope.writer;
        let current = self.endpoints.get(&key);
        let Some(service) = self.services.get(&key) else {
            if current.is_some_and(|c| c.label(MANAGED_BY).is_some()) {
                writer.delete::<Endpoints>(&key, None).await?;
            }
            return Ok(None);
        };
        let Some(spec) = services::selecting(&service) else { return Ok(None) };
        let backends = services::backends(spec, self.pods.list_in(&key.namespace), publishes_all(spec));
        let wanted = wanted(&service, spec, &backends);
        let result = match current {
            None => {
                writer.create(&wanted).await.map_err(|e| (e, "FailedToCreateEndpoint", "create endpoint for service"))
            }
            Some(current) if is_up_to_date(&current, &wanted) => return Ok(None),
            Some(current) => {
                let mut next = Endpoints::clone(&current);
                next.subsets = wanted.subsets;
                next.metadata.labels = wanted.metadata.labels;
                next.metadata.annotations.get_or_insert_default().remove(OVER_CAPACITY);
                next.metadata
                    .annotations
                    .get_or_insert_default()
                    .extend(wanted.metadata.annotations.unwrap_or_default());
                writer.update(&next).await.map_err(|e| (e, "FailedToUpdateEndpoint", "update endpoint"))
            }
        };
        match result {
            Ok(_) => Ok(None),
            Err((error, ..)) if error.is_namespace_terminating() => Ok(None),
            Err((error, reason, what)) => {
                if !error.is_transient() && !error.is_already_exists() {
                    let text = format!("Failed to {what} {key}: {}", error.message());
                    self.scope.recorder.warning(&reference(&*service), reason, text);
                }
                Err(error)
            }
        }
    }
}

fn publishes_all(spec: &ServiceSpec) -> bool {
    spec.publish_not_ready_addresses == Some(true)
}

fn is_up_to_date(current: &Endpoints, wanted: &Endpoints) -> bool {
    let subsets = |e: &Endpoints| e.subsets.clone().unwrap_or_default();
    subsets(current) == subsets(wanted)
        && current.labels() == wanted.labels()
        && current.annotation(OVER_CAPACITY) == wanted.annotation(OVER_CAPACITY)
}

type PortKey = (Option<String>, i32, Option<String>, Option<String>);
type AddressKey = (String, String);

/// The Endpoints object for these Pods: addresses with the same set of ports share a subset, all in sorted order.
fn wanted(service: &Service, spec: &ServiceSpec, pods: &[Arc<Pod>]) -> Endpoints {
    let mut ports_of: BTreeMap<AddressKey, (EndpointAddress, bool, Vec<PortKey>)> = BTreeMap::new();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let ipv6 = spec.ip_families.iter().flatten().next().is_some_and(|f| f == "IPv6");
    let mut truncated = false;
    for pod in pods {
        let Some(ip) = services::address(pod, ipv6) else { continue };
        let mut found: Vec<PortKey> = ports
            .iter()
            .filter_map(|p| {
                let number = services::target(pod, p)?;
                let protocol = p.protocol.clone().or_else(|| Some("TCP".to_owned()));
                Some((p.name.clone().filter(|n| !n.is_empty()), number, protocol, p.app_protocol.clone()))
            })
            .collect();
        if found.is_empty() && !(ports.is_empty() && services::is_headless(spec)) {
            continue;
        }
        if ports_of.len() == CAPACITY {
            truncated = true;
            break;
        }
        found.sort();
        let ready = publishes_all(spec) || state::is_ready(pod);
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: services::hostname(pod, service),
            node_name: Some(state::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(pod.namespace().to_owned()),
                name: Some(pod.name().to_owned()),
                uid: Some(pod.uid().to_owned()),
                ..ObjectReference::default()
            }),
        };
        ports_of.insert((ip, pod.uid().to_owned()), (address, ready, found));
    }
    let mut subsets: BTreeMap<Vec<PortKey>, EndpointSubset> = BTreeMap::new();
    for (address, ready, ports) in ports_of.into_values() {
        let subset = subsets.entry(ports).or_default();
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let subsets: Vec<EndpointSubset> = subsets
        .into_iter()
        .map(|(ports, subset)| {
            let ports: Vec<EndpointPort> = ports
                .into_iter()
                .map(|(name, port, protocol, app_protocol)| EndpointPort { name, port, protocol, app_protocol })
                .collect();
            EndpointSubset { ports: (!ports.is_empty()).then_some(ports), ..subset }
        })
        .collect();
    let mut labels = service.labels().clone();
    labels.remove(services::HEADLESS);
    if services::is_headless(spec) {
        labels.insert(services::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    let annotations = truncated.then(|| Labels::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())]));
    Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name().to_owned()),
            namespace: Some(service.namespace().to_owned()),
            labels: Some(labels),
            annotations,
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn subsets() {
        let service: Service = from_value(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {
            "clusterIP": "10.43.0.9", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}}))
        .expect("service");
        let pod = |name: &str, ip: &str, port: i32, ready: &str| -> Arc<Pod> {
            Arc::new(
                from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
                .expect("pod"),
            )
        };
        let pods = [
            pod("a", "10.0.0.1", 8080, "True"),
            pod("b", "10.0.0.2", 8080, "False"),
            pod("c", "10.0.0.3", 9090, "True"),
        ];
        let spec = services::selecting(&service).expect("selecting");
        let backends = services::backends(spec, pods.to_vec(), false);
        let got = to_value(wanted(&service, spec, &backends)).expect("json");
        let address = |ip: &str, name: &str| {
            json!({"ip": ip, "nodeName": "n",
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": name, "uid": name}})
        };
        let ports = |n: i32| json!([{"name": "http", "port": n, "protocol": "TCP"}]);
        assert_eq!(
            got["subsets"],
            json!([
            {"addresses": [address("10.0.0.1", "a")], "notReadyAddresses": [address("10.0.0.2", "b")], "ports": ports(8080)},
            {"addresses": [address("10.0.0.3", "c")], "ports": ports(9090)}])
        );
    }
}
