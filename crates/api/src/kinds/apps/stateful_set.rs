//! StatefulSet: pods with names and storage of their own, in order.

use serde_json::{Value, json};

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells::{self, count},
        core::persistent_volume_claim,
        pod_spec,
    },
    validation::{field::walk, names},
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    name: names::label_name,
    default,
    empty_status: || json!({"replicas": 0, "availableReplicas": 0}),
    row: Some(|set, now| {
        let [names, images] = cells::containers(walk(set, "spec.template.spec"));
        vec![
            cells::name(set),
            format!("{}/{}", count(set, "status.readyReplicas"), count(set, "spec.replicas")).into(),
            cells::age(set, now),
            names,
            images,
        ]
    }),
    scale_selector: Some("spec.selector"),
    ..Kind::PLAIN
};

fn default(set: &mut Value) {
    let spec = set.member("spec");
    spec.fill("podManagementPolicy", "OrderedReady");
    let strategy = spec.member("updateStrategy");
    if strategy.text("type").is_empty() {
        strategy.set("type", "RollingUpdate");
        strategy.object("rollingUpdate");
    }
    if strategy.text("type") == "RollingUpdate"
        && let Some(rolling) = strategy.existing("rollingUpdate")
    {
        rolling.fill("partition", 0);
    }
    let retention = spec.member("persistentVolumeClaimRetentionPolicy");
    retention.fill("whenDeleted", "Retain");
    retention.fill("whenScaled", "Retain");
    spec.fill("replicas", 1);
    spec.fill("revisionHistoryLimit", 10);
    spec.fill("serviceName", "");
    pod_spec::default_template(spec.member("template"));
    for claim in spec.each("volumeClaimTemplates") {
        claim.fill("apiVersion", "v1");
        claim.fill("kind", "PersistentVolumeClaim");
        persistent_volume_claim::default(claim);
    }
}
