//! ReplicationController: the ReplicaSet's forerunner, with a selector by equality only.

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
    fields: &["status.replicas"],
    field: |object, path| count(object, path).to_string(),
    row: Some(|object, now| {
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
            cells::labels(&spec["selector"]),
        ]
    }),
    orphan_by_default: true,
    scale_selector: Some("spec.selector"),
    ..Kind::PLAIN
};

/// Selector and labels come from the template when they are not given.
fn default(object: &mut Value) {
    let labels = walk(object, "spec.template.metadata.labels").clone();
    let empty = |value: &Value| value.as_object().is_none_or(|map| map.is_empty());
    if !empty(&labels) {
        if empty(walk(object, "spec.selector")) {
            object.member("spec").set("selector", labels.clone());
        }
        if empty(walk(object, "metadata.labels")) {
            object.member("metadata").set("labels", labels);
        }
    }
    let spec = object.member("spec");
    spec.fill("replicas", 1);
    if let Some(template) = spec.existing("template") {
        pod_spec::default_template(template);
    }
}

fn validate(errors: &mut Errors, object: &Field<'_>) {
    let spec = &object.get("spec");
    for name in ["replicas", "minReadySeconds"] {
        spec.get(name).not_negative(errors);
    }
    let selector = spec.get("selector");
    if selector.is_empty() {
        errors.push(selector.required(""));
    }
    let template = &spec.get("template");
    if !template.exists() {
        errors.push(template.required(""));
        return;
    }
    workload::matching_template_by_map(errors, template, &selector);
    workload::lasting_template(errors, template, "ReplicationController");
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, _old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        return workload::status_counts(errors, &new.get("status"), &parts, "readyReplicas");
    }
    validate(errors, new);
}
