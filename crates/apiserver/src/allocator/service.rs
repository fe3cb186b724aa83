//! Services: address families, cluster addresses, node ports and health-check ports.
//!
//! What follows from `type`, and what an update carries over, is the kind's; here a Service gets what it still lacks.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use api::status::{FieldError, Status};
use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    Allocators,
    pool::{Pool, Refused},
};
use crate::{admission::Ticket, catalog::Served, config::Config, registry::meta};

/// Addresses of one family, or ports.
struct Numbers {
    pool: Arc<Mutex<Pool>>,
}

impl Numbers {
    /// Takes a number with a ticket that gives it back.
    fn take(&self, number: u128, holder: &str, tickets: &mut Vec<Ticket>) -> Result<(), Refused> {
        if self.pool.lock().take(number, holder)? {
            tickets.push(self.ticket(number, holder));
        }
        Ok(())
    }

    fn take_any(&self, holder: &str, tickets: &mut Vec<Ticket>) -> Result<u128, Refused> {
        let number = self.pool.lock().take_any(holder)?;
        tickets.push(self.ticket(number, holder));
        Ok(number)
    }

    fn ticket(&self, number: u128, holder: &str) -> Ticket {
        let (pool, holder) = (self.pool.clone(), holder.to_string());
        Ticket::new(move || pool.lock().give_back(number, &holder))
    }
}

