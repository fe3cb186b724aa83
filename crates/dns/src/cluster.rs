//! What the cluster says about a name: Services, their endpoints, namespaces, straight from the informers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use client::{Informer, Informers, Key};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};

/// Names of the indexes: Services by address, slices by their Service and by their endpoints' addresses.
const BY_ADDRESS: &str = "dns-address";
const BY_SERVICE: &str = "dns-service";

pub(crate) struct Cluster {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
}

/// What a Service's name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// One or two addresses of the Service's own.
    Addresses(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// Another name.
    Alias(String),
}

/// A named or unnamed port, as SRV records list it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

/// An endpoint that may be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// The pod's host name, or the address with dashes.
    pub(crate) host: String,
    pub(crate) ports: Vec<Port>,
}

impl Cluster {
    pub(crate) fn new(informers: &Informers) -> Self {
        let cluster = Self { services: informers.of(), slices: informers.of(), namespaces: informers.of() };
        cluster.services.add_index(BY_ADDRESS, |service| addresses(service).iter().map(ToString::to_string).collect());
        cluster
            .slices
            .add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
        cluster.slices.add_index(BY_ADDRESS, |slice| {
            let all = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            all.filter_map(|address| Some(address.parse::<IpAddr>().ok()?.to_string())).collect()
        });
        cluster
    }

    /// Returns once every question can be answered.
    pub(crate) async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.namespaces.synced().await;
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(&Key::new("", name)).is_some()
    }

    /// What the Service's name stands for and its ports; `None` if there is no such Service.
    pub(crate) fn service(&self, key: &Key) -> Option<(Target, Vec<Port>)> {
        let service = self.services.get(key)?;
        let spec = service.spec.as_ref()?;
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                number: u16::try_from(port.port).ok()?,
            })
        });
        let target = match spec.external_name.as_ref().filter(|_| spec.type_.as_deref() == Some("ExternalName")) {
            Some(name) => Target::Alias(name.clone()),
            None => match addresses(&service) {
                own if own.is_empty() => Target::Headless,
                own => Target::Addresses(own),
            },
        };
        Some((target, ports.collect()))
    }

    /// The ready endpoints of a Service, each address once. The controller calls an endpoint ready that its Service
    /// wants published before it is.
    pub(crate) fn endpoints(&self, service: &Key) -> Vec<Endpoint> {
        let mut all: BTreeMap<(IpAddr, String), Vec<Port>> = BTreeMap::new();
        for slice in self.slices.by_index(BY_SERVICE, &service.to_string()) {
            let ports: Vec<Port> = slice_ports(&slice);
            for (address, host) in named(&slice) {
                let known = all.entry((address, host)).or_default();
                known.extend(ports.iter().filter(|port| !known.contains(port)).cloned().collect::<Vec<_>>());
            }
        }
        all.into_iter().map(|((address, host), ports)| Endpoint { address, host, ports }).collect()
    }

    /// Owners of an address as `(Service, endpoint's host name)`: a Service itself, or endpoints of headless Services.
    pub(crate) fn owners(&self, address: IpAddr) -> Vec<(Key, Option<String>)> {
        let text = address.to_string();
        let own = self.services.by_index(BY_ADDRESS, &text);
        if !own.is_empty() {
            return own.iter().map(|service| (Key::of(&**service), None)).collect();
        }
        let mut owners = Vec::new();
        for slice in self.slices.by_index(BY_ADDRESS, &text) {
            let Some(key) = service_of(&slice) else { continue };
            if !matches!(self.service(&key), Some((Target::Headless, _))) {
                continue;
            }
            let hosts = named(&slice).into_iter().filter(|(known, _)| *known == address);
            owners.extend(hosts.map(|(_, host)| (key.clone(), Some(host))));
        }
        owners.sort();
        owners.dedup();
        owners
    }
}

/// Addresses of the Service's own; none if it is headless.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    match &spec.cluster_ips {
        Some(all) => all.iter().filter_map(|address| address.parse().ok()).collect(),
        None => spec.cluster_ip.iter().filter_map(|address| address.parse().ok()).collect(),
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name))
}

fn slice_ports(slice: &Arc<EndpointSlice>) -> Vec<Port> {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            number: u16::try_from(port.port?).ok()?,
        })
    });
    ports.collect()
}

/// Addresses and host names of the ready endpoints of a slice.
fn named(slice: &EndpointSlice) -> Vec<(IpAddr, String)> {
    let endpoints = slice.endpoints.iter().flatten();
    let ready = endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    ready
        .flat_map(|endpoint| {
            endpoint.addresses.iter().filter_map(|text| {
                let address: IpAddr = text.parse().ok()?;
                let host = endpoint.hostname.clone().filter(|host| !host.is_empty());
                Some((address, host.unwrap_or_else(|| dashed(address))))
            })
        })
        .collect()
}

/// An address as one label.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
