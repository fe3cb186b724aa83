//! What the rules of one Service shall be. Pure: objects in, map elements out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use client::Key;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::ipv4;

/// Where this proxy runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) node: String,
    pub(super) zone: Option<String>,
}

/// A port of an endpoint.
pub(super) type Target = (Ipv4Addr, u16);

/// The map elements of one Service, as `key -> value` in nft's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// `address . protocol . port -> chain`.
    pub(super) services: BTreeMap<String, String>,
    /// `protocol . port -> chain`.
    pub(super) node_ports: BTreeMap<String, String>,
    /// `address . protocol . port . index -> address . port`.
    pub(super) endpoints: BTreeMap<String, String>,
    /// `protocol . port . index -> address . port`.
    pub(super) node_endpoints: BTreeMap<String, String>,
    /// `address . protocol . port -> reject or drop chain`.
    pub(super) refused: BTreeMap<String, String>,
    /// `protocol . port -> reject or drop chain`.
    pub(super) node_refused: BTreeMap<String, String>,
    /// The Service's addresses: other ports of them are rejected.
    pub(super) addresses: BTreeSet<String>,
    pub(super) affinities: BTreeMap<String, Affinity>,
    /// UDP: the Service's address (`None`: a node port) and port, and its targets.
    pub(super) udp: BTreeMap<(Option<Ipv4Addr>, u16), BTreeSet<Target>>,
    pub(super) health: Option<Health>,
}

impl Desired {
    /// What no two Services can have: addresses with their ports, and node ports.
    pub(super) fn places(&self) -> BTreeSet<String> {
        let maps = [&self.services, &self.refused, &self.node_ports, &self.node_refused];
        maps.into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Does without a place.
    pub(super) fn give_up(&mut self, place: &str) {
        for map in [&mut self.services, &mut self.refused, &mut self.node_ports, &mut self.node_refused] {
            map.remove(place);
        }
        for map in [&mut self.endpoints, &mut self.node_endpoints] {
            map.retain(|key, _| key.rsplit_once(" . ").is_none_or(|(known, _)| known != place));
        }
        self.udp.retain(|(address, port), _| match address {
            Some(address) => format!("{address} . udp . {port}") != place,
            None => format!("udp . {port}") != place,
        });
    }
}

/// A chain for a port with session affinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Affinity {
    pub(super) protocol: String,
    pub(super) timeout_s: u32,
    pub(super) targets: BTreeSet<Target>,
    pub(super) masquerade: bool,
}

/// What the health check node port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) port: u16,
    pub(super) local_endpoints: usize,
}

/// How a port of a Service chooses among its endpoints.
struct Choice {
    all: BTreeSet<Target>,
    local: BTreeSet<Target>,
}

pub(super) fn desired(key: &Key, service: &Service, slices: &[Arc<EndpointSlice>], place: &Place) -> Desired {
    let mut out = Desired::default();
    let Some(spec) = &service.spec else { return out };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName"
        || service
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key("service.kubernetes.io/service-proxy-name"))
    {
        return out;
    }
    let own: Vec<Ipv4Addr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ipv4(ip)).collect();
    if own.is_empty() {
        return out;
    }
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let balanced = ingress
        .into_iter()
        .flatten()
        .filter(|ingress| kind == "LoadBalancer" && ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    let outside: Vec<Ipv4Addr> = spec
        .external_ips
        .iter()
        .flatten()
        .filter_map(|ip| ipv4(ip))
        .chain(balanced.filter_map(|ingress| ipv4(ingress.ip.as_deref()?)))
        .collect();
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let affinity_s = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        config.and_then(|config| config.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
    });
    out.addresses.extend(own.iter().map(ToString::to_string));
    let mut local_endpoints = BTreeSet::new();
    for port in spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let choice = choose(port, slices, place);
        local_endpoints.extend(choice.local.iter().map(|(address, _)| *address));
        let side = |local: bool| if local { &choice.local } else { &choice.all };
        let drops = |local: bool| local && !choice.all.is_empty();
        for (addresses, local, masquerade) in
            [(&own, internal_local, false), (&outside, external_local, !external_local)]
        {
            let targets = side(local);
            for address in addresses {
                let place = format!("{address} . {protocol} . {number}");
                if targets.is_empty() {
                    out.refused.insert(place, if drops(local) { "discard" } else { "refuse" }.into());
                    continue;
                }
                if protocol == "udp" {
                    out.udp.insert((Some(*address), number), targets.clone());
                }
                if let Some(timeout_s) = affinity_s {
                    let chain = affinity_name(key, port, if masquerade { "ext" } else { "int" });
                    out.affinities.insert(
                        chain.clone(),
                        Affinity { protocol: protocol.clone(), timeout_s, targets: targets.clone(), masquerade },
                    );
                    out.services.insert(place, chain);
                } else {
                    let chain = if masquerade { "mep" } else { "ep" };
                    out.services.insert(place.clone(), format!("{chain}-{}", targets.len()));
                    for (index, (to, to_port)) in targets.iter().enumerate() {
                        out.endpoints.insert(format!("{place} . {index}"), format!("{to} . {to_port}"));
                    }
                }
            }
        }
        let Some(node_port) = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) else {
            continue;
        };
        let place = format!("{protocol} . {node_port}");
        let targets = side(external_local);
        if protocol == "udp" && !targets.is_empty() {
            out.udp.insert((None, node_port), targets.clone());
        }
        if targets.is_empty() {
            out.node_refused.insert(place, if drops(external_local) { "discard" } else { "refuse" }.into());
        } else if let Some(timeout_s) = affinity_s {
            let chain = affinity_name(key, port, "node");
            let masquerade = !external_local;
            out.affinities
                .insert(chain.clone(), Affinity { protocol, timeout_s, targets: targets.clone(), masquerade });
            out.node_ports.insert(place, chain);
        } else {
            let chain = if external_local { "npl" } else { "np" };
            out.node_ports.insert(place.clone(), format!("{chain}-{}", targets.len()));
            for (index, (to, to_port)) in targets.iter().enumerate() {
                out.node_endpoints.insert(format!("{place} . {index}"), format!("{to} . {to_port}"));
            }
        }
    }
    let check = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    out.health = check.map(|port| Health { port, local_endpoints: local_endpoints.len() });
    out
}

