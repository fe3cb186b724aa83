//! The cluster's zone: from a question to records. Does no IO; the cluster's state is in memory.
//!
//! | name before the domain | records |
//! |---|---|
//! | `dns-version` | TXT: version of the specification |
//! | `SERVICE.NS.svc` | A/AAAA of the Service, or of all its endpoints if headless; CNAME of an ExternalName; SRV |
//! | `HOST.SERVICE.NS.svc` | A/AAAA of one endpoint; HOST is the pod's host name or its address with dashes |
//! | `_PORT._PROTOCOL.SERVICE.NS.svc` | SRV |
//! | `ADDRESS-WITH-DASHES.NS.pod` | A/AAAA: that address |
//!
//! A name that exists without records of the type asked for, and one that other names end in, has an empty answer; all
//! others do not exist. Both carry the SOA, so that resolvers remember them no longer than other answers.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use client::Key;
use hickory_proto::{
    ProtoError,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, NS, PTR, SOA, SRV, TXT},
    },
};

use crate::cluster::{Cluster, Endpoint, Port, Target, dashed};

/// Seconds that answers may be kept.
const TTL_S: u32 = 5;
/// Of the specification that the zone follows.
const VERSION: &str = "1.1.0";

/// What the zone has to say to a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name stands for another one: its records are to be added.
    Alias {
        answers: Vec<Record>,
        target: Name,
    },
    /// The name exists, but not with records of this type.
    NoData,
    NoSuchName,
    /// Not a name of this zone.
    Elsewhere,
}

pub(crate) struct Zone {
    apex: Name,
    /// Addresses of the server: what the zone's NS record leads to.
    servers: Vec<IpAddr>,
    cluster: Cluster,
}

