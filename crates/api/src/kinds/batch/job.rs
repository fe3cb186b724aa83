//! Job: pods that run to completion.

use serde_json::Value;

use super::validate;
use crate::{
    kind::Context,
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells::{self, count},
        pod_spec,
    },
    validation::{
        field::{same, walk},
        pod::warnings,
    },
};

/// Labels that tie a Job's pods to it; the second pair is the older spelling.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    default: |job| {
        let labels = walk(job, "spec.template.metadata.labels").clone();
        let has_labels = |labels: &Value| labels.as_object().is_some_and(|labels| !labels.is_empty());
        if has_labels(&labels) && !has_labels(walk(job, "metadata.labels")) {
            job.member("metadata").set("labels", labels);
        }
        default_spec(job.member("spec"));
    },
    create: generate_selector,
    validate: validate::job,
    validate_update: Some(validate::job_update),
    warnings: |new, old| warnings::of_workload(new, old, "spec.template", true),
    fields: &["status.successful"],
    field: |job, _| count(job, "status.succeeded").to_string(),
    row: Some(row),
    orphan_by_default: true,
    ..Kind::PLAIN
};

fn default_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec.set("completions", 1);
    }
    spec.fill("parallelism", 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i64::from(i32::MAX) };
    spec.fill("backoffLimit", limit);
    spec.fill("completionMode", "NonIndexed");
    spec.fill("suspend", false);
    let replacement = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    spec.fill("podReplacementPolicy", replacement);
    spec.fill("manualSelector", false);
    default_nested(spec);
}

/// What also the template of a CronJob gets: a Job's own defaults wait until the Job is made.
pub(super) fn default_nested(spec: &mut Value) {
    if let Some(policy) = spec.existing("podFailurePolicy") {
        for rule in policy.each("rules") {
            for pattern in rule.each("onPodConditions") {
                pattern.fill("status", "True");
            }
        }
    }
    pod_spec::default_template(spec.member("template"));
}

/// Labels the template with the Job's name and UID and selects by the UID, unless the user manages the selector.
fn generate_selector(job: &mut Value, _cx: &Context<'_>) {
    if walk(job, "metadata.name").as_str().unwrap_or_default().is_empty() {
        // The registry calls again once a name has been generated.
        return;
    }
    let (name, uid) = (walk(job, "metadata.name").clone(), walk(job, "metadata.uid").clone());
    let of_template = same(walk(job, "metadata.labels"), walk(job, "spec.template.metadata.labels"));
    let spec = job.member("spec");
    if spec["manualSelector"] == true {
        return;
    }
    let labels = spec.member("template").member("metadata").object("labels");
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| value.clone());
        }
    }
    let selector = spec.member("selector");
    selector.object("matchLabels").entry(UID_LABELS[0]).or_insert(uid);
    if of_template {
        let labels = walk(job, "spec.template.metadata.labels").clone();
        job.member("metadata").set("labels", labels);
    }
}

fn row(job: &Value, now: &str) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let succeeded = count(status, "succeeded");
    let completions = match (spec["completions"].as_i64(), count(spec, "parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let end = status["completionTime"].as_str().unwrap_or(now);
    let duration = if status["startTime"].is_null() { String::new() } else { cells::since(&status["startTime"], end) };
    let [names, images] = cells::containers(walk(spec, "template.spec"));
    vec![
        cells::name(job),
        state(job).into(),
        completions.into(),
        duration.into(),
        cells::age(job, now),
        names,
        images,
        cells::selector(&spec["selector"]),
    ]
}

fn state(job: &Value) -> &'static str {
    let has = |kind: &str| {
        let conditions = walk(job, "status.conditions").as_array().into_iter().flatten();
        conditions
            .filter(|condition| condition.text("type") == kind)
            .any(|condition| condition.text("status") == "True")
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if !walk(job, "metadata.deletionTimestamp").is_null() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}
