//! PersistentVolume: storage of the cluster.

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells, volume,
    },
    validation::field::walk,
};

/// The class before it was a field.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    empty_status: || json!({"phase": "Pending"}),
    default: |volume| {
        let spec = volume.member("spec");
        spec.fill("persistentVolumeReclaimPolicy", "Retain");
        spec.fill("volumeMode", "Filesystem");
        volume::default_source(spec);
    },
    create: |volume, cx| volume.member("status").set("lastPhaseTransitionTime", cx.now),
    update,
    row: Some(|volume, now| {
        let spec = &volume["spec"];
        let claim = &spec["claimRef"];
        let claim = if claim.is_object() {
            format!("{}/{}", claim.text("namespace"), claim.text("name"))
        } else {
            String::new()
        };
        vec![
            cells::name(volume),
            cells::quantity(walk(spec, "capacity.storage")),
            cells::access_modes(&spec["accessModes"]),
            spec.text("persistentVolumeReclaimPolicy").into(),
            phase(volume),
            claim.into(),
            class(volume),
            cells::or_unset(&spec["volumeAttributesClassName"]),
            volume["status"].text("reason").into(),
            cells::age(volume, now),
            cells::or_unset(&spec["volumeMode"]),
        ]
    }),
    ..Kind::PLAIN
};

fn update(new: &mut Value, old: &Value, cx: &Context<'_>) {
    if cx.part != Part::Status {
        return;
    }
    let (status, before) = (new.member("status"), &old["status"]);
    let time = "lastPhaseTransitionTime";
    if status["phase"] == before["phase"] {
        if status[time].is_null() {
            keep(status, before, time);
        }
    } else if status[time].is_null() || status[time] == before[time] {
        status.set(time, cx.now);
    }
}

/// `Terminating` while it is being deleted, else the phase.
pub(super) fn phase(object: &Value) -> Value {
    if walk(object, "metadata.deletionTimestamp").is_null() {
        object["status"].text("phase").into()
    } else {
        "Terminating".into()
    }
}

/// The storage class: the old annotation first.
pub(super) fn class(object: &Value) -> Value {
    match walk(object, "metadata.annotations").get(CLASS_ANNOTATION) {
        Some(class) => class.clone(),
        None => object["spec"].text("storageClassName").into(),
    }
}
