//! Rules about rules: which operations on which resources a webhook or policy is for.

use std::collections::HashSet;

use serde_json::Value;

use crate::validation::{
    field::{Errors, Field},
    metadata, names,
};

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const CONDITIONS_MAX: usize = 64;

/// One rule: operations, groups, versions, resources and scope.
pub(super) fn rule(errors: &mut Errors, rule: &Field<'_>) {
    let operations = &rule.get("operations");
    if operations.is_empty() {
        errors.push(operations.required(""));
    }
    lonely_wildcard(errors, operations, "operations");
    for operation in operations.items() {
        operation.one_of(errors, OPERATIONS);
    }
    for (name, called) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = &rule.get(name);
        if list.is_empty() {
            errors.push(list.required(""));
        }
        lonely_wildcard(errors, list, called);
        for item in list.items().filter(|item| name == "apiVersions" && item.is_empty()) {
            errors.push(item.required(""));
        }
    }
    resources(errors, &rule.get("resources"));
    let scope = rule.get("scope");
    if scope.exists() {
        scope.one_of(errors, &["*", "Cluster", "Namespaced"]);
    }
}

fn lonely_wildcard(errors: &mut Errors, list: &Field<'_>, called: &str) {
    if list.list().len() > 1 && list.list().iter().any(|item| item == "*") {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {called}")));
    }
}

fn resources(errors: &mut Errors, list: &Field<'_>) {
    if list.is_empty() {
        errors.push(list.required(""));
    }
    let (mut all_subresources, mut of_all) = (HashSet::new(), HashSet::new());
    let mut plain = false;
    for item in list.items() {
        let text = item.value().as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(item.required(""));
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_subresources.contains(resource) {
            errors.push(item.invalid(format!("if '{resource}/*' is present, must not specify {text}")));
        }
        if of_all.contains(subresource) {
            errors.push(item.invalid(format!("if '*/{subresource}' is present, must not specify {text}")));
        }
        if subresource == "*" {
            all_subresources.insert(resource.to_string());
        }
        if resource == "*" {
            of_all.insert(subresource.to_string());
        }
    }
    let has = |text: &str| list.list().iter().any(|item| item == text);
    if list.list().len() > 1 && has("*/*") {
        errors.push(list.invalid("if '*/*' is present, must not specify other resources"));
    }
    if has("*") && plain {
        errors.push(list.invalid("if '*' is present, must not specify other resources without subresources"));
    }
}

/// How rules match: selectors and policy of a webhook or of `matchConstraints`.
pub(super) fn matching(errors: &mut Errors, object: &Field<'_>) {
    for name in ["namespaceSelector", "objectSelector"] {
        metadata::label_selector(errors, &object.get(name));
    }
    let policy = object.get("matchPolicy");
    if policy.exists() {
        policy.one_of(errors, &["Equivalent", "Exact"]);
    }
}

/// `matchConditions`: named once each, with an expression.
pub(super) fn conditions(errors: &mut Errors, conditions: &Field<'_>) {
    if conditions.list().len() > CONDITIONS_MAX {
        errors.push(conditions.too_many(conditions.list().len(), CONDITIONS_MAX));
    }
    for (index, condition) in conditions.items().enumerate() {
        expression(errors, &condition.get("expression"));
        let name = condition.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        name.judge(errors, names::qualified_name(name.str()));
        if conditions.list()[..index].iter().any(|other| other["name"] == *name.value()) {
            errors.push(name.duplicate());
        }
    }
}

/// A CEL expression: given, and parsing.
pub(super) fn expression(errors: &mut Errors, expression: &Field<'_>) {
    let text = expression.str().trim();
    if text.is_empty() {
        errors.push(expression.required(""));
    } else if let Err(problem) = cel::Program::compile(text) {
        errors.push(expression.invalid(format!("compilation failed: {problem}")));
    }
}

/// `failurePolicy` of webhooks and policies.
pub(super) fn failure_policy(errors: &mut Errors, policy: &Field<'_>) {
    if policy.exists() {
        policy.one_of(errors, &["Fail", "Ignore"]);
    }
}

/// A domain of at least three labels: a webhook's name.
pub(super) fn qualified(errors: &mut Errors, name: &Field<'_>) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    let messages = names::dns_subdomain(name.str());
    if !messages.is_empty() {
        errors.push(name.invalid(messages.join(",")));
    } else if name.str().split('.').count() < 3 {
        errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
    }
}

/// Whether the list holds every item of `of`.
pub(super) fn overlap(list: &Field<'_>, of: &[&str]) -> bool {
    of.iter().all(|item| list.list().contains(&Value::from(*item)))
}
