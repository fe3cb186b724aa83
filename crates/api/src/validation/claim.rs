//! Rules of a PersistentVolumeClaim's spec, also where it stands in a pod's volume or in a workload's claim templates.

use super::{
    field::{Errors, Field},
    metadata, names,
    pod::resources,
};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Access modes of a volume or claim: some, known, and the strictest only alone.
pub(crate) fn access_modes(errors: &mut Errors, modes: &Field<'_>) {
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
pub(crate) fn spec(errors: &mut Errors, spec: &Field<'_>) {
    access_modes(errors, &spec.get("accessModes"));
    metadata::label_selector(errors, &spec.get("selector"));
    // Upstream reports the size at `resources[storage]`.
    let size = spec.get("resources.requests.storage");
    let path = format!("{}.resources[storage]", spec.path());
    let storage = Field::at(size.value(), &path);
    match resources::parse(size.value()) {
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
