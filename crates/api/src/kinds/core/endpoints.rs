//! Endpoints: addresses of a Service in one object (deprecated in favour of EndpointSlice).

use serde_json::Value;

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::{
        field::{Errors, Field},
        names, net,
    },
};

pub(crate) static KIND: Kind = Kind {
    default: |endpoints| {
        for port in endpoints.each("subsets").flat_map(|subset| subset.each("ports")) {
            port.fill("protocol", "TCP");
        }
    },
    validate: |errors, endpoints, _| validate(errors, endpoints),
    row: Some(|endpoints, now| vec![cells::name(endpoints), addresses(endpoints).into(), cells::age(endpoints, now)]),
    create_on_update: true,
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, endpoints: &Field<'_>) {
    let subsets = &endpoints.get("subsets");
    for subset in subsets.items() {
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.get(list).is_empty()) {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for list in lists {
            let addresses = &subset.get(list);
            for address in addresses.items() {
                let ip = address.get("ip");
                net::address(errors, &ip);
                if ip.str().parse::<std::net::IpAddr>().is_err() {
                    errors.push(ip.invalid("must be a valid IP address"));
                }
                net::not_local(errors, &ip);
                let host = address.get("hostname");
                if !host.str().is_empty() {
                    host.judge(errors, names::dns_label(host.str()));
                }
                let node = address.get("nodeName");
                if node.exists() {
                    node.judge(errors, names::dns_subdomain(node.str()));
                }
            }
        }
        let ports = &subset.get("ports");
        for port in ports.items() {
            let name = port.get("name");
            match name.str() {
                "" if ports.list().len() > 1 => errors.push(name.required("")),
                "" => {}
                text => name.judge(errors, names::dns_label(text)),
            }
            let number = port.get("port");
            number.judge(errors, names::port_number(number.int().unwrap_or(0)));
            port.get("protocol").required_one_of(errors, &["SCTP", "TCP", "UDP"]);
            let protocol = port.get("appProtocol");
            if protocol.exists() {
                protocol.judge(errors, names::qualified_name(protocol.str()));
            }
        }
    }
}

/// The first three addresses, and how many more there are.
fn addresses(endpoints: &Value) -> String {
    const SHOWN: usize = 3;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in list(endpoints, "subsets") {
        let addresses = list(&subset, "addresses");
        let ports = list(&subset, "ports");
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| address.text("ip").to_string()));
        }
        for port in ports {
            let number = cells::count(&port, "port");
            all.extend(addresses.iter().map(|address| match address.text("ip") {
                six if six.contains(':') => format!("[{six}]:{number}"),
                four => format!("{four}:{number}"),
            }));
        }
    }
    cells::first_of(&all, SHOWN)
}