impl Zone {
    pub(crate) fn new(domain: &str, servers: Vec<IpAddr>, cluster: Cluster) -> Result<Self, ProtoError> {
        let mut apex = Name::from_ascii(domain.to_lowercase())?;
        apex.set_fqdn(true);
        Ok(Self { apex, servers, cluster })
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether the zone must answer for the name. Reverse names are also looked up, but belong to nobody here.
    pub(crate) fn owns(&self, name: &Name) -> bool {
        self.apex.zone_of(name)
    }

    pub(crate) fn soa(&self) -> Option<Record> {
        let primary = self.below(&["ns", "dns"]).ok()?;
        let mailbox = self.below(&["hostmaster"]).ok()?;
        let soa = SOA::new(primary, mailbox, 1, 7200, 1800, 86400, TTL_S);
        Some(Record::from_rdata(self.apex.clone(), TTL_S, RData::SOA(soa)))
    }

    pub(crate) fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        if !self.owns(name) {
            return self.reverse(name, kind);
        }
        let Some(labels) = self.labels(name) else { return Answer::NoSuchName };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.at_apex(name, kind),
            ["dns-version"] if kind == RecordType::TXT => {
                records(vec![record(name, RData::TXT(TXT::new(vec![VERSION.to_string()])))])
            }
            ["ns", "dns"] => self.hosts(name, kind, &self.servers),
            ["dns-version" | "dns" | "svc" | "pod"] => Answer::NoData,
            [namespace, "svc" | "pod"] if self.cluster.has_namespace(namespace) => Answer::NoData,
            [host, namespace, "pod"] if self.cluster.has_namespace(namespace) => match undashed(host) {
                Some(address) => self.hosts(name, kind, &[address]),
                None => Answer::NoSuchName,
            },
            [below @ .., service, namespace, "svc"] => self.service(name, kind, below, &Key::new(*namespace, *service)),
            _ => Answer::NoSuchName,
        }
    }

    fn at_apex(&self, name: &Name, kind: RecordType) -> Answer {
        match (kind, self.soa(), self.below(&["ns", "dns"])) {
            (RecordType::SOA, Some(soa), _) => records(vec![soa]),
            (RecordType::NS, _, Ok(server)) => {
                let additionals = host_records(&server, &self.servers);
                Answer::Records { answers: vec![record(name, RData::NS(NS(server)))], additionals }
            }
            _ => Answer::NoData,
        }
    }

    fn service(&self, name: &Name, kind: RecordType, below: &[&str], key: &Key) -> Answer {
        let Some((target, ports)) = self.cluster.service(key) else { return Answer::NoSuchName };
        let endpoints = || self.cluster.endpoints(key);
        match (below, target) {
            ([], Target::Alias(target)) => match Name::from_ascii(&target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    Answer::Alias { answers: vec![record(name, RData::CNAME(CNAME(target.clone())))], target }
                }
                Err(_) => Answer::NoData,
            },
            ([], Target::Addresses(own)) if kind == RecordType::SRV => self.own_srv(name, key, &own, &ports),
            ([], Target::Addresses(own)) => self.hosts(name, kind, &own),
            ([], Target::Headless) => self.of_endpoints(name, kind, key, &endpoints()),
            ([protocol], target) if protocol.starts_with('_') => {
                let known = match target {
                    Target::Headless => endpoints().into_iter().flat_map(|endpoint| endpoint.ports).collect(),
                    _ => ports,
                };
                let any = known.iter().any(|port| !port.name.is_empty() && port.protocol == protocol[1..]);
                if any { Answer::NoData } else { Answer::NoSuchName }
            }
            ([_], Target::Alias(_)) => Answer::NoSuchName,
            ([host], _) => {
                let mut endpoints = endpoints();
                endpoints.retain(|endpoint| endpoint.host == *host);
                self.of_endpoints(name, kind, key, &endpoints)
            }
            ([port, protocol], target) if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = |known: &Port| known.name == port[1..] && known.protocol == protocol[1..];
                self.srv(name, kind, key, &target, &ports, wanted)
            }
            _ => Answer::NoSuchName,
        }
    }

    /// A port by its name.
    fn srv(
        &self,
        name: &Name,
        kind: RecordType,
        key: &Key,
        target: &Target,
        ports: &[Port],
        wanted: impl Fn(&Port) -> bool,
    ) -> Answer {
        let found = match target {
            Target::Alias(_) => return Answer::NoSuchName,
            Target::Addresses(own) => {
                let ports: Vec<Port> = ports.iter().filter(|port| wanted(port)).cloned().collect();
                self.own_srv(name, key, own, &ports)
            }
            Target::Headless => {
                let mut endpoints = self.cluster.endpoints(key);
                endpoints.iter_mut().for_each(|endpoint| endpoint.ports.retain(&wanted));
                endpoints.retain(|endpoint| !endpoint.ports.is_empty());
                self.of_endpoints(name, RecordType::SRV, key, &endpoints)
            }
        };
        match found {
            Answer::NoData => Answer::NoSuchName,
            found if kind == RecordType::SRV || found == Answer::NoSuchName => found,
            _ => Answer::NoData,
        }
    }

    /// SRV records of a Service that has addresses: they lead to the Service's name.
    fn own_srv(&self, name: &Name, key: &Key, own: &[IpAddr], ports: &[Port]) -> Answer {
        let Ok(target) = self.service_name(key) else { return Answer::NoSuchName };
        let to: Vec<(Name, u16)> = ports.iter().map(|port| (target.clone(), port.number)).collect();
        srv_records(name, to, host_records(&target, own))
    }

    /// Records of endpoints: their addresses, or SRV records that lead to their names.
    fn of_endpoints(&self, name: &Name, kind: RecordType, key: &Key, endpoints: &[Endpoint]) -> Answer {
        if endpoints.is_empty() {
            return Answer::NoSuchName;
        }
        if kind != RecordType::SRV {
            let mut all: Vec<IpAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
            // Clients take the first: another one each time.
            let first = rand::random_range(0..all.len());
            all.rotate_left(first);
            return self.hosts(name, kind, &all);
        }
        let Ok(service) = self.service_name(key) else { return Answer::NoSuchName };
        let (mut to, mut additionals) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let Ok(host) = service.prepend_label(endpoint.host.as_str()) else { continue };
            to.extend(endpoint.ports.iter().map(|port| (host.clone(), port.number)));
            additionals.extend(host_records(&host, &[endpoint.address]));
        }
        srv_records(name, to, additionals)
    }

    fn hosts(&self, name: &Name, kind: RecordType, addresses: &[IpAddr]) -> Answer {
        let mut all = host_records(name, addresses);
        all.retain(|record| kind == RecordType::ANY || record.record_type() == kind);
        records(all)
    }

    /// Names of an address.
    fn reverse(&self, name: &Name, kind: RecordType) -> Answer {
        let Ok(net) = name.parse_arpa_name() else { return Answer::Elsewhere };
        if net.prefix_len() != net.max_prefix_len() {
            return Answer::Elsewhere;
        }
        let owners = self.cluster.owners(net.addr());
        if owners.is_empty() {
            return Answer::Elsewhere;
        }
        if !matches!(kind, RecordType::PTR | RecordType::ANY) {
            return Answer::NoData;
        }
        let names = owners.iter().filter_map(|(key, host)| {
            let service = self.service_name(key).ok()?;
            match host {
                Some(host) => service.prepend_label(host.as_str()).ok(),
                None => Some(service),
            }
        });
        records(names.map(|target| record(name, RData::PTR(PTR(target)))).collect())
    }

    fn service_name(&self, key: &Key) -> Result<Name, ProtoError> {
        self.below(&[key.name.as_str(), key.namespace.as_str(), "svc"])
    }

    fn below(&self, labels: &[&str]) -> Result<Name, ProtoError> {
        labels.iter().rev().try_fold(self.apex.clone(), |name, label| name.prepend_label(*label))
    }

    /// The labels before the domain in lower case; `None` if one is not text.
    fn labels(&self, name: &Name) -> Option<Vec<String>> {
        let count = name.iter().count().checked_sub(self.apex.iter().count())?;
        name.iter().take(count).map(|label| Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase())).collect()
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_S, data)
}

fn records(answers: Vec<Record>) -> Answer {
    if answers.is_empty() { Answer::NoData } else { Answer::Records { answers, additionals: Vec::new() } }
}

fn host_records(name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
    let data = |address: &IpAddr| match address {
        IpAddr::V4(address) => RData::A((*address).into()),
        IpAddr::V6(address) => RData::AAAA((*address).into()),
    };
    addresses.iter().map(|address| record(name, data(address))).collect()
}

fn srv_records(name: &Name, to: Vec<(Name, u16)>, additionals: Vec<Record>) -> Answer {
    // An endpoint with addresses of both families is one target.
    let to: BTreeSet<(Name, u16)> = to.into_iter().collect();
    if to.is_empty() {
        return Answer::NoData;
    }
    let weight = u16::try_from(100 / to.len()).unwrap_or(1).max(1);
    let answers =
        to.into_iter().map(|(target, port)| record(name, RData::SRV(SRV::new(0, weight, port, target)))).collect();
    Answer::Records { answers, additionals }
}

/// The address that a pod's label spells.
fn undashed(label: &str) -> Option<IpAddr> {
    let parsed = |separator: &str| IpAddr::from_str(&label.replace('-', separator)).ok();
    parsed(".").or_else(|| parsed(":")).filter(|address| dashed(*address) == label || address.is_ipv6())
}

#[cfg(test)]
mod tests;
