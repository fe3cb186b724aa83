//! Mirrors Endpoints that somebody else maintains to EndpointSlices, because the proxy reads only those.
//!
//! Reads: Endpoints, Service, EndpointSlice.  Writes: EndpointSlice.
//! Mirrored are the Endpoints of Services without a selector, unless labelled
//! `endpointslice.kubernetes.io/skip-mirror=true`.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use client::{Informer, Key, reference};
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        core::{EndpointAddress, Endpoints, Service},
        discovery::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    meta::{Labels, Meta},
    pods::{expectations::Expectations, hash},
    services::{self, slices},
};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CAPACITY: usize = 1000;

struct Loop {
    scope: Scope,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    pending: Arc<Expectations>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pending = Arc::new(Expectations::default());
    let endpoints = driver.watch::<Endpoints>(driver::wake);
    let services = driver.watch::<Service>(driver::wake);
    let slices = driver.watch::<EndpointSlice>({
        let pending = pending.clone();
        move |change, queue| {
            let Some(slice) = change.new.as_ref().or(change.old.as_ref()) else { return };
            let ours = slice.label(slices::MANAGED_BY) == Some(MANAGER);
            if let Some(service) = slice.label(slices::SERVICE_NAME).filter(|_| ours) {
                let key = Key::new(slice.namespace(), service);
                if change.old.is_none() {
                    pending.creation_settled(&key);
                }
                queue.add(key);
            }
        }
    });
    slices.add_index(slices::BY_SERVICE, slices::by_service);
    let this = Arc::new(Loop { scope, endpoints, services, slices, pending });
    vec![driver.run(5, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let chosen = endpoints.label(SKIP) != Some("true") && endpoints.annotation(LEADER).is_none();
    chosen && service.spec.as_ref().is_some_and(|s| s.selector.is_none())
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let existing = self.slices.by_index(slices::BY_SERVICE, &slices::index_value(MANAGER, &key));
        let endpoints = self.endpoints.get(&key);
        let service = self.services.get(&key);
        let source = endpoints.zip(service).filter(|(e, s)| is_mirrored(e, s));
        let writer = &self.scope.writer;
        let Some((endpoints, _)) = source else {
            self.pending.forget(&key);
            let plan = slices::Plan { delete: existing.iter().map(|s| s.key()).collect(), ..slices::Plan::default() };
            slices::apply(writer, plan, |_| {}, || {}).await?;
            return Ok(None);
        };
        if !self.pending.satisfied(&key) {
            return Ok(None);
        }
        let (groups, invalid) = groups(&endpoints);
        if invalid > 0 {
            let text = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            self.scope.recorder.warning(&reference(&*endpoints), "InvalidIPAddress", text);
        }
        let mut frame = slices::Frame::new(&*endpoints, labels(&endpoints), CAPACITY);
        let mut annotations = endpoints.annotations().clone();
        annotations.retain(|k, _| k != LAST_CHANGE && k != LAST_APPLIED);
        frame.meta.annotations = (!annotations.is_empty()).then_some(annotations);
        let plan = slices::plan(&frame, groups, &existing);
        let pending = &self.pending;
        let expect = |count| pending.expect_creations(&key, count);
        match slices::apply(writer, plan, expect, || pending.creation_settled(&key)).await {
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) => Err(self.report(&endpoints, &key, error)),
            Ok(()) => Ok(None),
        }
    }

    fn report(&self, endpoints: &Endpoints, key: &Key, error: Error) -> Error {
        if !error.is_transient() {
            let text = format!("Error updating EndpointSlices for Endpoints {key}: {}", error.message());
            self.scope.recorder.warning(&reference(endpoints), "FailedToUpdateEndpointSlices", text);
        }
        error
    }
}

fn labels(endpoints: &Endpoints) -> Labels {
    let mut labels = endpoints.labels().clone();
    labels.remove(services::HEADLESS);
    labels.insert(slices::SERVICE_NAME.to_owned(), endpoints.name().to_owned());
    labels.insert(slices::MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// The subsets by address type and ports, and how many addresses were not valid.
fn groups(endpoints: &Endpoints) -> (Vec<slices::Group>, usize) {
    let mut found: BTreeMap<(bool, String), slices::Group> = BTreeMap::new();
    let mut invalid = 0;
    for subset in endpoints.subsets.iter().flatten() {
        let port = |p: &crate::kinds::core::EndpointPort| EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(p.port),
            protocol: p.protocol.clone(),
            app_protocol: p.app_protocol.clone(),
        };
        let ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, ready) in ready.chain(not_ready) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                invalid += 1;
                continue;
            };
            let address_type = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group = found
                .entry((ip.is_ipv6(), hash::canonical(&ports).to_string()))
                .or_insert_with(|| slices::Group { address_type, ports: ports.clone(), endpoints: Vec::new() });
            group.endpoints.push(endpoint(address, ready));
        }
    }
    (found.into_values().collect(), invalid)
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
