//! PodDisruptionBudget: how many pods of a set may be evicted at once.

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        metadata, numbers,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    empty_status: || json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
    validate: |errors, budget, _| spec(errors, budget),
    validate_update: Some(validate_update),
    row: Some(|budget, now| {
        let number = |name: &str| match &budget["spec"][name] {
            Value::Null => "N/A".into(),
            Value::String(text) => Value::from(text.as_str()),
            other => other.to_string().into(),
        };
        vec![
            cells::name(budget),
            number("minAvailable"),
            number("maxUnavailable"),
            cells::count(budget, "status.disruptionsAllowed").into(),
            cells::age(budget, now),
        ]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn spec(errors: &mut Errors, budget: &Field<'_>) {
    let spec = &budget.get("spec");
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.exists() && max.exists() {
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for number in [min, max].into_iter().filter(Field::exists) {
        numbers::count_or_percent(errors, &number);
        numbers::at_most_all(errors, &number);
    }
    metadata::label_selector(errors, &spec.get("selector"));
    let policy = spec.get("unhealthyPodEvictionPolicy");
    if policy.exists() {
        policy.one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, _old: &Field<'_>, cx: &Context<'_>) {
    if cx.part != Part::Status {
        return spec(errors, new);
    }
    let status = &new.get("status");
    for name in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        if walk(status.value(), name).as_i64().unwrap_or(0) < 0 {
            errors.push(status.get(name).invalid("must be greater than or equal to 0"));
        }
    }
}
