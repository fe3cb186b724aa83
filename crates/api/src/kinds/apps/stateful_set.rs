//! StatefulSet: pods with names and storage of their own, in order.

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells::{self, count},
        core::persistent_volume_claim,
        pod_spec,
    },
    validation::{
        claim,
        field::{Errors, Field, same, walk},
        names, numbers,
        pod::warnings,
        workload,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    name: names::label_name,
    default,
    empty_status: || json!({"replicas": 0, "availableReplicas": 0}),
    validate: |errors, set, _| validate(errors, set, None),
    validate_update: Some(validate_update),
    warnings: |new, old| warnings::of_workload(new, old, "spec.template", false),
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

fn validate(errors: &mut Errors, set: &Field<'_>, old: Option<&Field<'_>>) {
    let spec = &set.get("spec");
    let management = spec.get("podManagementPolicy");
    match management.str() {
        "" => errors.push(management.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(management.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    update_strategy(errors, &spec.get("updateStrategy"));
    let retention = &spec.get("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        retention.get(name).one_of(errors, &["Retain", "Delete"]);
    }
    for name in ["replicas", "minReadySeconds", "ordinals.start"] {
        spec.get(name).not_negative(errors);
    }
    let service = spec.get("serviceName");
    let templates = &spec.get("volumeClaimTemplates");
    if old.is_none() {
        if !service.is_empty() {
            service.judge(errors, names::dns_label(service.str()));
        }
        for item in templates.items() {
            claim::spec(errors, &item.get("spec"));
        }
    }
    let selector = spec.get("selector");
    workload::selector(errors, &selector, "statefulset");
    workload::matching_template(errors, &spec.get("template"), &selector);
    let template = with_claims(set.value());
    let place = Field::at(&template, "spec.template");
    workload::lasting_template(errors, &place, "StatefulSet");
}

/// The template as its pods will be: with a volume for each claim, and names that the controller sets left out.
fn with_claims(set: &Value) -> Value {
    let mut template = walk(set, "spec.template").clone();
    let claims: Vec<&str> = walk(set, "spec.volumeClaimTemplates")
        .as_array()
        .into_iter()
        .flatten()
        .map(|claim| claim["metadata"].text("name"))
        .collect();
    let pod = template.member("spec");
    pod.drop_member("hostname");
    pod.drop_member("subdomain");
    if !claims.is_empty() {
        let own = pod["volumes"].as_array().cloned().unwrap_or_default();
        let volumes = claims
            .iter()
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .chain(own.into_iter().filter(|volume| !claims.contains(&volume.text("name"))));
        let volumes: Vec<Value> = volumes.collect();
        pod.set("volumes", volumes);
    }
    template
}

fn update_strategy(errors: &mut Errors, strategy: &Field<'_>) {
    let rolling = &strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "" => errors.push(strategy.required("")),
        "OnDelete" => {
            if rolling.exists() {
                errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        "RollingUpdate" => {
            rolling.get("partition").not_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.exists() {
                numbers::count_or_percent(errors, &unavailable);
                numbers::at_most_all(errors, &unavailable);
            }
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
}

/// Members of the spec that may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        workload::status_counts(errors, &new.get("status"), &parts, "status.readyReplicas");
        workload::collision_count(errors, new, old);
        return;
    }
    validate(errors, new, Some(old));
    let before = &old.value()["spec"];
    let mut rest = new.value()["spec"].clone();
    for name in MUTABLE {
        keep(&mut rest, before, name);
    }
    if !same(&rest, before) {
        errors.push(new.get("spec").forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}
