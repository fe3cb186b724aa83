//! Deployment: rolls a template out through ReplicaSets.

use serde_json::Value;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells::{self, count},
        pod_spec,
    },
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation: &["spec", "metadata.annotations"], status_keeps: &["labels"], ..Shape::WORKLOAD },
    default,
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
