//! The service proxy of a node: Services and EndpointSlices to nftables, by differences.
//!
//! ```text
//! prerouting, output (nat)
//!   address . protocol . port      in @services   -> ep-N, mep-N, a chain of its own (affinity), or nothing
//!   protocol . port, local address in @node-ports -> np-N, npl-N, or a chain of its own
//!     ep-N    dnat to @endpoints[ address . protocol . port . random below N ]
//!     mep-N   mark for masquerade, then as ep-N
//!     np-N    mark for masquerade, dnat to @node-endpoints[ protocol . port . random below N ]
//!     npl-N   as np-N without the mark: the client's address stays
//! input, forward, output (filter)
//!   address . protocol . port      in @refused    -> reject (no endpoints), or drop (none on this node)
//!   a Service's address on a port that it does not have -> reject
//! postrouting (nat)
//!   marked -> masquerade             (a pod that reached itself: see the pod network's rules)
//! ```
//!
//! The maps are flat: a change costs what changed, never the number of Services. Chains exist for each number of
//! endpoints that has occurred. Only Services with session affinity have chains of their own.
//!
//! Reads: Service, EndpointSlice, Node (its zone).  Invariant: `applied` is what the kernel has; after a refused
//! transaction everything is loaded anew.

mod claims;
mod conntrack;
mod health;
mod model;
mod rules;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use client::{Informer, Informers, Key};
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use parking_lot::Mutex;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{
    claims::Claims,
    model::{Desired, Place},
    rules::{Difference, Table, difference},
};
use crate::nft;

const RETRY: Duration = Duration::from_secs(2);
const BY_SERVICE: &str = "proxy-service";

/// How the proxy of a node is made.
#[derive(Clone)]
pub struct Config {
    pub informers: Informers,
    pub node_name: String,
    /// Sources outside of these addresses are masqueraded on their way to a Service's address.
    pub cluster_cidr: IpNet,
    /// Begins the name of the table.
    pub prefix: String,
    pub cancel: CancellationToken,
}

#[derive(Default)]
struct Dirty {
    services: Mutex<BTreeSet<Key>>,
    /// Where this node is has changed, and with it the choice of endpoints of every Service.
    place: AtomicBool,
    changed: Notify,
}

impl Dirty {
    fn add(&self, key: Key) {
        self.services.lock().insert(key);
        self.changed.notify_one();
    }
}

struct Metrics {
    syncs: Counter,
    failures: Counter,
    services: Gauge,
}

impl Metrics {
    fn new() -> Self {
        let register = client::metrics::register::<Counter>;
        Self {
            syncs: register("kubeproxy_sync_proxy_rules", "Transactions applied", Counter::default()),
            failures: register("kubeproxy_sync_proxy_rules_failures", "Transactions refused", Counter::default()),
            services: client::metrics::register("kubeproxy_services", "Services with rules", Gauge::default()),
        }
    }
}

struct Proxy {
    table: Table,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    node_name: String,
    applied: HashMap<Key, Desired>,
    claims: Claims,
    health: health::Checks,
    metrics: Metrics,
}

/// Keeps the node's rules equal to the cluster's Services until cancelled.
pub async fn run(config: Config) {
    let dirty = Arc::new(Dirty::default());
    let services: Informer<Service> = config.informers.of();
    let slices: Informer<EndpointSlice> = config.informers.of();
    let nodes: Informer<Node> = config.informers.select(&format!("metadata.name={}", config.node_name), "");
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    let mark = Arc::clone(&dirty);
    services.on_change(move |change| mark.add(change.key()));
    let mark = Arc::clone(&dirty);
    slices.on_change(move |change| {
        for slice in [&change.old, &change.new].into_iter().flatten() {
            if let Some(key) = service_of(slice) {
                mark.add(key);
            }
        }
    });
    let mark = Arc::clone(&dirty);
    nodes.on_change(move |change| {
        if change.old.as_deref().and_then(zone_of) != change.new.as_deref().and_then(zone_of) {
            mark.place.store(true, Ordering::Release);
            mark.changed.notify_one();
        }
    });
    let synced = async {
        services.synced().await;
        slices.synced().await;
        nodes.synced().await;
    };
    tokio::select! {
        () = synced => {}
        () = config.cancel.cancelled() => return,
    }
    let mut proxy = Proxy {
        table: Table::new(&config.prefix, config.cluster_cidr),
        services,
        slices,
        nodes,
        node_name: config.node_name.clone(),
        applied: HashMap::new(),
        claims: Claims::default(),
        health: health::Checks::default(),
        metrics: Metrics::new(),
    };
    let mut whole = true;
    loop {
        let keys = std::mem::take(&mut *dirty.services.lock());
        whole |= dirty.place.swap(false, Ordering::AcqRel);
        let done = if whole { proxy.load().await } else { proxy.update(keys).await };
        whole = match done {
            Ok(()) => false,
            Err(error) => {
                proxy.metrics.failures.inc();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "rules not applied; loading all in {RETRY:?}"
                );
                true
            }
        };
        tokio::select! {
            () = dirty.changed.notified(), if !whole => {}
            () = tokio::time::sleep(RETRY), if whole => {}
            () = config.cancel.cancelled() => return,
        }
    }
}

