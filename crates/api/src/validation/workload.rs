//! Rules that workloads share: a selector that fits the template, a template whose pods can be replaced, status counts.

use serde_json::Value;

use super::{
    field::{Errors, Field},
    metadata, pod,
};
use crate::selector::LabelSelector;

/// The selector of a workload: given, well-formed, not empty. `kind` is lower case.
pub fn selector(errors: &mut Errors, selector: &Field<'_>, kind: &str) {
    if !selector.exists() {
        errors.push(selector.required(""));
        return;
    }
    metadata::label_selector(errors, selector);
    if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
        errors.push(selector.invalid(format!("empty selector is invalid for {kind}")));
    }
}

/// A template whose labels the label selector selects. No selector selects nothing.
pub fn matching_template(errors: &mut Errors, template: &Field<'_>, selector: &Field<'_>) {
    match LabelSelector::from_object(selector.value()) {
        Err(_) => errors.push(selector.invalid("invalid label selector")),
        Ok(parsed) => matching(errors, template, &parsed),
    }
}

/// As [`matching_template`], for a selector that is a plain map.
pub fn matching_template_by_map(errors: &mut Errors, template: &Field<'_>, selector: &Field<'_>) {
    let pairs = selector.map().into_iter().flatten();
    let parsed = LabelSelector::from_map(pairs.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())));
    matching(errors, template, &parsed);
}

fn matching(errors: &mut Errors, template: &Field<'_>, selector: &LabelSelector) {
    let labels = template.get("metadata.labels");
    if !selector.matches(|key| labels.value().get(key).and_then(Value::as_str)) {
        errors.push(labels.invalid_value(labels.value().clone(), "`selector` does not match template `labels`"));
    }
}

/// A template of pods that are to run for ever. `kind` is in the message as upstream writes it.
pub fn lasting_template(errors: &mut Errors, template: &Field<'_>, kind: &str) {
    pod::template(errors, template);
    let policy = template.get("spec.restartPolicy");
    if policy.str() != "Always" {
        errors.push(policy.not_supported(&["Always"]));
    }
    let deadline = template.get("spec.activeDeadlineSeconds");
    if deadline.exists() {
        errors.push(deadline.forbidden(format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
}

/// Counts in a status: none negative, none of `parts` above `replicas`, available pods among the ready ones.
pub fn status_counts(errors: &mut Errors, status: &Field<'_>, parts: &[&str], ready: &str) {
    let count = |name: &str| status.value()[name].as_i64().unwrap_or(0);
    for (name, value) in status.map().into_iter().flatten() {
        if value.as_i64().is_some_and(|number| number < 0) {
            errors.push(status.get(name).invalid("must be greater than or equal to 0"));
        }
    }
    for part in parts {
        if count(part) > count("replicas") {
            errors.push(status.get(part).invalid_value(count(part), "cannot be greater than status.replicas"));
        }
    }
    if parts.contains(&"availableReplicas") && count("availableReplicas") > count("readyReplicas") {
        errors.push(
            status
                .get("availableReplicas")
                .invalid_value(count("availableReplicas"), format!("cannot be greater than {ready}")),
        );
    }
}

/// `collisionCount` only grows.
pub fn collision_count(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>) {
    let count = |object: &Field<'_>| object.get("status.collisionCount").int();
    if let Some(before) = count(old)
        && count(new).unwrap_or(0) < before
    {
        errors.push(new.get("status.collisionCount").invalid_value(count(new).unwrap_or(0), "cannot be decremented"));
    }
}
