//! LimitRange: bounds and defaults of what one object in a namespace may ask for.

use serde_json::{Map, Value};

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    quantity::Quantity,
    validation::{
        field::{Errors, Field, walk},
        names,
        pod::resources,
    },
};

pub(crate) static KIND: Kind = Kind {
    default: |range| {
        for limit in range.member("spec").each("limits") {
            if limit.text("type") == "Container" {
                default_container(limit);
            }
        }
    },
    validate: |errors, range, _| validate(errors, &range.get("spec.limits")),
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

fn validate(errors: &mut Errors, limits: &Field<'_>) {
    for (index, limit) in limits.items().enumerate() {
        let kind = limit.get("type");
        match kind.str() {
            "" | "Container" | "Pod" | "PersistentVolumeClaim" => {}
            other => kind.judge(errors, names::qualified_name(other)),
        }
        if limits.list()[..index].iter().any(|other| other["type"] == *kind.value()) {
            errors.push(kind.duplicate());
        }
        if kind.str() == "Pod" {
            for name in ["default", "defaultRequest"] {
                if !limit.get(name).is_empty() {
                    errors.push(limit.get(name).forbidden("may not be specified when `type` is 'Pod'"));
                }
            }
        }
        if kind.str() == "PersistentVolumeClaim"
            && !limit.get("min.storage").exists()
            && !limit.get("max.storage").exists()
        {
            errors.push(
                limit
                    .get("limits")
                    .required("either minimum or maximum storage value is required, but neither was provided"),
            );
        }
        bounds(errors, &limit);
    }
}

/// For each resource: minimum <= default request <= default limit <= maximum.
fn bounds(errors: &mut Errors, limit: &Field<'_>) {
    const ORDER: &[(&str, &str)] = &[
        ("min", "min value"),
        ("defaultRequest", "default request value"),
        ("default", "default value"),
        ("max", "max value"),
    ];
    let amount = |list: &str, resource: &str| -> Option<Quantity> {
        limit.value()[list].get(resource).and_then(resources::parse)
    };
    let mut names: Vec<&str> = ORDER
        .iter()
        .filter_map(|(list, _)| limit.value()[*list].as_object())
        .flat_map(|map| map.keys().map(String::as_str))
        .collect();
    names.sort_unstable();
    names.dedup();
    for resource in names {
        for (index, (low, low_name)) in ORDER.iter().enumerate() {
            for (high, high_name) in &ORDER[index + 1..] {
                let (Some(least), Some(most)) = (amount(low, resource), amount(high, resource)) else { continue };
                if least > most {
                    errors.push(out_of_order(limit, resource, (low, low_name, &least), (high, high_name, &most)));
                }
            }
        }
        let ratio = amount("maxLimitRequestRatio", resource);
        if ratio.as_ref().is_some_and(|ratio| ratio.milli_value() < 1000) {
            let field = limit.get("maxLimitRequestRatio");
            let text = ratio.map(|ratio| ratio.to_string()).unwrap_or_default();
            errors.push(field.key(resource).invalid(format!("ratio {text} is less than 1")));
        }
    }
}

/// Upstream's words and place for two bounds in the wrong order.
fn out_of_order(
    limit: &Field<'_>,
    resource: &str,
    (low, low_name, least): (&str, &str, &Quantity),
    (high, high_name, most): (&str, &str, &Quantity),
) -> crate::status::FieldError {
    let (at, value, high_name) = match (low, high) {
        ("min", "max") => ("min", least, high_name),
        ("min", "default") => ("default", least, high_name),
        ("min", _) => ("defaultRequest", most, high_name),
        ("defaultRequest", "default") => ("defaultRequest", least, "default limit value"),
        ("defaultRequest", _) => ("defaultRequest", least, high_name),
        _ => ("default", most, high_name),
    };
    let field = limit.get(at);
    field
        .key(resource)
        .invalid_value(value.to_string(), format!("{low_name} {least} is greater than {high_name} {most}"))
}
