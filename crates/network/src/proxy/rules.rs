//! The table's text: what always stands, chains by number of endpoints, and differences of map elements.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use ipnet::IpNet;

use super::model::{Affinity, Desired};

/// The bit that says "masquerade this".
const MARK: &str = "0x4000";

pub(super) fn table_name(prefix: &str) -> String {
    format!("navarch-{prefix}-proxy")
}

/// The proxy's table, and which chains it has so far.
pub(super) struct Table {
    name: String,
    cluster_cidr: IpNet,
    chains: BTreeSet<String>,
}

impl Table {
    pub(super) fn new(prefix: &str, cluster_cidr: IpNet) -> Self {
        Self { name: table_name(prefix), cluster_cidr, chains: BTreeSet::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn forget_chains(&mut self) {
        self.chains.clear();
    }

    /// Everything but chains by number and elements; replaces what is there, in the same transaction.
    pub(super) fn base(&self) -> String {
        let (name, pods) = (&self.name, self.cluster_cidr);
        format!(
            "table ip {name}
delete table ip {name}
table ip {name} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  map endpoints {{ typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . tcp dport; }}
  map node-endpoints {{ typeof meta l4proto . th dport . numgen random mod 2 : ip daddr . tcp dport; }}
  map refused {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node-refused {{ type inet_proto . inet_service : verdict; }}
  set addresses {{ type ipv4_addr; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain discard {{ drop; }}
  chain mark-outsiders {{ meta mark set meta mark or {MARK}; }}
  chain dispatch {{
    ip daddr @addresses ip saddr != {pods} jump mark-outsiders
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local meta l4proto . th dport vmap @node-ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    jump dispatch
  }}
  chain nat-output {{
    type nat hook output priority -100;
    jump dispatch
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    meta mark & {MARK} == {MARK} meta mark set meta mark xor {MARK} masquerade fully-random
  }}
  chain check {{
    ip daddr . meta l4proto . th dport vmap @refused
    fib daddr type local meta l4proto . th dport vmap @node-refused
    ip daddr @addresses reject
  }}
  chain input {{
    type filter hook input priority filter - 10;
    ct state new jump check
  }}
  chain forward {{
    type filter hook forward priority filter - 10;
    ct state new jump check
  }}
  chain output {{
    type filter hook output priority filter - 10;
    ct state new jump check
  }}
}}
"
        )
    }

    /// The chains that these elements go to and that are not there yet.
    pub(super) fn chains_for(&mut self, desired: &Desired) -> String {
        let mut text = String::new();
        for chain in desired.services.values().chain(desired.node_ports.values()) {
            let Some((kind, count)) = chain.split_once('-') else { continue };
            if kind == "aff" || self.chains.contains(chain) {
                continue;
            }
            self.chains.insert(chain.clone());
            let mark = if kind == "mep" || kind == "np" {
                format!("meta mark set meta mark or {MARK}; ")
            } else {
                String::new()
            };
            let map = match kind {
                "ep" | "mep" => "ip daddr . meta l4proto . th dport . numgen random mod COUNT map @endpoints",
                _ => "meta l4proto . th dport . numgen random mod COUNT map @node-endpoints",
            };
            let map = map.replace("COUNT", count);
            let _ = writeln!(text, "table ip {} {{ chain {chain} {{ {mark}dnat ip to {map}; }}; }}", self.name);
        }
        text
    }
}

/// Commands that turn the elements of a Service into others. What goes, goes before anything comes, for all Services of
/// a transaction: so an address or port can pass from one to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    gone: String,
    fresh: String,
}

impl Difference {
    pub(super) fn add(&mut self, other: &Self) {
        self.gone += &other.gone;
        self.fresh += &other.fresh;
    }

    pub(super) fn text(&self) -> String {
        format!("{}{}", self.gone, self.fresh)
    }
}

/// The commands that turn the elements `old` into `new`.
pub(super) fn difference(table: &str, old: &Desired, new: &Desired) -> Difference {
    let mut out = Difference::default();
    let maps = [
        ("services", &old.services, &new.services, "goto "),
        ("node-ports", &old.node_ports, &new.node_ports, "goto "),
        ("refused", &old.refused, &new.refused, "goto "),
        ("node-refused", &old.node_refused, &new.node_refused, "goto "),
        ("endpoints", &old.endpoints, &new.endpoints, ""),
        ("node-endpoints", &old.node_endpoints, &new.node_endpoints, ""),
    ];
    for (map, old, new, _) in &maps {
        let gone = old.iter().filter(|(key, value)| new.get(*key) != Some(*value)).map(|(key, _)| key.clone());
        elements(&mut out.gone, "delete", table, map, gone.collect());
    }
    let gone = old.addresses.difference(&new.addresses).cloned();
    elements(&mut out.gone, "delete", table, "addresses", gone.collect());
    let fresh = new.addresses.difference(&old.addresses).cloned();
    elements(&mut out.fresh, "add", table, "addresses", fresh.collect());
    // Chains go after the elements that lead to them, and come before.
    affinities(&mut out, table, &old.affinities, &new.affinities);
    for (map, old, new, verdict) in &maps {
        let fresh = new
            .iter()
            .filter(|(key, value)| old.get(*key) != Some(*value))
            .map(|(key, value)| format!("{key} : {verdict}{value}"));
        elements(&mut out.fresh, "add", table, map, fresh.collect());
    }
    out
}

fn elements(text: &mut String, verb: &str, table: &str, name: &str, all: Vec<String>) {
    if !all.is_empty() {
        let _ = writeln!(text, "{verb} element ip {table} {name} {{ {} }}", all.join(", "));
    }
}

/// Chains of Services with affinity: who came before goes where it went, others anywhere.
///
/// ```text
/// aff-X        ip saddr in @aff-X-a -> aff-X-a; ...; random -> aff-X-a, aff-X-b, ...
/// aff-X-a      remember ip saddr in @aff-X-a; dnat to a
/// ```
fn affinities(out: &mut Difference, table: &str, old: &BTreeMap<String, Affinity>, new: &BTreeMap<String, Affinity>) {
    let text = &mut out.fresh;
    for (chain, affinity) in new {
        let before = old.get(chain);
        if before == Some(affinity) {
            continue;
        }
        let names: Vec<String> = affinity
            .targets
            .iter()
            .map(|(address, port)| format!("{chain}-{:08x}-{port}", u32::from(*address)))
            .collect();
        let _ = writeln!(text, "add chain ip {table} {chain}\nflush chain ip {table} {chain}");
        for (name, (address, port)) in names.iter().zip(&affinity.targets) {
            let (timeout, protocol) = (affinity.timeout_s, &affinity.protocol);
            let mark = if affinity.masquerade { format!("meta mark set meta mark or {MARK} ") } else { String::new() };
            let _ = writeln!(
                text,
                "add set ip {table} {name} {{ type ipv4_addr; flags dynamic,timeout; timeout {timeout}s; }}\n\
                 add chain ip {table} {name}\n\
                 flush chain ip {table} {name}\n\
                 add rule ip {table} {name} update @{name} {{ ip saddr }}\n\
                 add rule ip {table} {name} {mark}meta l4proto {protocol} dnat ip to {address}:{port}"
            );
        }
        for name in &names {
            let _ = writeln!(text, "add rule ip {table} {chain} ip saddr @{name} goto {name}");
        }
        let choices: Vec<String> =
            names.iter().enumerate().map(|(index, name)| format!("{index} : goto {name}")).collect();
        let _ = writeln!(
            text,
            "add rule ip {table} {chain} numgen random mod {} vmap {{ {} }}",
            names.len(),
            choices.join(", ")
        );
        let kept: BTreeSet<_> = affinity.targets.iter().collect();
        for (address, port) in before.iter().flat_map(|before| &before.targets).filter(|target| !kept.contains(target))
        {
            remove_target(text, table, chain, *address, *port);
        }
    }
    let text = &mut out.gone;
    for (chain, affinity) in old.iter().filter(|(chain, _)| !new.contains_key(*chain)) {
        let _ = writeln!(text, "flush chain ip {table} {chain}\ndelete chain ip {table} {chain}");
        for (address, port) in &affinity.targets {
            remove_target(text, table, chain, *address, *port);
        }
    }
}

fn remove_target(text: &mut String, table: &str, chain: &str, address: std::net::Ipv4Addr, port: u16) {
    let name = format!("{chain}-{:08x}-{port}", u32::from(address));
    let _ =
        writeln!(text, "flush chain ip {table} {name}\ndelete chain ip {table} {name}\ndelete set ip {table} {name}");
}
