//! Rules of FlowSchemas and PriorityLevelConfigurations.

use serde_json::Value;

use crate::validation::{
    field::{Errors, Field},
    names,
};

const PRECEDENCE_MAX: i64 = 10000;
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// Kinds of subject and the member that holds each.
const SUBJECTS: &[(&str, &str)] = &[("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

pub(super) fn schema(errors: &mut Errors, schema: &Field<'_>) {
    let spec = &schema.get("spec");
    let precedence = spec.get("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        number if number <= 0 => errors.push(precedence.invalid("must be a positive value")),
        number if number > PRECEDENCE_MAX => {
            errors.push(precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}")));
        }
        1 if schema.get("metadata.name").str() != "exempt" => {
            errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
        }
        _ => {}
    }
    let method = &spec.get("distinguisherMethod");
    if method.exists() && !matches!(method.get("type").str(), "ByNamespace" | "ByUser") {
        errors.push(crate::status::FieldError::not_supported(
            method.get("type").path(),
            method.value().clone(),
            &["ByNamespace", "ByUser"],
        ));
    }
    let level = spec.get("priorityLevelConfiguration.name");
    match level.str() {
        "" => errors.push(level.required("must reference a priority level")),
        text => level.judge(errors, names::dns_subdomain(text)),
    }
    let rules = &spec.get("rules");
    for rule in rules.items() {
        policy(errors, &rule);
    }
}

fn policy(errors: &mut Errors, rule: &Field<'_>) {
    let subjects = &rule.get("subjects");
    if subjects.is_empty() {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    for item in subjects.items() {
        subject(errors, &item);
    }
    let (resources, urls) = (&rule.get("resourceRules"), &rule.get("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for item in resources.items() {
        verbs(errors, &item);
        for (name, why, other) in [
            ("apiGroups", "resource rules must supply at least one api group", "api groups"),
            ("resources", "resource rules must supply at least one resource", "resources"),
        ] {
            let list = item.get(name);
            if list.is_empty() {
                errors.push(list.required(why));
            }
            alone(errors, &list, other);
        }
        let namespaces = &item.get("namespaces");
        if namespaces.is_empty() && !item.get("clusterScope").is_true() {
            errors.push(
                namespaces.required("resource rules that are not cluster scoped must supply at least one namespace"),
            );
        } else if !alone(errors, namespaces, "namespaces") {
            for namespace in namespaces.items() {
                for message in names::dns_label(namespace.str()) {
                    errors.push(
                        namespace
                            .invalid(format!("each member of this list must be '*' or a DNS-1123 label; {message}")),
                    );
                }
            }
        }
    }
    for item in urls.items() {
        verbs(errors, &item);
        let list = &item.get("nonResourceURLs");
        if list.is_empty() {
            errors.push(list.required("nonResourceURLs must contain at least one value"));
        } else if !alone(errors, list, "non-resource URLs") {
            for url in list.items().filter(|url| !url.str().starts_with('/')) {
                errors.push(url.invalid("must start with slash"));
            }
        }
    }
}

/// Whether there is a `*`; it must then be the only item.
fn alone(errors: &mut Errors, list: &Field<'_>, other: &str) -> bool {
    let wild = list.list().iter().any(|item| item == "*");
    if wild && list.list().len() > 1 {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {other}")));
    }
    wild
}

fn verbs(errors: &mut Errors, rule: &Field<'_>) {
    let list = rule.get("verbs");
    let known = |verb: &Value| VERBS.contains(&verb.as_str().unwrap_or_default());
    if list.is_empty() {
        errors.push(list.required("verbs must contain at least one value"));
    } else if !alone(errors, &list, "verbs") && !list.list().iter().all(known) {
        errors.push(list.not_supported(VERBS));
    }
}

fn subject(errors: &mut Errors, subject: &Field<'_>) {
    let kind = subject.get("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind.str()) else {
        errors.push(kind.not_supported(&["Group", "ServiceAccount", "User"]));
        return;
    };
    for (name, member) in SUBJECTS {
        let field = subject.get(member);
        if member == own && !field.exists() {
            errors.push(field.required(format!("{member} is required when subject kind is '{name}'")));
        } else if member != own && field.exists() {
            errors.push(field.forbidden(format!("{member} is forbidden when subject kind is not '{name}'")));
        }
    }
    let target = &subject.get(own);
    if !target.exists() {
        return;
    }
    let (name, namespace) = (target.get("name"), target.get("namespace"));
    if name.is_empty() {
        errors.push(name.required(""));
    } else if *own == "serviceAccount" && name.str() != "*" {
        name.judge(errors, names::dns_subdomain(name.str()));
    }
    if *own == "serviceAccount" {
        match namespace.str() {
            "" => errors.push(namespace.required("must specify namespace for service account")),
            text => namespace.judge(errors, names::dns_label(text)),
        }
    }
}

pub(super) fn level(errors: &mut Errors, level: &Field<'_>) {
    let spec = &level.get("spec");
    let (kind, limited, exempt) = (spec.get("type"), &spec.get("limited"), &spec.get("exempt"));
    if (level.get("metadata.name").str() == "exempt") != (kind.str() == "Exempt") {
        errors.push(kind.invalid("must be 'Exempt' if and only if `name` is 'exempt'"));
    }
    match kind.str() {
        "Exempt" => {
            if limited.exists() {
                errors.push(limited.forbidden("must be nil if the type is not Limited"));
            }
            shares(errors, exempt);
        }
        "Limited" => {
            if exempt.exists() {
                errors.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if !limited.exists() {
                errors.push(limited.required("must not be empty when type is Limited"));
                return;
            }
            shares(errors, limited);
            let borrowing = limited.get("borrowingLimitPercent");
            if borrowing.int().is_some_and(|percent| percent < 0) {
                errors.push(borrowing.invalid("if specified, must be a non-negative integer"));
            }
            response(errors, &limited.get("limitResponse"));
        }
        _ => errors.push(kind.not_supported(&["Exempt", "Limited"])),
    }
}

fn shares(errors: &mut Errors, settings: &Field<'_>) {
    let (shares, lendable) = (settings.get("nominalConcurrencyShares"), settings.get("lendablePercent"));
    if shares.int().is_some_and(|number| number < 0) {
        errors.push(shares.invalid("must be a non-negative integer"));
    }
    if lendable.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        errors.push(lendable.invalid("must be between 0 and 100, inclusive"));
    }
}

const QUEUES_MAX: i64 = 10_000_000;

fn response(errors: &mut Errors, response: &Field<'_>) {
    let (kind, queuing) = (response.get("type"), &response.get("queuing"));
    match kind.str() {
        "Reject" if queuing.exists() => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
        }
        "Reject" => {}
        "Queue" if !queuing.exists() => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
        }
        "Queue" => {
            let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
            let (count, size) = (queues.int().unwrap_or(0), hand.int().unwrap_or(0));
            if queuing.get("queueLengthLimit").int().unwrap_or(0) <= 0 {
                errors.push(queuing.get("queueLengthLimit").invalid("must be positive"));
            }
            if count <= 0 {
                errors.push(queues.invalid("must be positive"));
            } else if count > QUEUES_MAX {
                errors.push(queues.invalid(format!("must not be greater than {QUEUES_MAX}")));
            }
            if size <= 0 {
                errors.push(hand.invalid("must be positive"));
            } else if size > count {
                errors.push(hand.invalid(format!("should not be greater than queues ({count})")));
            }
        }
        _ => errors.push(kind.not_supported(&["Queue", "Reject"])),
    }
}
