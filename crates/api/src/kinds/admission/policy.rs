//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: admission rules in CEL.

use serde_json::Value;

use super::rules;
use crate::{
    kind::{Context, Part},
    kinds::{
        access::Members,
        builtin::{Kind, RESET_FOR_STATUS, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field},
        names,
    },
};

pub(crate) static VALIDATING: Kind = Kind {
    shape: Shape { status_keeps: RESET_FOR_STATUS, ..Shape::WORKLOAD },
    validate: |errors, policy, _| validating(errors, policy),
    validate_update: Some(|errors, new, _, cx: &Context<'_>| {
        if cx.part != Part::Status {
            validating(errors, new);
        }
    }),
    row: Some(|policy, now| row(policy, "validations", now)),
    ..BOTH
};

pub(crate) static MUTATING: Kind = Kind {
    shape: Shape::GENERATION,
    validate: |errors, policy, _| mutating(errors, &policy.get("spec")),
    row: Some(|policy, now| row(policy, "mutations", now)),
    ..BOTH
};

const BOTH: Kind = Kind {
    default: |policy| {
        let spec = policy.member("spec");
        spec.fill("failurePolicy", "Fail");
        if let Some(constraints) = spec.existing("matchConstraints") {
            default_match_resources(constraints);
        }
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

/// Fills a `MatchResources`, of a policy or of a binding.
pub(super) fn default_match_resources(constraints: &mut Value) {
    default_match(constraints);
    default_scope(constraints, "resourceRules");
    default_scope(constraints, "excludeResourceRules");
}

/// Fills how rules match, for webhooks and policies alike.
pub(super) fn default_match(object: &mut Value) {
    object.fill("matchPolicy", "Equivalent");
    object.object("namespaceSelector");
    object.object("objectSelector");
    default_scope(object, "rules");
}

fn default_scope(object: &mut Value, rules: &str) {
    for rule in object.each(rules) {
        rule.fill("scope", "*");
    }
}

fn row(policy: &Value, rules: &str, now: &str) -> Vec<Value> {
    let spec = &policy["spec"];
    let kind = &spec["paramKind"];
    let kind = match kind.is_object() {
        true => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")),
        false => "<unset>".into(),
    };
    let count = spec[rules].as_array().map_or(0, Vec::len);
    vec![cells::name(policy), count.into(), kind.into(), cells::age(policy, now)]
}

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];

/// What both kinds of policy share: parameters, constraints, conditions, variables.
fn common(errors: &mut Errors, spec: &Field<'_>) {
    rules::failure_policy(errors, &spec.get("failurePolicy"));
    let kind = &spec.get("paramKind");
    if kind.exists() {
        let version = kind.get("apiVersion");
        match version.str().rsplit('/').next().unwrap_or_default() {
            "" => errors.push(version.required("")),
            text => version.judge(errors, names::dns_1035_label(text)),
        }
        let name = kind.get("kind");
        match name.str() {
            "" => errors.push(name.required("")),
            text if !names::dns_1035_label(&text.to_lowercase()).is_empty() => errors.push(name.invalid(format!(
                "may have mixed case, but should otherwise match: {}",
                names::dns_1035_label(&text.to_lowercase()).join(",")
            ))),
            _ => {}
        }
    }
    let constraints = &spec.get("matchConstraints");
    if constraints.exists() {
        rules::matching(errors, constraints);
        let list = &constraints.get("resourceRules");
        if list.is_empty() {
            errors.push(list.required(""));
        }
        for lists in ["resourceRules", "excludeResourceRules"] {
            let list = &constraints.get(lists);
            for rule in list.items() {
                rules::rule(errors, &rule);
            }
        }
    } else {
        errors.push(constraints.required(""));
    }
    rules::conditions(errors, &spec.get("matchConditions"));
    let variables = &spec.get("variables");
    for (index, variable) in variables.items().enumerate() {
        let name = variable.get("name");
        let identifier = name.str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.str().starts_with(|first: char| first.is_ascii_digit());
        if name.is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !identifier {
            errors.push(name.invalid("must be a valid CEL identifier"));
        } else if variables.list()[..index].iter().any(|other| other["name"] == *name.value()) {
            errors.push(name.duplicate());
        }
        rules::expression(errors, &variable.get("expression"));
    }
}

fn validating(errors: &mut Errors, policy: &Field<'_>) {
    let spec = &policy.get("spec");
    common(errors, spec);
    let (validations, annotations) = (&spec.get("validations"), &spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for list in [validations, annotations] {
            errors.push(list.required("validations or auditAnnotations must contain at least one item"));
        }
    }
    for validation in validations.items() {
        let expression = validation.get("expression");
        if expression.str().trim().is_empty() {
            errors.push(expression.required("expression is not specified"));
        } else {
            rules::expression(errors, &expression);
        }
        let (message, by_expression) = (validation.get("message"), validation.get("messageExpression"));
        if message.str().contains('\n') {
            errors.push(message.invalid("must not contain line breaks"));
        } else if message.str().trim().is_empty() && !message.is_empty() {
            errors.push(message.invalid("message must be non-empty if specified"));
        } else if message.is_empty() && validation.get("expression").str().contains('\n') && by_expression.is_empty() {
            errors.push(message.required("message must be specified if expression contains line breaks"));
        }
        if by_expression.exists() {
            rules::expression(errors, &by_expression);
        }
        let reason = validation.get("reason");
        if reason.exists() {
            reason.one_of(errors, REASONS);
        }
    }
    for annotation in annotations.items() {
        let key = annotation.get("key");
        match key.str() {
            "" => errors.push(key.required("")),
            text => {
                let whole = format!("{}/{text}", policy.get("metadata.name").str());
                errors.extend(
                    names::qualified_name(&whole).into_iter().map(|message| key.invalid_value(whole.as_str(), message)),
                );
            }
        }
        rules::expression(errors, &annotation.get("valueExpression"));
    }
}

fn mutating(errors: &mut Errors, spec: &Field<'_>) {
    common(errors, spec);
    let again = spec.get("reinvocationPolicy");
    again.required_one_of(errors, &["IfNeeded", "Never"]);
    let mutations = &spec.get("mutations");
    if mutations.is_empty() {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    for mutation in mutations.items() {
        let kind = mutation.get("patchType");
        if !kind.required_one_of(errors, &["ApplyConfiguration", "JSONPatch"]) {
            continue;
        }
        let (own, other) = match kind.str() {
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            _ => ("applyConfiguration", "jsonPatch"),
        };
        if mutation.get(own).exists() {
            rules::expression(errors, &mutation.get(own).get("expression"));
        } else {
            errors.push(mutation.get(own).required(format!("must be specified when patchType is {}", kind.str())));
        }
        if mutation.get(other).exists() {
            errors.push(mutation.get(other).invalid(format!("must not be specified when patchType is {}", kind.str())));
        }
    }
}