fn zone_of(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}

/// The Service that a slice belongs to, for slices of IPv4 addresses.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    (slice.address_type == "IPv4").then(|| Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name))
}

impl Proxy {
    fn desired(&self, key: &Key) -> Option<Desired> {
        let service = self.services.get(key)?;
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let zone = self.nodes.get(&Key::new("", &self.node_name)).as_deref().and_then(zone_of);
        let place = Place { node: self.node_name.clone(), zone };
        Some(model::desired(key, &service, &slices, &place))
    }

    /// Replaces the whole table.
    async fn load(&mut self) -> Result<(), nft::Error> {
        self.table.forget_chains();
        self.claims = Claims::default();
        let mut all = HashMap::new();
        for service in self.services.list() {
            let key = Key::of(&*service);
            if let Some(mut desired) = self.desired(&key) {
                self.claims.settle(&key, &mut desired);
                all.insert(key, desired);
            }
        }
        let mut text = self.table.base();
        let mut elements = Difference::default();
        for desired in all.values() {
            text += &self.table.chains_for(desired);
            elements.add(&difference(self.table.name(), &Desired::default(), desired));
        }
        nft::apply(&(text + &elements.text())).await?;
        let empty = Desired::default();
        let before = std::mem::take(&mut self.applied);
        let stale: Vec<_> =
            before.iter().flat_map(|(key, old)| conntrack::stale(old, all.get(key).unwrap_or(&empty))).collect();
        for key in before.keys().filter(|key| !all.contains_key(*key)) {
            self.health.set(key, None);
        }
        for (key, desired) in &all {
            self.health.set(key, desired.health.clone());
        }
        self.applied = all;
        conntrack::forget(&stale).await;
        self.finish();
        Ok(())
    }

    /// Applies what changed of some Services, in one transaction.
    async fn update(&mut self, mut keys: BTreeSet<Key>) -> Result<(), nft::Error> {
        let mut chains = String::new();
        let mut elements = Difference::default();
        let mut stale = Vec::new();
        let mut next: HashMap<Key, Option<Desired>> = HashMap::new();
        while let Some(key) = keys.pop_first() {
            let mut desired = self.desired(&key);
            keys.extend(self.claims.settle(&key, desired.as_mut().unwrap_or(&mut Desired::default())));
            next.insert(key, desired);
        }
        let empty = Desired::default();
        next.retain(|key, desired| *self.applied.get(key).unwrap_or(&empty) != *desired.as_ref().unwrap_or(&empty));
        if next.is_empty() {
            return Ok(());
        }
        for (key, desired) in &next {
            let (old, new) = (self.applied.get(key).unwrap_or(&empty), desired.as_ref().unwrap_or(&empty));
            chains += &self.table.chains_for(new);
            elements.add(&difference(self.table.name(), old, new));
            stale.extend(conntrack::stale(old, new));
        }
        let text = chains + &elements.text();
        if !text.is_empty() {
            nft::apply(&text).await?;
        }
        for (key, desired) in next {
            self.health.set(&key, desired.as_ref().and_then(|desired| desired.health.clone()));
            match desired {
                Some(desired) => self.applied.insert(key, desired),
                None => self.applied.remove(&key),
            };
        }
        conntrack::forget(&stale).await;
        self.finish();
        Ok(())
    }

    fn finish(&self) {
        self.metrics.syncs.inc();
        self.metrics.services.set(self.applied.len() as i64);
    }
}

/// Removes the proxy's table.
pub async fn remove_all(prefix: &str) -> Result<(), nft::Error> {
    nft::delete_table("ip", &rules::table_name(prefix)).await
}

/// Whether an address is one that rules can name: IPv4.
fn ipv4(text: &str) -> Option<std::net::Ipv4Addr> {
    match text.parse() {
        Ok(IpAddr::V4(address)) => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
