//! Rules of HorizontalPodAutoscalers: bounds, metrics, behavior.

use crate::{
    kind::{Context, Part},
    validation::{
        field::{Errors, Field},
        names,
        pod::resources,
    },
};

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const SOURCES: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn create(errors: &mut Errors, scaler: &Field<'_>) {
    let target = &scaler.get("spec.scaleTargetRef");
    spec(errors, scaler);
    grouped(errors, target);
}

/// What is scaled has an API group, replication controllers aside.
fn grouped(errors: &mut Errors, target: &Field<'_>) {
    let version = target.get("apiVersion");
    if !version.str().contains('/') && target.get("kind").str() != "ReplicationController" {
        errors.push(version.invalid("apiVersion must specify API group"));
    }
}

fn spec(errors: &mut Errors, scaler: &Field<'_>) {
    let spec = &scaler.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    let most = max.int().unwrap_or(0);
    if min.int().is_some_and(|number| number < 1) {
        errors.push(min.invalid("must be greater than or equal to 1"));
    }
    match most {
        0 => errors.push(max.required("must be set and greater than 0")),
        number if number < 0 => errors.push(max.invalid("must be greater than or equal to 1")),
        _ => {}
    }
    if min.int().is_some_and(|number| most < number) {
        errors.push(max.invalid_value(most, "must be greater than or equal to `minReplicas`"));
    }
    let target = &spec.get("scaleTargetRef");
    reference(errors, target);
    let metrics = &spec.get("metrics");
    for item in metrics.items() {
        metric(errors, &item);
    }
    let behavior = &spec.get("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.get(direction);
        if rules.exists() {
            scaling_rules(errors, &rules);
        }
    }
}

pub(super) fn update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part != Part::Status {
        spec(errors, new);
        let (target, before) = (&new.get("spec.scaleTargetRef"), &old.get("spec.scaleTargetRef"));
        if ["apiVersion", "kind"].iter().any(|name| target.get(name).str() != before.get(name).str()) {
            grouped(errors, target);
        }
        return;
    }
    for name in ["status.currentReplicas", "status.desiredReplicas"] {
        new.get(name).not_negative(errors);
    }
}

fn reference(errors: &mut Errors, reference: &Field<'_>) {
    for name in ["kind", "name"] {
        let field = reference.get(name);
        match field.str() {
            "" => errors.push(field.required("")),
            text => field.judge(errors, names::path_segment(text, false)),
        }
    }
    let version = reference.get("apiVersion");
    if version.str().matches('/').count() > 1 {
        errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.str())));
    }
}

fn metric(errors: &mut Errors, metric: &Field<'_>) {
    let kind = metric.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    let known: Vec<&str> = SOURCES.iter().map(|(kind, _)| *kind).collect();
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.str()).map(|(_, member)| *member);
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, member)| *member).filter(|member| metric.get(member).exists()).collect();
    if let Some(first) = present.first() {
        source(errors, &metric.get(first), first);
    }
    match expected {
        // Said twice, as upstream does.
        None => errors.extend([kind.not_supported(&known), kind.not_supported(&known)]),
        Some(member) if !metric.get(member).exists() => {
            errors.push(metric.get(member).required("must populate information for the given metric source"));
        }
        Some(_) => {}
    }
    if present.len() != 1 {
        for member in present.into_iter().filter(|member| Some(*member) != expected) {
            errors.push(metric.get(member).forbidden("must populate the given metric source only"));
        }
    }
}

fn source(errors: &mut Errors, source: &Field<'_>, member: &str) {
    if member == "object" {
        reference(errors, &source.get("describedObject"));
    }
    let by_name = matches!(member, "resource" | "containerResource");
    let name = source.get(if by_name { "name" } else { "metric.name" });
    match name.str() {
        "" if by_name => errors.push(name.required("must specify a resource name")),
        "" => errors.push(name.required("must specify a metric name")),
        text if !by_name => name.judge(errors, names::path_segment(text, false)),
        _ => {}
    }
    if member == "containerResource" {
        let container = source.get("container");
        match container.str() {
            "" => errors.push(container.required("must specify a container")),
            text => container.judge(errors, names::dns_label(text)),
        }
    }
    let target = &source.get("target");
    target_values(errors, target);
    let (value, average, utilization) =
        (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    match member {
        "object" if !value.exists() && !average.exists() => {
            errors.push(average.required("must set either a target value or averageValue"));
        }
        "external" => match (value.exists(), average.exists()) {
            (false, false) => {
                errors.push(average.required("must set either a target value for metric or a per-pod target"));
            }
            (true, true) => {
                errors.push(value.forbidden("may not set both a target value for metric and a per-pod target"));
            }
            _ => {}
        },
        "pods" if !average.exists() => {
            errors.push(average.required("must specify a positive target averageValue"));
        }
        _ if by_name => match (utilization.exists(), average.exists()) {
            (false, false) => {
                errors.push(utilization.required("must set either a target raw value or a target utilization"));
            }
            (true, true) => {
                errors.push(average.forbidden("may not set both a target raw value and a target utilization"));
            }
            _ => {}
        },
        _ => {}
    }
}

fn target_values(errors: &mut Errors, target: &Field<'_>) {
    let kind = target.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        errors.push(kind.invalid("must be either Utilization, Value, or AverageValue"));
    }
    for name in ["value", "averageValue"] {
        let amount = target.get(name);
        if resources::parse(amount.value()).is_some_and(|amount| amount.sign() <= 0) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
}

fn scaling_rules(errors: &mut Errors, rules: &Field<'_>) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.int().is_some_and(|seconds| seconds < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int().is_some_and(|seconds| seconds > WINDOW_SECONDS_MAX) {
        errors.push(window.invalid(format!("must be less than or equal to {WINDOW_SECONDS_MAX}")));
    }
    let select = rules.get("selectPolicy");
    if select.exists() {
        select.one_of(errors, &["Disabled", "Max", "Min"]);
    }
    let policies = &rules.get("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        policy.get("type").one_of(errors, &["Percent", "Pods"]);
        for name in ["value", "periodSeconds"] {
            let number = policy.get(name);
            if number.int().unwrap_or(0) <= 0 {
                errors.push(number.invalid_value(number.int().unwrap_or(0), "must be greater than zero"));
            }
        }
        let period = policy.get("periodSeconds");
        if period.int().is_some_and(|seconds| seconds > PERIOD_SECONDS_MAX) {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_SECONDS_MAX}")));
        }
    }
}
