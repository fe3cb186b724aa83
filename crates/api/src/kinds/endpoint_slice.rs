//! EndpointSlice: some of the addresses behind a Service.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field},
        names, net,
    },
};

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20000;
const ADDRESSES_MAX: usize = 100;

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation: &["endpoints", "ports", "addressType", "metadata.labels"], ..Shape::PLAIN },
    default: |slice| {
        for port in slice.each("ports") {
            if port["name"].is_null() {
                port.set("name", "");
            }
            port.fill("protocol", "TCP");
        }
        for endpoint in slice.each("endpoints") {
            endpoint.object("conditions");
        }
    },
    validate: |errors, slice, _| validate(errors, slice),
    validate_update: Some(|errors, new, old, _| {
        if new.get("addressType").immutable(errors, &old.get("addressType")) {
            validate(errors, new);
        }
    }),
    row: Some(|slice, now| {
        let list = |name: &str| slice[name].as_array().into_iter().flatten();
        let ports: Vec<String> = list("ports")
            .map(|port| match (&port["port"], &port["name"]) {
                (Value::Number(number), _) => number.to_string(),
                (_, Value::String(name)) => name.clone(),
                _ => "*".to_string(),
            })
            .collect();
        let addresses: Vec<String> = list("endpoints")
            .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
            .filter_map(|address| address.as_str().map(str::to_string))
            .collect();
        vec![
            cells::name(slice),
            slice.text("addressType").into(),
            more_than_three(&ports).into(),
            more_than_three(&addresses).into(),
            cells::age(slice, now),
        ]
    }),
    ..Kind::PLAIN
};

fn more_than_three(texts: &[String]) -> String {
    const SHOWN: usize = 3;
    match texts.is_empty() {
        true => "<unset>".into(),
        false => cells::first_of(texts, SHOWN),
    }
}

fn validate(errors: &mut Errors, slice: &Field<'_>) {
    let kind = slice.get("addressType");
    kind.required_one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    let ports = &slice.get("ports");
    if ports.list().len() > PORTS_MAX {
        errors.push(ports.too_many(ports.list().len(), PORTS_MAX));
        return;
    }
    for (index, port) in ports.items().enumerate() {
        let name = port.get("name");
        if !name.str().is_empty() {
            name.judge(errors, names::dns_label(name.str()));
        }
        if ports.list()[..index].iter().any(|other| other.text("name") == name.str()) {
            errors.push(name.duplicate());
        }
        port.get("protocol").required_one_of(errors, &["SCTP", "TCP", "UDP"]);
        let protocol = port.get("appProtocol");
        if protocol.exists() {
            protocol.judge(errors, names::qualified_name(protocol.str()));
        }
    }
    endpoints(errors, &slice.get("endpoints"), kind.str());
}

fn endpoints(errors: &mut Errors, endpoints: &Field<'_>, kind: &str) {
    if endpoints.list().len() > ENDPOINTS_MAX {
        errors.push(endpoints.too_many(endpoints.list().len(), ENDPOINTS_MAX));
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = &endpoint.get("addresses");
        match addresses.list().len() {
            0 => errors.push(addresses.required("must contain at least 1 address")),
            count if count > ADDRESSES_MAX => errors.push(addresses.too_many(count, ADDRESSES_MAX)),
            _ => {}
        }
        for address in addresses.items() {
            let text = address.str();
            match (kind, text.parse::<IpAddr>()) {
                ("FQDN", _) => address.judge(errors, names::dns_subdomain(text)),
                (_, Err(_)) => net::address(errors, &address),
                ("IPv4", Ok(IpAddr::V6(_))) => errors.push(address.invalid("must be an IPv4 address")),
                ("IPv6", Ok(IpAddr::V4(_))) => errors.push(address.invalid("must be an IPv6 address")),
                (_, Ok(_)) => net::not_local(errors, &address),
            }
        }
        let node = endpoint.get("nodeName");
        if node.exists() {
            node.judge(errors, names::dns_subdomain(node.str()));
        }
        let host = endpoint.get("hostname");
        if host.exists() {
            host.judge(errors, names::dns_label(host.str()));
        }
    }
}
