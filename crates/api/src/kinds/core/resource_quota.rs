//! ResourceQuota: what a namespace may ask for in all.

use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::{
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, same, walk},
        names,
        pod::resources,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    validate: |errors, quota, _| validate(errors, quota),
    validate_update: Some(validate_update),
    row: Some(row),
    ..Kind::PLAIN
};

fn row(quota: &Value, now: &str) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = walk(quota, "status.used");
    for (resource, hard) in walk(quota, "status.hard").as_object().into_iter().flatten() {
        let used = used.get(resource).and_then(Value::as_str).unwrap_or("0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"));
        if resource.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
    }
    vec![cells::name(quota), requests.join(", ").into(), limits.join(", ").into(), cells::age(quota, now)]
}

/// Resources without a slash that a quota can bound; `requests.`, `limits.` and `count/` prefixes apart.
const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn amounts(errors: &mut Errors, list: &Field<'_>) {
    for (name, amount) in list.entries() {
        let messages = names::qualified_name(name);
        if !messages.is_empty() {
            errors.extend(messages.into_iter().map(|message| amount.invalid_value(name, message)));
        } else if !name.contains('/') && !STANDARD.contains(&name) && !name.contains("hugepages-") {
            if !resources::is_standard(name) {
                errors.push(amount.invalid_value(name, "must be a standard resource type or fully qualified"));
            }
            errors.push(amount.invalid_value(name, "must be a standard resource for quota"));
        }
        resources::amount(errors, name, &amount);
    }
}

/// A scope of pods or of claims limits only their resources.
fn misapplied(errors: &mut Errors, spec: &Field<'_>, at: &Field<'_>, scope: &str) {
    let fits: &[&str] = match scope {
        "BestEffort" => &["pods"],
        "VolumeAttributesClass" => &["persistentvolumeclaims", "requests.storage"],
        scope if SCOPES.contains(&scope) => {
            &["pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"]
        }
        _ => return,
    };
    for name in spec.get("hard").map().into_iter().flat_map(|hard| hard.keys()) {
        let standard = STANDARD.contains(&name.as_str()) || resources::is_standard(name);
        if standard && !fits.contains(&name.as_str()) {
            errors.push(at.invalid("unsupported scope applied to resource"));
        }
    }
}

fn validate(errors: &mut Errors, quota: &Field<'_>) {
    let spec = &quota.get("spec");
    amounts(errors, &spec.get("hard"));
    let scopes = &spec.get("scopes");
    let has = |scope: &str| scopes.list().iter().any(|item| item == scope);
    for scope in scopes.list() {
        if !SCOPES.contains(&scope.as_str().unwrap_or_default()) {
            errors.push(scopes.invalid("unsupported scope"));
        }
        misapplied(errors, spec, scopes, scope.as_str().unwrap_or_default());
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            errors.push(scopes.invalid("conflicting scopes"));
        }
    }
    let expressions = &spec.get("scopeSelector.matchExpressions");
    for item in expressions.list() {
        // Upstream's paths leave the index out.
        let path = expressions.path();
        let expression = Field::at(item, &path);
        let (scope, operator, values) =
            (expression.get("scopeName"), expression.get("operator"), &expression.get("values"));
        if !SCOPES.contains(&scope.str()) {
            errors.push(scope.invalid("unsupported scope"));
        }
        misapplied(errors, spec, expressions, scope.str());
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => errors.push(
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        amounts(errors, &new.get("status.hard"));
        amounts(errors, &new.get("status.used"));
        return;
    }
    validate(errors, new);
    let sorted = |quota: &Field<'_>| {
        let mut scopes: Vec<String> = quota.get("spec.scopes").list().iter().map(|scope| scope.to_string()).collect();
        scopes.sort();
        scopes
    };
    if sorted(new) != sorted(old) {
        errors.push(new.get("spec.scopes").invalid("field is immutable"));
    }
    if !same(new.get("spec.scopeSelector").value(), old.get("spec.scopeSelector").value()) {
        errors.push(new.get("spec.scopeSelector").invalid("field is immutable"));
    }
}
