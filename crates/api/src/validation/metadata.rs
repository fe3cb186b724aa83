//! Rules for `metadata`, the same for every kind.
//!
//! The registry calls [`create`] for new objects and [`update`] for changed ones, after the kind's own checks. Errors
//! and paths follow apimachinery's object-meta validation.

use serde_json::Value;

use super::{
    field::{Errors, Field},
    names,
};

/// Annotations of one object may hold this many bytes, keys included.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Judges the metadata of a new object. `judge_name` is the kind's `Hooks::validate_name`.
pub fn create(object: &Value, namespaced: bool, judge_name: impl Fn(&str, bool) -> Vec<String>) -> Errors {
    let errors = &mut Errors::new();
    let root = &Field::root(object);
    let meta = &root.get("metadata");
    let generate_name = meta.get("generateName");
    if !generate_name.str().is_empty() {
        generate_name.judge(errors, judge_name(generate_name.str(), true));
    }
    let name = meta.get("name");
    if name.str().is_empty() {
        errors.push(name.required("name or generateName is required"));
    } else {
        name.judge(errors, judge_name(name.str(), false));
    }
    let namespace = meta.get("namespace");
    match (namespaced, namespace.str()) {
        (true, "") => errors.push(namespace.required("")),
        (true, text) => namespace.judge(errors, names::dns_label(text)),
        (false, "") => {}
        (false, _) => errors.push(namespace.forbidden("not allowed on this type")),
    }
    meta.get("generation").not_negative(errors);
    common(errors, meta);
    finalizers(errors, &meta.get("finalizers"));
    std::mem::take(errors)
}

/// Judges changed metadata against what is stored.
pub fn update(new: &Value, old: &Value) -> Errors {
    let errors = &mut Errors::new();
    let (root, old_root) = (&Field::root(new), &Field::root(old));
    let (meta, old_meta) = (&root.get("metadata"), &old_root.get("metadata"));
    if old_meta.get("deletionTimestamp").exists() {
        let known = old_meta.get("finalizers");
        let mut extra: Vec<&str> = meta
            .get("finalizers")
            .list()
            .iter()
            .filter(|finalizer| !known.list().contains(finalizer))
            .filter_map(Value::as_str)
            .collect();
        if !extra.is_empty() {
            extra.sort_unstable();
            let listed: Vec<String> = extra.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            errors.push(meta.get("finalizers").forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                listed.join(", ")
            )));
        }
    }
    let version = meta.get("resourceVersion");
    if version.str().is_empty() {
        errors.push(version.invalid("must be specified for an update"));
    }
    let generation = meta.get("generation");
    if generation.int().unwrap_or(0) < old_meta.get("generation").int().unwrap_or(0) {
        errors.push(generation.invalid("must not be decremented"));
    }
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.get(name).immutable(errors, &old_meta.get(name));
    }
    common(errors, meta);
    std::mem::take(errors)
}

fn common(errors: &mut Errors, meta: &Field<'_>) {
    labels(errors, &meta.get("labels"));
    annotations(errors, &meta.get("annotations"));
    owner_references(errors, &meta.get("ownerReferences"));
}

/// A label map: of metadata, of a pod template or of a selector's `matchLabels`.
pub fn labels(errors: &mut Errors, labels: &Field<'_>) {
    for (key, value) in labels.entries() {
        for message in names::qualified_name(key) {
            errors.push(labels.invalid_value(key, message));
        }
        for message in names::label_value(value.str()) {
            errors.push(labels.invalid_value(value.str(), message));
        }
    }
}

/// An annotation map: keys are qualified names in any case, the whole is bounded.
pub fn annotations(errors: &mut Errors, annotations: &Field<'_>) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        bytes += key.len() + value.str().len();
        for message in names::qualified_name(&key.to_ascii_lowercase()) {
            errors.push(annotations.invalid_value(key, message));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(annotations.too_long(ANNOTATIONS_BYTES_MAX));
    }
}

/// A label selector: known operators, values where they belong.
pub fn label_selector(errors: &mut Errors, selector: &Field<'_>) {
    labels(errors, &selector.get("matchLabels"));
    let expressions = &selector.get("matchExpressions");
    for expression in expressions.items() {
        let (key, operator, values) = (expression.get("key"), expression.get("operator"), &expression.get("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        key.judge(errors, names::qualified_name(key.str()));
        for value in values.items() {
            value.judge(errors, names::label_value(value.str()));
        }
    }
}

fn owner_references(errors: &mut Errors, references: &Field<'_>) {
    let mut controller: Option<String> = None;
    for reference in references.items() {
        let text = |name: &'static str| reference.value()[name].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let at = |name: &str| format!("{}.{name}", references.path());
        let invalid = crate::status::FieldError::invalid;
        if api_version.rsplit('/').next().unwrap_or_default().is_empty() {
            errors.push(invalid(at("apiVersion"), api_version, "version must not be empty"));
        }
        for name in ["kind", "name", "uid"] {
            if text(name).is_empty() {
                errors.push(invalid(at(name), "", "must not be empty"));
            }
        }
        if (api_version, kind) == ("v1", "Event") {
            errors.push(
                references
                    .invalid_value(reference.value().clone(), "/v1, Kind=Event is disallowed from being an owner"),
            );
        }
        if reference.get("controller").is_true() {
            let this = format!("{kind}/{}", text("name"));
            match &controller {
                Some(first) => errors.push(references.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                ))),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(errors: &mut Errors, finalizers: &Field<'_>) {
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in finalizers.items() {
        for message in names::qualified_name(finalizer.str()) {
            errors.push(finalizers.invalid_value(finalizer.str(), message));
        }
        orphan |= finalizer.str() == "orphan";
        foreground |= finalizer.str() == "foregroundDeletion";
    }
    if orphan && foreground {
        errors.push(finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn new_metadata() {
        let check = |metadata: Value, namespaced: bool, want: &[&str]| {
            let object = json!({"metadata": metadata});
            let got = texts(create(&object, namespaced, names::subdomain_name));
            assert_eq!(got.len(), want.len(), "{metadata}: {got:?}");
            for (got, want) in got.iter().zip(want) {
                assert!(got.starts_with(want), "{got} does not start with {want}");
            }
        };
        check(json!({"name": "a", "namespace": "b"}), true, &[]);
        check(json!({"namespace": "b"}), true, &["metadata.name: Required value: name or generateName is required"]);
        check(json!({"name": "a"}), true, &["metadata.namespace: Required value"]);
        check(
            json!({"name": "a", "namespace": "b"}),
            false,
            &["metadata.namespace: Forbidden: not allowed on this type"],
        );
        check(
            json!({"name": "a", "labels": {"x y": "-"}}),
            false,
            &[
                "metadata.labels: Invalid value: \"x y\": name part must consist",
                "metadata.labels: Invalid value: \"-\": a valid label",
            ],
        );
        check(
            json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
            false,
            &["metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan"],
        );
        check(
            json!({"name": "a", "annotations": {"k": "v".repeat(256 * 1024)}}),
            false,
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
    }

    #[test]
    fn identity_is_immutable() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "3", "deletionTimestamp": "t"}});
        let mut new = old.clone();
        new["metadata"]["uid"] = "2".into();
        new["metadata"]["finalizers"] = json!(["x/y"]);
        assert_eq!(
            texts(update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{\"x/y\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }
}
