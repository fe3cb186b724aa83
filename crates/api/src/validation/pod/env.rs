//! Rules of environment variables and of what the downward API gives.

use crate::validation::{
    field::{Errors, Field},
    names,
};

/// What a variable can be taken from.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What a file of a volume can be taken from.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// The `env` list.
pub(super) fn variables(errors: &mut Errors, variables: &Field<'_>) {
    for variable in variables.items() {
        let name = variable.get("name");
        match name.str() {
            "" => errors.push(name.required("")),
            text => name.judge(errors, names::env_var_name(text)),
        }
        let from = variable.get("valueFrom");
        if from.exists() {
            value_from(errors, &from, !variable.get("value").is_empty());
        }
    }
}

fn value_from(errors: &mut Errors, from: &Field<'_>, has_value: bool) {
    let mut sources = 0;
    for name in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let source = &from.get(name);
        if !source.exists() {
            continue;
        }
        sources += 1;
        match name {
            "fieldRef" => field_ref(errors, source, FIELDS),
            "resourceFieldRef" => resource_ref(errors, source, false),
            "fileKeyRef" => file_key(errors, source),
            _ => key_ref(errors, source),
        }
    }
    if sources == 0 {
        errors.push(from.invalid_value(
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if has_value {
        errors.push(from.invalid_value("", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(from.invalid_value("", "may not have more than one field specified at a time"));
    }
}

/// A reference to a field of the pod itself.
pub(super) fn field_ref(errors: &mut Errors, reference: &Field<'_>, known: &[&str]) {
    if reference.get("apiVersion").is_empty() {
        errors.push(reference.get("apiVersion").required(""));
        return;
    }
    let path = reference.get("fieldPath");
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let subscripted = path.str().strip_suffix("']").and_then(|text| text.split_once("['"));
    match subscripted {
        Some(("metadata.annotations", key)) => reference_key(errors, reference, &key.to_lowercase()),
        Some(("metadata.labels", key)) => reference_key(errors, reference, key),
        Some((path, _)) => errors.push(reference.invalid_value(path, "does not support subscript")),
        None if known.contains(&path.str()) => {}
        None if FIELDS.contains(&path.str()) || FILE_FIELDS.contains(&path.str()) => {
            errors.push(path.not_supported(known));
        }
        None => {
            errors.push(path.invalid(format!("error converting fieldPath: field label not supported: {}", path.str())))
        }
    }
}

fn reference_key(errors: &mut Errors, reference: &Field<'_>, key: &str) {
    errors.extend(names::qualified_name(key).into_iter().map(|message| reference.invalid_value(key, message)));
}

/// A reference to a container's request or limit.
pub(super) fn resource_ref(errors: &mut Errors, reference: &Field<'_>, in_volume: bool) {
    let resource = reference.get("resource");
    if in_volume && reference.get("containerName").is_empty() {
        errors.push(reference.get("containerName").required(""));
    } else if resource.is_empty() {
        errors.push(resource.required(""));
    } else if !RESOURCES.contains(&resource.str())
        && !resource.str().starts_with("limits.hugepages-")
        && !resource.str().starts_with("requests.hugepages-")
    {
        errors.push(resource.not_supported(RESOURCES));
    }
    divisor(errors, reference, resource.str());
}

fn divisor(errors: &mut Errors, reference: &Field<'_>, resource: &str) {
    const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let divisor = reference.get("divisor");
    if matches!(divisor.str(), "" | "0") {
        return;
    }
    let kind = resource.split_once('.').map_or("", |(_, kind)| kind);
    let (known, named): (&[&str], &str) = match kind {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (BYTES, "memory"),
        "ephemeral-storage" => (BYTES, "local ephemeral storage"),
        kind if kind.starts_with("hugepages-") => (BYTES, "hugepages"),
        _ => return,
    };
    if !known.contains(&divisor.str()) {
        let list = if kind == "cpu" { "1m and 1".to_string() } else { BYTES.join(", ") };
        errors.push(
            divisor.invalid_value(
                resource,
                format!("only divisor's values {list} are supported with the {named} resource"),
            ),
        );
    }
}

fn key_ref(errors: &mut Errors, reference: &Field<'_>) {
    let (name, key) = (reference.get("name"), reference.get("key"));
    name.judge(errors, names::dns_subdomain(name.str()));
    match key.str() {
        "" => errors.push(key.required("")),
        text => key.judge(errors, names::config_key(text)),
    }
}

fn file_key(errors: &mut Errors, reference: &Field<'_>) {
    for name in ["key", "volumeName", "path"] {
        if reference.get(name).is_empty() {
            errors.push(reference.get(name).required(""));
        }
    }
    let key = reference.get("key");
    if !key.is_empty() {
        key.judge(errors, names::env_var_name(key.str()));
    }
}

/// The `envFrom` list.
pub(super) fn sources(errors: &mut Errors, sources: &Field<'_>) {
    for source in sources.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            prefix.judge(errors, names::env_var_name(prefix.str()));
        }
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let reference = source.get(name);
            if reference.exists() {
                count += 1;
                let name = reference.get("name");
                match name.str() {
                    "" => errors.push(name.required("")),
                    text => name.judge(errors, names::subdomain_name(text, true)),
                }
            }
        }
        match count {
            0 => errors.push(sources.invalid_value("", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(sources.invalid_value("", "may not have more than one field specified at a time")),
        }
    }
}
