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
        field::{Errors, Field, same, walk},
        metadata, names,
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
    validate: |errors, claim, _| validate_spec(errors, &claim.get("spec")),
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
fn align_sources(spec: &mut Value) {
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    match (source.is_null(), reference.is_null()) {
        (false, true) => spec.set("dataSourceRef", source),
        (true, false) if reference.text("namespace").is_empty() => spec.set("dataSource", reference),
        _ => {}
    }
}

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Access modes of a volume or claim: some, known, and the strictest only alone.
pub(super) fn access_modes(errors: &mut Errors, modes: &Field<'_>) {
    if modes.is_empty() {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    for mode in modes.list() {
        if !MODES.contains(&mode.as_str().unwrap_or_default()) {
            errors.push(crate::status::FieldError::not_supported(modes.path(), mode.clone(), MODES));
        }
    }
    if modes.list().len() > 1 && modes.list().iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// A claim's spec; also of claim templates.
pub(crate) fn validate_spec(errors: &mut Errors, spec: &Field<'_>) {
    access_modes(errors, &spec.get("accessModes"));
    metadata::label_selector(errors, &spec.get("selector"));
    let requests = &spec.get("resources.requests");
    let storage = requests.key("storage");
    match resources::parse(storage.value()) {
        None => errors.push(storage.required("")),
        Some(size) if size.sign() <= 0 => errors.push(storage.invalid("must be greater than zero")),
        Some(_) => {}
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.judge(errors, names::dns_subdomain(class.str()));
    }
    let mode = spec.get("volumeMode");
    if mode.exists() {
        mode.one_of(errors, &["Block", "Filesystem"]);
    }
    for name in ["dataSource", "dataSourceRef"] {
        let source = &spec.get(name);
        if !source.exists() {
            continue;
        }
        for member in ["name", "kind"] {
            if source.get(member).is_empty() {
                errors.push(source.get(member).required(""));
            }
        }
        let group = source.get("apiGroup").str();
        if group.is_empty() && source.get("kind").str() != "PersistentVolumeClaim" {
            errors.push(source.invalid("must be 'PersistentVolumeClaim' when referencing the default apiGroup"));
        }
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        let capacity = &new.get("status.capacity");
        for (_, amount) in capacity.entries() {
            if resources::parse(amount.value()).is_some_and(|amount| amount.sign() < 0) {
                errors.push(amount.invalid("must be greater than or equal to 0"));
            }
        }
        return;
    }
    let (spec, before) = (&new.get("spec"), &old.get("spec"));
    validate_spec(errors, spec);
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
