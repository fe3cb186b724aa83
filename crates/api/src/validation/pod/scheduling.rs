//! Rules of what decides where a pod runs: affinity, tolerations, spread, gates, claims.

use serde_json::Value;

use crate::{
    status::FieldError,
    validation::{
        field::{Errors, Field},
        metadata, names, taints,
    },
};

/// `affinity` as a whole.
pub(super) fn affinity(errors: &mut Errors, affinity: &Field<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = &affinity.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.exists() {
        node_selector(errors, &required);
    }
    let preferred = &node.get(PREFERRED);
    for term in preferred.items() {
        weight(errors, &term);
        node_selector_term(errors, &term.get("preference"), false);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = &affinity.get(name);
        let (required, preferred) = (&pods.get(REQUIRED), &pods.get(PREFERRED));
        for term in required.items() {
            pod_term(errors, &term);
        }
        for term in preferred.items() {
            weight(errors, &term);
            pod_term(errors, &term.get("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Errors, term: &Field<'_>) {
    let weight = term.get("weight");
    let number = weight.int().unwrap_or(0);
    if !(1..=100).contains(&number) {
        errors.push(weight.invalid_value(number, "must be in the range 1-100"));
    }
}

/// A required node selector: at least one term.
pub(crate) fn node_selector(errors: &mut Errors, selector: &Field<'_>) {
    let terms = &selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        node_selector_term(errors, &term, true);
    }
}

fn node_selector_term(errors: &mut Errors, term: &Field<'_>, judge_values: bool) {
    let expressions = &term.get("matchExpressions");
    for requirement in expressions.items() {
        let (operator, values) = (requirement.get("operator"), &requirement.get("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Gt" | "Lt" if values.list().len() != 1 => {
                errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        let key = requirement.get("key");
        key.judge(errors, names::qualified_name(key.str()));
        for value in values.items().filter(|_| judge_values) {
            value.judge(errors, names::label_value(value.str()));
        }
    }
    let fields = &term.get("matchFields");
    for requirement in fields.items() {
        let (key, operator, values) = (requirement.get("key"), requirement.get("operator"), &requirement.get("values"));
        match operator.str() {
            "In" | "NotIn" if values.list().len() != 1 => errors.push(
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            ),
            "In" | "NotIn" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        if key.str() == "metadata.name" {
            for value in values.items() {
                value.judge(errors, names::dns_subdomain(value.str()));
            }
        } else {
            errors.push(key.invalid("not a valid field selector key"));
        }
    }
}

fn pod_term(errors: &mut Errors, term: &Field<'_>) {
    metadata::label_selector(errors, &term.get("labelSelector"));
    metadata::label_selector(errors, &term.get("namespaceSelector"));
    let namespaces = &term.get("namespaces");
    for namespace in namespaces.items() {
        let text = namespace.str();
        errors.extend(
            names::dns_label(text).into_iter().map(|message| term.get("namespace").invalid_value(text, message)),
        );
    }
    label_keys(errors, term);
    let key = term.get("topologyKey");
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    key.judge(errors, names::qualified_name(key.str()));
}

/// `matchLabelKeys` and `mismatchLabelKeys` need a selector, and exclude each other.
fn label_keys(errors: &mut Errors, term: &Field<'_>) {
    let (matching, mismatching) = (&term.get("matchLabelKeys"), &term.get("mismatchLabelKeys"));
    let selector = term.get("labelSelector");
    for list in [matching, mismatching] {
        if !list.is_empty() && !selector.exists() {
            errors.push(list.forbidden("must not be specified when labelSelector is not set"));
            continue;
        }
        for key in list.items() {
            key.judge(errors, names::qualified_name(key.str()));
        }
    }
    for (index, key) in matching.items().enumerate() {
        let given = |value: &Value| value["key"] == *key.value();
        let in_labels = selector.get("matchLabels").key(key.str()).exists();
        let times = selector.get("matchExpressions").list().iter().filter(|value| given(value)).count();
        if times + usize::from(in_labels) > 1 {
            errors.push(FieldError::invalid(
                format!("{}[{index}]", term.path()),
                key.str(),
                "exists in both matchLabelKeys and labelSelector",
            ));
        }
        if mismatching.list().contains(key.value()) {
            errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}

/// `tolerations`.
pub(super) fn tolerations(errors: &mut Errors, tolerations: &Field<'_>) {
    for toleration in tolerations.items() {
        let (key, operator, effect) = (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
        if !key.is_empty() {
            key.judge(errors, names::qualified_name(key.str()));
        } else if operator.str() != "Exists" {
            errors.push(
                operator.invalid(
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ),
            );
        }
        if toleration.get("tolerationSeconds").exists() && effect.str() != "NoExecute" {
            errors.push(effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        let value = toleration.get("value").str();
        match operator.str() {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.push(operator.invalid_value(value, messages.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.push(operator.invalid_value(value, "value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            _ => errors.push(operator.not_supported(&["Equal", "Exists"])),
        }
        taints::effect(errors, &effect, true);
    }
}

/// `schedulingGates`: named once each.
pub(super) fn gates(errors: &mut Errors, gates: &Field<'_>) {
    for (index, gate) in gates.items().enumerate() {
        let name = gate.get("name").str().to_string();
        errors
            .extend(names::qualified_name(&name).into_iter().map(|message| gate.invalid_value(name.as_str(), message)));
        if gates.list()[..index].contains(gate.value()) {
            errors.push(FieldError::duplicate(gate.path(), name));
        }
    }
}

/// `topologySpreadConstraints`.
pub(super) fn spread(errors: &mut Errors, constraints: &Field<'_>) {
    for (index, constraint) in constraints.items().enumerate() {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            errors.push(skew.invalid_value(skew.int().unwrap_or(0), "must be greater than zero"));
        }
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.is_empty() {
            errors.push(key.required("can not be empty"));
        }
        action.one_of(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        let same =
            |other: &Value| other["topologyKey"] == *key.value() && other["whenUnsatisfiable"] == *action.value();
        if constraints.list()[index + 1..].iter().any(same) {
            errors.push(FieldError::duplicate(
                format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path()),
                format!("{{{}, {}}}", key.str(), action.str()),
            ));
        }
        let domains = constraint.get("minDomains");
        if domains.exists() {
            domains.positive(errors);
            if action.str() != "DoNotSchedule" {
                errors.push(domains.invalid(format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.str()
                )));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.get(name);
            if policy.exists() {
                policy.one_of(errors, &["Honor", "Ignore"]);
            }
        }
        label_keys(errors, &constraint);
        metadata::label_selector(errors, &constraint.get("labelSelector"));
    }
}

/// `resourceClaims`; the names that containers may refer to.
pub(super) fn claims<'a>(errors: &mut Errors, claims: &Field<'a>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for (index, value) in claims.list().iter().enumerate() {
        let claim = claims.index(index);
        let name = value["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            errors.push(claim.get("name").required(""));
        } else if seen.contains(&name) {
            errors.push(claim.get("name").duplicate());
        } else {
            claim.get("name").judge(errors, names::dns_label(name));
            seen.push(name);
        }
        let (by_name, by_template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (by_name.exists(), by_template.exists()) {
            (true, true) => errors.push(
                claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            ),
            (false, false) => {
                errors.push(claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"));
            }
            _ => {}
        }
        for reference in [by_name, by_template].into_iter().filter(Field::exists) {
            reference.judge(errors, names::dns_subdomain(reference.str()));
        }
    }
    seen
}
