//! LimitRange: bounds and defaults of what one object in a namespace may ask for.

use serde_json::{Map, Value};

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    default: |range| {
        for limit in range.member("spec").each("limits") {
            if limit.text("type") == "Container" {
                default_container(limit);
            }
        }
    },
    row: Some(|range, _| vec![cells::name(range), walk(range, "metadata.creationTimestamp").clone()]),
    create_on_update: true,
    ..Kind::PLAIN
};

/// The default limit is the maximum; the default request is the default limit, or the minimum.
fn default_container(limit: &mut Value) {
    let list =
        |limit: &Value, name: &str| -> Map<String, Value> { limit[name].as_object().cloned().unwrap_or_default() };
    let max = list(limit, "max");
    fill(limit, "default", max);
    let default = list(limit, "default");
    fill(limit, "defaultRequest", default);
    let min = list(limit, "min");
    fill(limit, "defaultRequest", min);
}

fn fill(limit: &mut Value, name: &str, from: Map<String, Value>) {
    if from.is_empty() {
        return;
    }
    let into = limit.object(name);
    for (resource, amount) in from {
        into.entry(resource).or_insert(amount);
    }
}
