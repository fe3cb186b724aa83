//! ReplicaSet: so many pods of one template.

use serde_json::{Value, json};

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
    shape: Shape::WORKLOAD,
    default,
    empty_status: || json!({"replicas": 0}),
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