/// A chain name that is stable over restarts and short enough for nft.
fn affinity_name(key: &Key, port: &ServicePort, side: &str) -> String {
    use sha2::{Digest, Sha256};
    let text = format!("{key}/{}/{}/{side}", port.name.as_deref().unwrap_or_default(), port.port);
    let digits: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("aff-{digits}")
}

/// The endpoints that a port uses: ready ones, or those that still serve while they end when none is ready.
fn choose(port: &ServicePort, slices: &[Arc<EndpointSlice>], place: &Place) -> Choice {
    let name = port.name.as_deref().unwrap_or_default();
    let mut all: Vec<(&Endpoint, Target)> = Vec::new();
    for slice in slices {
        let number = slice.ports.iter().flatten().find(|known| known.name.as_deref().unwrap_or_default() == name);
        let Some(number) = number.and_then(|known| known.port).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            if let Some(address) = endpoint.addresses.first().and_then(|address| ipv4(address)) {
                all.push((endpoint, (address, number)));
            }
        }
    }
    let here = |endpoint: &Endpoint| endpoint.node_name.as_deref() == Some(place.node.as_str());
    let near = usable(&all, |_| true);
    Choice { all: hinted(&near, place), local: targets(&usable(&all, here)) }
}

fn usable<'a>(all: &[(&'a Endpoint, Target)], wanted: impl Fn(&Endpoint) -> bool) -> Vec<(&'a Endpoint, Target)> {
    let condition = |endpoint: &Endpoint| endpoint.conditions.clone().unwrap_or_default();
    let pick = |holds: &dyn Fn(&Endpoint) -> bool| -> Vec<_> {
        all.iter().filter(|(endpoint, _)| wanted(endpoint) && holds(endpoint)).copied().collect()
    };
    let ready = pick(&|endpoint| condition(endpoint).ready.unwrap_or(true));
    if !ready.is_empty() {
        return ready;
    }
    pick(&|endpoint| {
        let condition = condition(endpoint);
        condition.serving.unwrap_or(false) && condition.terminating.unwrap_or(false)
    })
}

fn targets(endpoints: &[(&Endpoint, Target)]) -> BTreeSet<Target> {
    endpoints.iter().map(|(_, target)| *target).collect()
}

/// Those meant for this node or this zone, when every endpoint carries a hint and some are.
fn hinted(endpoints: &[(&Endpoint, Target)], place: &Place) -> BTreeSet<Target> {
    let for_node = |endpoint: &Endpoint| {
        let nodes = endpoint.hints.as_ref().and_then(|hints| hints.for_nodes.as_ref());
        nodes.map(|nodes| nodes.iter().any(|node| node.name == place.node))
    };
    let for_zone = |endpoint: &Endpoint| {
        let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
        zones.map(|zones| zones.iter().any(|zone| Some(&zone.name) == place.zone.as_ref()))
    };
    let by = |hint: &dyn Fn(&Endpoint) -> Option<bool>| -> Option<BTreeSet<Target>> {
        let all_hinted = endpoints.iter().all(|(endpoint, _)| hint(endpoint).is_some());
        let meant: Vec<_> = endpoints.iter().filter(|(endpoint, _)| hint(endpoint) == Some(true)).copied().collect();
        (all_hinted && !meant.is_empty()).then(|| targets(&meant))
    };
    by(&for_node).or_else(|| by(&for_zone)).unwrap_or_else(|| targets(endpoints))
}
