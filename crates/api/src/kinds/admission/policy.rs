//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: admission rules in CEL.

use serde_json::Value;

use crate::kinds::{
    access::Members,
    builtin::{Kind, RESET_FOR_STATUS, Shape},
    cells,
};

pub(crate) static VALIDATING: Kind = Kind {
    shape: Shape { status_keeps: RESET_FOR_STATUS, ..Shape::WORKLOAD },
    row: Some(|policy, now| row(policy, "validations", now)),
    ..BOTH
};

pub(crate) static MUTATING: Kind =
    Kind { shape: Shape::GENERATION, row: Some(|policy, now| row(policy, "mutations", now)), ..BOTH };

const BOTH: Kind = Kind {
    default: |policy| {
        let spec = policy.member("spec");
        spec.fill("failurePolicy", "Fail");
        if let Some(constraints) = spec.existing("matchConstraints") {
            default_match_resources(constraints);
        }
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

/// Fills a `MatchResources`, of a policy or of a binding.
pub(super) fn default_match_resources(constraints: &mut Value) {
    default_match(constraints);
    default_scope(constraints, "resourceRules");
    default_scope(constraints, "excludeResourceRules");
}

/// Fills how rules match, for webhooks and policies alike.
pub(super) fn default_match(object: &mut Value) {
    object.fill("matchPolicy", "Equivalent");
    object.object("namespaceSelector");
    object.object("objectSelector");
    default_scope(object, "rules");
}

fn default_scope(object: &mut Value, rules: &str) {
    for rule in object.each(rules) {
        rule.fill("scope", "*");
    }
}

fn row(policy: &Value, rules: &str, now: &str) -> Vec<Value> {
    let spec = &policy["spec"];
    let kind = &spec["paramKind"];
    let kind = match kind.is_object() {
        true => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")),
        false => "<unset>".into(),
    };
    let count = spec[rules].as_array().map_or(0, Vec::len);
    vec![cells::name(policy), count.into(), kind.into(), cells::age(policy, now)]
}