/// Pools for Services.
pub(super) struct ServicePools {
    families: Vec<(&'static str, IpNet, Numbers)>,
    ports: Numbers,
    port_range: (u16, u16),
    /// What stored Services hold, by key: uid, addresses, ports.
    known: Mutex<HashMap<Arc<str>, Held>>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Held {
    uid: String,
    addresses: Vec<IpAddr>,
    ports: Vec<u128>,
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

fn address_of(number: u128, family: &str) -> IpAddr {
    // A pool of IPv4 addresses has no larger numbers.
    if family == "IPv4" { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

impl ServicePools {
    pub(super) fn new(config: &Config) -> Self {
        let families = config
            .service_cidrs
            .iter()
            .map(|range| {
                let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(32);
                // Neither the network's own address nor, for IPv4, the broadcast address is given out.
                let size = (1u128 << bits) - if range.network().is_ipv4() { 2 } else { 1 };
                let reserved = (size / 16).clamp(16, 256);
                let pool = Pool::new(number_of(range.network()) + 1, size, reserved);
                (family_of(range.network()), *range, Numbers { pool: Arc::new(Mutex::new(pool)) })
            })
            .collect();
        let (low, high) = config.node_ports;
        let size = u128::from(high.saturating_sub(low)) + 1;
        let ports = Pool::new(low.into(), size, (size / 32).clamp(16, 128));
        Self {
            families,
            ports: Numbers { pool: Arc::new(Mutex::new(ports)) },
            port_range: config.node_ports,
            known: Mutex::default(),
        }
    }

    fn family(&self, name: &str) -> Option<&(&'static str, IpNet, Numbers)> {
        self.families.iter().find(|(family, ..)| *family == name)
    }

    /// Takes note of a stored Service, or that there is none under the key any more.
    pub(super) fn learn(&self, key: &Arc<str>, service: Option<&Value>) {
        let now = service.map(held).unwrap_or_default();
        let mut known = self.known.lock();
        let before = known.remove(key).unwrap_or_default();
        for address in
            before.addresses.iter().filter(|address| before.uid != now.uid || !now.addresses.contains(address))
        {
            if let Some((.., numbers)) = self.family(family_of(*address)) {
                numbers.pool.lock().give_back(number_of(*address), &before.uid);
            }
        }
        for port in before.ports.iter().filter(|port| before.uid != now.uid || !now.ports.contains(port)) {
            self.ports.pool.lock().give_back(*port, &before.uid);
        }
        for address in &now.addresses {
            if let Some((.., numbers)) = self.family(family_of(*address)) {
                // Out of today's range, or a conflict made by hand: nothing that could be done here.
                let _ = numbers.pool.lock().take(number_of(*address), &now.uid);
            }
        }
        for port in &now.ports {
            let _ = self.ports.pool.lock().take(*port, &now.uid);
        }
        if service.is_some() {
            known.insert(key.clone(), now);
        }
    }

    /// Frees what a removed Service held.
    pub(super) fn forget(&self, service: &Value) {
        let gone = held(service);
        for address in gone.addresses {
            if let Some((.., numbers)) = self.family(family_of(address)) {
                numbers.pool.lock().give_back(number_of(address), &gone.uid);
            }
        }
        for port in gone.ports {
            self.ports.pool.lock().give_back(port, &gone.uid);
        }
    }
}

fn held(service: &Value) -> Held {
    let spec = &service["spec"];
    let addresses = list(&spec["clusterIPs"]).filter_map(|address| address.as_str()?.parse().ok()).collect();
    let mut ports: Vec<u128> =
        list(&spec["ports"]).filter_map(|port| number(&port["nodePort"])).map(u128::from).collect();
    ports.extend(number(&spec["healthCheckNodePort"]).map(u128::from));
    Held { uid: meta::uid(service).into(), addresses, ports }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A port number that is set.
fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

pub(super) fn fill(
    allocators: &Allocators,
    served: &Served,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<Ticket>, Status> {
    let pools = &allocators.services;
    let name = meta::name(service).to_string();
    let invalid = |errors: Vec<FieldError>| Status::invalid(served.about_kind(&name), errors);
    let mut tickets = Vec::new();
    if service["spec"]["type"] != "ExternalName" {
        families(pools, &mut service["spec"], old.map(|old| &old["spec"])).map_err(invalid)?;
        addresses(pools, service, &mut tickets).map_err(|refusal| refusal.into_status(served, &name))?;
    }
    node_ports(pools, service, &mut tickets).map_err(|refusal| refusal.into_status(served, &name))?;
    Ok(tickets)
}

/// Settles `ipFamilyPolicy` and `ipFamilies`.
fn families(pools: &ServicePools, spec: &mut Value, old: Option<&Value>) -> Result<(), Vec<FieldError>> {
    let headless = spec["clusterIP"] == "None";
    let selects = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    if spec["ipFamilyPolicy"].is_null() {
        let before = old.map(|old| old["ipFamilyPolicy"].clone()).filter(|before| !before.is_null());
        spec["ipFamilyPolicy"] = before.unwrap_or_else(|| match headless && !selects {
            true => "RequireDualStack".into(),
            false => "SingleStack".into(),
        });
    }
    let single = spec["ipFamilyPolicy"] == "SingleStack";
    if let Some(old) = old.filter(|_| single) {
        for member in ["clusterIPs", "ipFamilies"] {
            if spec[member] == old[member]
                && let Some(items) = spec[member].as_array_mut()
            {
                items.truncate(1);
            }
        }
    }
    let mut errors = Vec::new();
    let mut chosen: Vec<String> = list(&spec["ipFamilies"]).filter_map(|own| Some(own.as_str()?.to_string())).collect();
    for (index, address) in list(&spec["clusterIPs"]).enumerate() {
        let Some(address) = address.as_str().and_then(|address| address.parse::<IpAddr>().ok()) else { continue };
        let family = family_of(address);
        if index >= chosen.len() {
            if pools.family(family).is_none() {
                let why = format!("{family} is not configured on this cluster");
                errors.push(FieldError::invalid(format!("spec.clusterIPs[{index}]"), spec["clusterIPs"].clone(), why));
            }
            chosen.push(family.into());
        }
    }
    let default = pools.families.first().map_or("IPv4", |(family, ..)| family);
    let other = |family: &str| if family == "IPv4" { "IPv6" } else { "IPv4" };
    if headless && !selects {
        if chosen.is_empty() {
            chosen.push(default.into());
        }
        if chosen.len() == 1 && !single {
            chosen.push(other(&chosen[0]).into());
        }
    } else {
        if spec["ipFamilyPolicy"] == "RequireDualStack" && pools.families.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"].clone(), why));
        }
        for (index, family) in chosen.iter().enumerate().filter(|(_, family)| pools.family(family).is_none()) {
            let field = format!("spec.ipFamilies[{index}]");
            errors.push(FieldError::invalid(field, family.as_str(), "not configured on this cluster"));
        }
        if chosen.is_empty() {
            chosen.push(default.into());
        }
        if chosen.len() == 1 && !single && pools.families.len() == 2 {
            chosen.push(other(&chosen[0]).into());
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    spec["ipFamilies"] = json!(chosen);
    Ok(())
}

/// A number that cannot be had, and the field that wanted it.
enum Refusal {
    Field(FieldError),
    Full(&'static str),
}

impl Refusal {
    fn into_status(self, served: &Served, name: &str) -> Status {
        match self {
            Self::Field(error) => Status::invalid(served.about_kind(name), vec![error]),
            Self::Full(what) => Status::internal(format!("failed to allocate a {what}: range is full")),
        }
    }
}

fn addresses(pools: &ServicePools, service: &mut Value, tickets: &mut Vec<Ticket>) -> Result<(), Refusal> {
    let holder = meta::uid(service).to_string();
    let spec = &mut service["spec"];
    if spec["clusterIPs"][0] == "None" || spec["clusterIP"] == "None" {
        spec["clusterIPs"] = json!(["None"]);
        spec["clusterIP"] = "None".into();
        return Ok(());
    }
    let mut own: Vec<String> = list(&spec["clusterIPs"]).filter_map(|own| Some(own.as_str()?.to_string())).collect();
    let families: Vec<String> = list(&spec["ipFamilies"]).filter_map(|own| Some(own.as_str()?.to_string())).collect();
    for (index, family) in families.iter().enumerate() {
        let Some((_, range, numbers)) = pools.family(family) else { continue };
        let given = own.get(index).filter(|given| !given.is_empty()).cloned();
        match given {
            None => {
                let number = numbers.take_any(&holder, tickets).map_err(|_| Refusal::Full("serviceIP"))?;
                own.truncate(index);
                own.push(address_of(number, family).to_string());
            }
            Some(given) => {
                let wrong = |why: &str| {
                    let why = format!("failed to allocate IP {given}: {why}");
                    Refusal::Field(FieldError::invalid("spec.clusterIPs", json!(own), why))
                };
                let address: IpAddr = given.parse().map_err(|_| wrong("it is no IP address"))?;
                numbers.take(number_of(address), &holder, tickets).map_err(|refused| match refused {
                    Refused::OutOfRange => wrong(&format!(
                        "the provided network does not match the current range: the provided IP ({given}) is not in \
                         the valid range. The range of valid IPs is {range}"
                    )),
                    _ => wrong("provided IP is already allocated"),
                })?;
            }
        }
    }
    spec["clusterIP"] = own.first().cloned().unwrap_or_default().into();
    spec["clusterIPs"] = json!(own);
    Ok(())
}

fn node_ports(pools: &ServicePools, service: &mut Value, tickets: &mut Vec<Ticket>) -> Result<(), Refusal> {
    let holder = meta::uid(service).to_string();
    let spec = &mut service["spec"];
    let of_balancer = spec["type"] == "LoadBalancer";
    let wants = spec["type"] == "NodePort" || of_balancer && spec["allocateLoadBalancerNodePorts"] != false;
    if !wants && !of_balancer {
        return Ok(());
    }
    let refused = |field: String, number: u16, refused: Refused| match refused {
        Refused::OutOfRange => Refusal::Field(FieldError::invalid(
            field,
            number,
            format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                pools.port_range.0, pools.port_range.1
            ),
        )),
        _ => Refusal::Field(FieldError::invalid(field, number, "provided port is already allocated")),
    };
    // The ports that were asked for come first, so that none of them is given away to another one.
    let health = "healthCheckNodePort";
    let local = of_balancer && spec["externalTrafficPolicy"] == "Local";
    if let Some(asked) = number(&spec[health]).filter(|_| local) {
        pools
            .ports
            .take(asked.into(), &holder, tickets)
            .map_err(|why| refused(format!("spec.{health}"), asked, why))?;
    }
    let mut shared: HashMap<(u64, String), (u16, Vec<String>)> = HashMap::new();
    let key = |port: &Value| (port["port"].as_u64().unwrap_or(0), port["targetPort"].to_string());
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_string();
    for (index, port) in list(&spec["ports"]).enumerate() {
        if let Some(asked) = number(&port["nodePort"]) {
            let field = format!("spec.ports[{index}].nodePort");
            pools.ports.take(asked.into(), &holder, tickets).map_err(|why| refused(field, asked, why))?;
            shared.entry(key(port)).or_insert((asked, Vec::new())).1.push(protocol(port));
        }
    }
    if local && number(&spec[health]).is_none() {
        let given = pools.ports.take_any(&holder, tickets).map_err(|_| Refusal::Full("nodePort"))?;
        spec[health] = json!(given as u16);
    }
    if !wants {
        return Ok(());
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if number(&port["nodePort"]).is_some() {
            continue;
        }
        // One port in two protocols gets one node port.
        let own = protocol(port);
        let entry = shared.get_mut(&key(port)).filter(|(_, protocols)| !protocols.contains(&own));
        let given = match entry {
            Some((given, protocols)) => {
                protocols.push(own);
                *given
            }
            None => {
                let given = pools.ports.take_any(&holder, tickets).map_err(|_| Refusal::Full("nodePort"))? as u16;
                shared.insert(key(port), (given, vec![own]));
                given
            }
        };
        port["nodePort"] = given.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Allocators {
        Allocators::new(&Config::default())
    }

    fn fill_spec(allocators: &Allocators, uid: &str, spec: Value) -> Result<(Value, Vec<Ticket>), Status> {
        let catalog = crate::catalog::Catalog::new(api::kinds::all().iter().map(crate::catalog::Known::builtin));
        let served = catalog.stored("", "services").unwrap();
        let mut service = json!({"metadata": {"name": "s", "uid": uid}, "spec": spec});
        let tickets = fill(allocators, &served, &mut service, None)?;
        Ok((service["spec"].take(), tickets))
    }

    #[test]
    fn a_service_gets_an_address_and_gives_it_back() {
        let pools = pools();
        let (spec, tickets) = fill_spec(&pools, "u", json!({"type": "ClusterIP"})).unwrap();
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
        let again = json!({"type": "ClusterIP", "clusterIP": spec["clusterIP"], "clusterIPs": [spec["clusterIP"]]});
        let refused = fill_spec(&pools, "v", again.clone()).err().unwrap();
        assert_eq!(refused.code, 422);
        drop(tickets);
        assert!(fill_spec(&pools, "v", again).is_ok());
    }

    #[test]
    fn one_port_in_two_protocols_shares_its_node_port() {
        let pools = pools();
        let ports = json!([
            {"name": "a", "port": 53, "targetPort": 53, "protocol": "TCP"},
            {"name": "b", "port": 53, "targetPort": 53, "protocol": "UDP"},
            {"name": "c", "port": 80, "targetPort": 80, "protocol": "TCP"},
        ]);
        let (spec, _tickets) = fill_spec(&pools, "u", json!({"type": "NodePort", "ports": ports})).unwrap();
        let number = |index: usize| spec["ports"][index]["nodePort"].as_u64().unwrap();
        assert_eq!(number(0), number(1));
        assert_ne!(number(0), number(2));
    }

    #[test]
    fn headless_services_take_nothing() {
        let spec = json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}});
        let (spec, tickets) = fill_spec(&pools(), "u", spec).unwrap();
        assert_eq!(spec["clusterIPs"], json!(["None"]));
        assert!(tickets.is_empty());
    }

    #[test]
    fn ports_out_of_range_are_refused() {
        let ports = json!([{"port": 80, "nodePort": 80}]);
        let refused = fill_spec(&pools(), "u", json!({"type": "NodePort", "ports": ports})).err().unwrap();
        assert!(refused.message.contains("30000-32767"), "{refused}");
    }
}
