//! PersistentVolume: storage of the cluster.

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells, volume,
    },
    validation::{
        claim::access_modes,
        field::{Errors, Field, same, walk},
        names,
        pod::{self, resources},
    },
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
    validate: |errors, volume, _| validate(errors, &volume.get("spec")),
    validate_update: Some(validate_update),
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

/// Members of the spec that are no volume source.
const NO_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn validate(errors: &mut Errors, spec: &Field<'_>) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.push(modes.required(""));
    } else {
        access_modes(errors, &modes);
    }
    let capacity = &spec.get("capacity");
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    }
    if !capacity.key("storage").exists() || capacity.map().is_some_and(|map| map.len() > 1) {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, amount) in capacity.entries() {
        if resources::parse(amount.value()).is_some_and(|size| size.sign() <= 0) {
            errors.push(amount.invalid("must be greater than zero"));
        }
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(errors, &["Delete", "Recycle", "Retain"]);
    }
    source(errors, spec);
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.judge(errors, names::dns_subdomain(class.str()));
    }
    let mode = spec.get("volumeMode");
    if mode.exists() {
        mode.one_of(errors, &["Block", "Filesystem"]);
    }
    let affinity = &spec.get("nodeAffinity");
    if affinity.exists() {
        let required = affinity.get("required");
        if required.exists() {
            pod::node_selector(errors, &required);
        } else {
            errors.push(required.required("must specify required node constraints"));
        }
    }
}

fn source(errors: &mut Errors, spec: &Field<'_>) {
    let mut given = false;
    for (name, _) in
        spec.map().into_iter().flatten().filter(|(name, value)| !NO_SOURCE.contains(&name.as_str()) && !value.is_null())
    {
        if given {
            errors.push(spec.get(name).forbidden("may not specify more than 1 volume type"));
        }
        given = true;
    }
    if !given {
        errors.push(spec.required("must specify a volume type"));
    }
    let host = &spec.get("hostPath");
    if host.exists() {
        pod::host_path(errors, host);
        if host.get("path").str() == "/" && spec.get("persistentVolumeReclaimPolicy").str() == "Recycle" {
            errors.push(
                spec.get("persistentVolumeReclaimPolicy").forbidden("may not be 'recycle' for a hostPath mount of '/'"),
            );
        }
    }
    let local = &spec.get("local");
    if local.exists() {
        if local.get("path").is_empty() {
            errors.push(local.get("path").required(""));
        }
        if !spec.get("nodeAffinity").exists() {
            errors.push(spec.get("nodeAffinity").required("Local volume requires node affinity"));
        }
    }
    let csi = &spec.get("csi");
    if csi.exists() {
        for name in ["driver", "volumeHandle"] {
            if csi.get(name).is_empty() {
                errors.push(csi.get(name).required(""));
            }
        }
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        return;
    }
    validate(errors, &new.get("spec"));
    let source = |volume: &Field<'_>| -> Value {
        let mut spec = volume.value()["spec"].clone();
        for name in NO_SOURCE {
            spec.drop_member(name);
        }
        if let Some(csi) = spec.existing("csi")
            && old.get("spec.csi.controllerExpandSecretRef").value().is_null()
        {
            csi.drop_member("controllerExpandSecretRef");
        }
        spec
    };
    if !same(&source(new), &source(old)) {
        errors.push(crate::status::FieldError::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    if !same(new.get("spec.volumeMode").value(), old.get("spec.volumeMode").value()) {
        let mode = Field::at(new.get("spec.volumeMode").value(), "volumeMode").invalid("field is immutable");
        errors.push(mode);
    }
}
