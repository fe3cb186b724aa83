//! DaemonSet: one pod on every node that fits.

use serde_json::{Value, json};

use crate::{
    kind::Part,
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells::{self, count},
        pod_spec,
    },
    validation::field::{same, walk},
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
