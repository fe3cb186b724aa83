//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy applies.

use super::rules;
use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field},
        metadata, names,
    },
};

pub(crate) static VALIDATING: Kind = Kind {
    validate: |errors, binding, _| {
        validate(errors, &binding.get("spec"));
        actions(errors, &binding.get("spec.validationActions"));
    },
    ..BOTH
};

pub(crate) static MUTATING: Kind =
    Kind { validate: |errors, binding, _| validate(errors, &binding.get("spec")), ..BOTH };

const BOTH: Kind = Kind {
    shape: Shape::GENERATION,
    default: |binding| {
        if let Some(resources) = binding.member("spec").existing("matchResources") {
            super::policy::default_match_resources(resources);
        }
    },
    row: Some(|binding, now| {
        let spec = &binding["spec"];
        let parameter = &spec["paramRef"];
        let text = match (parameter.text("namespace"), parameter.text("name")) {
            (_, "") if parameter["selector"].is_object() => cells::selector_text(&parameter["selector"]),
            (_, "") => "<unset>".into(),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![cells::name(binding), spec.text("policyName").into(), text.into(), cells::age(binding, now)]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, spec: &Field<'_>) {
    let policy = spec.get("policyName");
    match policy.str() {
        "" => errors.push(policy.required("")),
        text => policy.judge(errors, names::dns_subdomain(text)),
    }
    let parameter = &spec.get("paramRef");
    if parameter.exists() {
        let (name, selector) = (parameter.get("name"), parameter.get("selector"));
        match (name.is_empty(), selector.exists()) {
            (true, false) => {
                errors.push(parameter.required("one of name or selector must be specified"));
            }
            (false, true) => errors.push(name.forbidden("name and selector are mutually exclusive")),
            (true, true) => metadata::label_selector(errors, &selector),
            (false, false) => name.judge(errors, names::path_segment(name.str(), false)),
        }
        let action = parameter.get("parameterNotFoundAction");
        action.required_one_of(errors, &["Allow", "Deny"]);
    }
    let resources = &spec.get("matchResources");
    if resources.exists() {
        rules::matching(errors, resources);
        for lists in ["resourceRules", "excludeResourceRules"] {
            let list = &resources.get(lists);
            for rule in list.items() {
                rules::rule(errors, &rule);
            }
        }
    }
}

fn actions(errors: &mut Errors, actions: &Field<'_>) {
    if actions.is_empty() {
        errors.push(actions.required("at least one validation action is required"));
        return;
    }
    for (index, action) in actions.items().enumerate() {
        action.one_of(errors, &["Audit", "Deny", "Warn"]);
        if actions.list()[..index].contains(action.value()) {
            errors.push(action.duplicate());
        }
    }
    if rules::overlap(actions, &["Deny", "Warn"]) {
        errors.push(actions.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"));
    }
}
