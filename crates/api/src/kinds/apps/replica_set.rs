//! ReplicaSet: so many pods of one template.

use serde_json::{Value, json};

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
        pod::warnings,
        workload,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    default,
    empty_status: || json!({"replicas": 0}),
    validate: |errors, object, _| validate(errors, object),
    validate_update: Some(validate_update),
    warnings: |new, old| warnings::of_workload(new, old, "spec.template", true),
    row: Some(row),
    scale_selector: Some("spec.selector"),
    ..Kind::PLAIN
};

fn default(object: &mut Value) {
    let spec = object.member("spec");
    spec.fill("replicas", 1);
    pod_spec::default_template(spec.member("template"));
}

fn row(object: &Value, now: &str) -> Vec<Value> {
    let spec = &object["spec"];
    let [names, images] = cells::containers(walk(spec, "template.spec"));
    vec![
        cells::name(object),
        count(spec, "replicas").into(),
        count(object, "status.replicas").into(),
        count(object, "status.readyReplicas").into(),
        cells::age(object, now),
        names,
        images,
        cells::selector(&spec["selector"]),
    ]
}

fn validate(errors: &mut Errors, object: &Field<'_>) {
    let spec = &object.get("spec");
    for name in ["replicas", "minReadySeconds"] {
        spec.get(name).not_negative(errors);
    }
    let selector = spec.get("selector");
    // Upstream's message names the Deployment here.
    workload::selector(errors, &selector, "deployment");
    workload::matching_template(errors, &spec.get("template"), &selector);
    workload::lasting_template(errors, &spec.get("template"), "ReplicaSet");
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        return workload::status_counts(errors, &new.get("status"), &parts, "readyReplicas");
    }
    validate(errors, new);
    new.get("spec.selector").immutable(errors, &old.get("spec.selector"));
}
