//! Deployment: rolls a template out through ReplicaSets.

use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells::{self, count},
        pod_spec,
    },
    validation::{
        field::{Errors, Field, walk},
        numbers,
        pod::warnings,
        workload,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation: &["spec", "metadata.annotations"], status_keeps: &["labels"], ..Shape::WORKLOAD },
    default,
    validate: |errors, deployment, _| validate(errors, deployment),
    validate_update: Some(validate_update),
    warnings: |new, old| warnings::of_workload(new, old, "spec.template", true),
    row: Some(|deployment, now| {
        let spec = &deployment["spec"];
        let [names, images] = cells::containers(walk(spec, "template.spec"));
        vec![
            cells::name(deployment),
            format!("{}/{}", count(deployment, "status.readyReplicas"), count(spec, "replicas")).into(),
            count(deployment, "status.updatedReplicas").into(),
            count(deployment, "status.availableReplicas").into(),
            cells::age(deployment, now),
            names,
            images,
            cells::selector_text(&spec["selector"]).into(),
        ]
    }),
    scale_selector: Some("spec.selector"),
    ..Kind::PLAIN
};

fn default(deployment: &mut Value) {
    let spec = deployment.member("spec");
    spec.fill("replicas", 1);
    spec.fill("revisionHistoryLimit", 10);
    spec.fill("progressDeadlineSeconds", 600);
    let strategy = spec.member("strategy");
    strategy.fill("type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = strategy.member("rollingUpdate");
        rolling.fill("maxUnavailable", "25%");
        rolling.fill("maxSurge", "25%");
    }
    pod_spec::default_template(spec.member("template"));
}

fn validate(errors: &mut Errors, deployment: &Field<'_>) {
    let spec = &deployment.get("spec");
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        spec.get(name).not_negative(errors);
    }
    let selector = spec.get("selector");
    workload::selector(errors, &selector, "deployment");
    workload::matching_template(errors, &spec.get("template"), &selector);
    workload::lasting_template(errors, &spec.get("template"), "ReplicaSet");
    strategy(errors, &spec.get("strategy"));
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| seconds <= spec.get("minReadySeconds").int().unwrap_or(0)) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
}

fn strategy(errors: &mut Errors, strategy: &Field<'_>) {
    let rolling = &strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "Recreate" => {
            if rolling.exists() {
                errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            numbers::count_or_percent(errors, &unavailable);
            numbers::count_or_percent(errors, &surge);
            if numbers::is_zero(unavailable.value()) && numbers::is_zero(surge.value()) {
                errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            numbers::at_most_all(errors, &unavailable);
        }
        _ => errors.push(strategy.not_supported(&["Recreate", "RollingUpdate"])),
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        workload::status_counts(errors, &new.get("status"), &parts, "readyReplicas");
        workload::collision_count(errors, new, old);
        return;
    }
    validate(errors, new);
    new.get("spec.selector").immutable(errors, &old.get("spec.selector"));
}
