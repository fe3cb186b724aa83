//! NetworkPolicy: who may talk to a set of pods.

use serde_json::json;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::walk,
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
    row: Some(|policy, now| {
        vec![cells::name(policy), cells::selector(walk(policy, "spec.podSelector")), cells::age(policy, now)]
    }),
    ..Kind::PLAIN
};
