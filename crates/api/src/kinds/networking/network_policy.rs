//! NetworkPolicy: who may talk to a set of pods.

use ipnet::IpNet;
use serde_json::json;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        metadata, names, net,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::GENERATION,
    default: |policy| {
        let spec = policy.member("spec");
        spec.object("podSelector");
        for direction in ["ingress", "egress"] {
            for port in spec.each(direction).flat_map(|rule| rule.each("ports")) {
                port.fill("protocol", "TCP");
            }
        }
        if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
            let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            spec.set("policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    },
    validate: |errors, policy, _| validate(errors, &policy.get("spec")),
    row: Some(|policy, now| {
        vec![cells::name(policy), cells::selector(walk(policy, "spec.podSelector")), cells::age(policy, now)]
    }),
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, spec: &Field<'_>) {
    metadata::label_selector(errors, &spec.get("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = &spec.get(direction);
        for rule in rules.items() {
            let (ports, peers) = (&rule.get("ports"), &rule.get(peers));
            for item in ports.items() {
                port(errors, &item);
            }
            for item in peers.items() {
                peer(errors, &item);
            }
        }
    }
    let types = &spec.get("policyTypes");
    if types.list().len() > 2 {
        errors.push(types.invalid("may not specify more than two policyTypes"));
        return;
    }
    for kind in types.items() {
        kind.one_of(errors, &["Ingress", "Egress"]);
    }
}

fn port(errors: &mut Errors, item: &Field<'_>) {
    let (protocol, port, end) = (item.get("protocol"), item.get("port"), item.get("endPort"));
    if protocol.exists() {
        protocol.one_of(errors, &["TCP", "UDP", "SCTP"]);
    }
    if port.exists() {
        net::port_or_name(errors, &port);
    }
    let Some(last) = end.int() else { return };
    match port.int() {
        Some(first) => {
            if last < first {
                errors.push(end.invalid_value(first, "must be greater than or equal to `port`"));
            }
            end.judge(errors, names::port_number(last));
        }
        None if port.exists() => errors.push(end.invalid("may not be specified when `port` is non-numeric")),
        None => errors.push(end.invalid("may not be specified when `port` is not specified")),
    }
}

fn peer(errors: &mut Errors, peer: &Field<'_>) {
    let mut count = 0;
    for name in ["podSelector", "namespaceSelector"] {
        let selector = peer.get(name);
        if selector.exists() {
            count += 1;
            metadata::label_selector(errors, &selector);
        }
    }
    let block = &peer.get("ipBlock");
    if block.exists() {
        if count > 0 {
            errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
        }
        ip_block(errors, block);
    } else if count == 0 {
        errors.push(peer.required("must specify a peer"));
    }
}

fn ip_block(errors: &mut Errors, block: &Field<'_>) {
    let range = block.get("cidr");
    if range.is_empty() {
        errors.push(range.required(""));
        return;
    }
    net::range(errors, &range);
    let Ok(whole) = range.str().parse::<IpNet>() else { return };
    let exceptions = &block.get("except");
    for exception in exceptions.items() {
        net::range(errors, &exception);
        if let Ok(part) = exception.str().parse::<IpNet>()
            && (!whole.contains(&part.addr()) || whole.prefix_len() >= part.prefix_len())
        {
            errors.push(exception.invalid("must be a strict subset of `cidr`"));
        }
    }
}
