//! PersistentVolumeClaim: a pod's wish for storage.

use serde_json::{Value, json};

use super::persistent_volume::{class, phase};
use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        claim,
        field::{Errors, Field, same, walk},
        pod::resources,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    default,
    empty_status: || json!({"phase": "Pending"}),
    create: |claim, _| {
        align_sources(claim.member("spec"));
    },
    update: |new, _, cx: &Context<'_>| {
        if cx.part == Part::Main {
            align_sources(new.member("spec"));
        }
    },
    validate: |errors, claim, _| claim::spec(errors, &claim.get("spec")),
    validate_update: Some(validate_update),
    row: Some(|claim, now| {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let bound = !spec.text("volumeName").is_empty();
        let when_bound = |value: Value| if bound { value } else { "".into() };
        vec![
            cells::name(claim),
            phase(claim),
            spec.text("volumeName").into(),
            when_bound(cells::quantity(walk(status, "capacity.storage"))),
            when_bound(cells::access_modes(&status["accessModes"])),
            class(claim),
            cells::or_unset(&spec["volumeAttributesClassName"]),
            cells::age(claim, now),
            cells::or_unset(&spec["volumeMode"]),
        ]
    }),
    ..Kind::PLAIN
};

/// Also for the claim templates of a StatefulSet.
pub(crate) fn default(claim: &mut Value) {
    claim.member("status").fill("phase", "Pending");
    let spec = claim.member("spec");
    spec.fill("volumeMode", "Filesystem");
    spec.object("resources");
}

/// `dataSource` and `dataSourceRef` say the same: one that is given alone is copied to the other, unless the reference
/// names a namespace, which the old field cannot.
///
/// The old field has only ever meant claims and snapshots: other kinds in it are ignored.
fn align_sources(spec: &mut Value) {
    let known = |source: &Value| {
        matches!(
            (source.text("apiGroup"), source.text("kind")),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    };
    if spec["dataSourceRef"].is_null() && !known(&spec["dataSource"]) {
        spec.drop_member("dataSource");
    }
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    match (source.is_null(), reference.is_null()) {
        (false, true) => spec.set("dataSourceRef", source),
        (true, false) if reference.text("namespace").is_empty() => spec.set("dataSource", reference),
        _ => {}
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        let capacity = &new.get("status.capacity");
        for (_, amount) in capacity.entries() {
            if let Some(least) = resources::parse(amount.value()).filter(|amount| amount.sign() < 0) {
                errors.push(amount.invalid_value(least.value(), "must be a valid resource quantity"));
            }
        }
        return;
    }
    let (spec, before) = (&new.get("spec"), &old.get("spec"));
    claim::spec(errors, spec);
    let mut rest = spec.value().clone();
    let bound = old.get("status.phase").str() == "Bound";
    if before.get("volumeName").is_empty() {
        keep(&mut rest, before.value(), "volumeName");
    }
    if bound {
        if let Some(requests) = rest.existing("resources") {
            let was = before.value()["resources"]["requests"].clone();
            keep(requests.member("requests"), &was, "storage");
        }
        keep(&mut rest, before.value(), "volumeAttributesClassName");
    }
    if before.value()["storageClassName"].is_null() {
        keep(&mut rest, before.value(), "storageClassName");
    }
    if !same(&rest, before.value()) {
        errors.push(spec.forbidden(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let size = |claim: &Field<'_>| resources::parse(walk(claim.value(), "resources.requests.storage"));
    if let (Some(now), Some(was)) = (size(spec), size(before)) {
        let least = resources::parse(old.get("status.capacity.storage").value());
        if now < was && least.is_none_or(|least| now < least) {
            errors.push(spec.get("resources.requests.storage").forbidden("field can not be less than previous value"));
        }
    }
}
