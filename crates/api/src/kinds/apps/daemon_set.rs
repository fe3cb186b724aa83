//! DaemonSet: one pod on every node that fits.

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
        field::{Errors, Field, same, walk},
        numbers,
        pod::warnings,
        workload,
    },
};

/// Counts changes of the template; older than `generation`, still kept up.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    default,
    empty_status: || json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
    create: |set, _| {
        if template_generation(set) < 1 {
            set_template_generation(set, 1);
        }
    },
    update: |new, old, cx| {
        let template = "spec.template";
        let changed = cx.part != Part::Status && !same(walk(new, template), walk(old, template));
        set_template_generation(new, template_generation(old) + i64::from(changed));
    },
    validate: |errors, set, _| validate(errors, set),
    validate_update: Some(validate_update),
    warnings: |new, old| warnings::of_workload(new, old, "spec.template", false),
    row: Some(|set, now| {
        let status = &set["status"];
        let pod_spec = walk(set, "spec.template.spec");
        let [names, images] = cells::containers(pod_spec);
        vec![
            cells::name(set),
            count(status, "desiredNumberScheduled").into(),
            count(status, "currentNumberScheduled").into(),
            count(status, "numberReady").into(),
            count(status, "updatedNumberScheduled").into(),
            count(status, "numberAvailable").into(),
            cells::labels(&pod_spec["nodeSelector"]),
            cells::age(set, now),
            names,
            images,
            cells::selector(walk(set, "spec.selector")),
        ]
    }),
    ..Kind::PLAIN
};

fn template_generation(set: &Value) -> i64 {
    walk(set, "metadata.annotations")
        .get(TEMPLATE_GENERATION)
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(set: &mut Value, number: i64) {
    set.member("metadata").member("annotations").set(TEMPLATE_GENERATION, number.to_string());
}

fn default(set: &mut Value) {
    let spec = set.member("spec");
    let strategy = spec.member("updateStrategy");
    strategy.fill("type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = strategy.member("rollingUpdate");
        rolling.fill("maxUnavailable", 1);
        rolling.fill("maxSurge", 0);
    }
    spec.fill("revisionHistoryLimit", 10);
    pod_spec::default_template(spec.member("template"));
}

fn validate(errors: &mut Errors, set: &Field<'_>) {
    let spec = &set.get("spec");
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.get(name).not_negative(errors);
    }
    let selector = spec.get("selector");
    if selector.exists() {
        workload::selector(errors, &selector, "daemonset");
    }
    workload::matching_template(errors, &spec.get("template"), &selector);
    workload::lasting_template(errors, &spec.get("template"), "DaemonSet");
    let strategy = &spec.get("updateStrategy");
    match strategy.get("type").str() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = &strategy.get("rollingUpdate");
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            for number in [&unavailable, &surge] {
                numbers::count_or_percent(errors, number);
                numbers::at_most_all(errors, number);
            }
            match (numbers::is_zero(unavailable.value()), numbers::is_zero(surge.value())) {
                (false, false) => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
                (true, true) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
                _ => {}
            }
        }
        _ => errors.push(strategy.not_supported(&["RollingUpdate", "OnDelete"])),
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        workload::status_counts(errors, &new.get("status"), &[], "");
        workload::collision_count(errors, new, old);
        return;
    }
    new.get("spec.selector").immutable(errors, &old.get("spec.selector"));
    validate(errors, new);
}
