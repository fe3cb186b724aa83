//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use serde_json::Value;

use super::rules;
use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field},
        names,
    },
};

pub(crate) static VALIDATING: Kind = Kind { default: |object| object.each("webhooks").for_each(default), ..BOTH };

pub(crate) static MUTATING: Kind = Kind {
    default: |object| {
        for webhook in object.each("webhooks") {
            default(webhook);
            webhook.fill("reinvocationPolicy", "Never");
        }
    },
    ..BOTH
};

const BOTH: Kind = Kind {
    shape: Shape { generation: &["webhooks"], ..Shape::PLAIN },
    row: Some(|object, now| {
        let count = object["webhooks"].as_array().map_or(0, Vec::len);
        vec![cells::name(object), count.into(), cells::age(object, now)]
    }),
    validate: |errors, object, _| validate(errors, &object.get("webhooks")),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn default(webhook: &mut Value) {
    webhook.fill("failurePolicy", "Fail");
    super::policy::default_match(webhook);
    webhook.fill("timeoutSeconds", 10);
    if let Some(config) = webhook.existing("clientConfig")
        && let Some(service) = config.existing("service")
    {
        service.fill("port", 443);
    }
}

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

fn validate(errors: &mut Errors, webhooks: &Field<'_>) {
    for (index, webhook) in webhooks.items().enumerate() {
        let name = webhook.get("name");
        rules::qualified(errors, &name);
        let list = &webhook.get("rules");
        for rule in list.items() {
            rules::rule(errors, &rule);
        }
        rules::failure_policy(errors, &webhook.get("failurePolicy"));
        rules::matching(errors, &webhook);
        let effects = webhook.get("sideEffects");
        if effects.exists() {
            effects.one_of(errors, SIDE_EFFECTS);
        } else {
            errors.push(effects.required(format!("must specify one of {}", SIDE_EFFECTS.join(", "))));
        }
        let timeout = webhook.get("timeoutSeconds");
        if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
        }
        let again = webhook.get("reinvocationPolicy");
        if again.exists() {
            again.one_of(errors, &["IfNeeded", "Never"]);
        }
        client_config(errors, &webhook.get("clientConfig"));
        rules::conditions(errors, &webhook.get("matchConditions"));
        review_versions(errors, &webhook.get("admissionReviewVersions"));
        if !name.is_empty() && webhooks.list()[..index].iter().any(|other| other["name"] == *name.value()) {
            errors.push(name.duplicate());
        }
    }
}

fn client_config(errors: &mut Errors, config: &Field<'_>) {
    let (url, service) = (config.get("url"), &config.get("service"));
    if url.exists() == service.exists() {
        errors.push(config.required("exactly one of url or service is required"));
        return;
    }
    if url.exists() {
        let rest = url.str().strip_prefix("https://");
        match rest {
            None => errors.push(url.invalid_value(
                url.str().split(':').next().unwrap_or_default(),
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            )),
            Some(rest) => {
                let host = rest.split('/').next().unwrap_or_default();
                let problems = [
                    (host.is_empty(), "host must be specified; desired format: https://host[/path]"),
                    (
                        host.contains('@'),
                        "user information is not permitted in the URL; desired format: https://host[/path]",
                    ),
                    (rest.contains('#'), "fragments are not permitted in the URL; desired format: https://host[/path]"),
                    (
                        rest.contains('?'),
                        "query parameters are not permitted in the URL; desired format: https://host[/path]",
                    ),
                ];
                errors.extend(problems.iter().filter(|(wrong, _)| *wrong).map(|(_, why)| url.invalid(*why)));
            }
        }
        return;
    }
    for name in ["name", "namespace"] {
        if service.get(name).is_empty() {
            errors.push(service.get(name).required(""));
        }
    }
    let port = service.get("port");
    if !names::port_number(port.int().unwrap_or(443)).is_empty() {
        errors.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
    }
    let path = service.get("path");
    if path.exists() && !path.str().starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
}

fn review_versions(errors: &mut Errors, versions: &Field<'_>) {
    if versions.is_empty() {
        errors.push(versions.required(format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    for (index, version) in versions.items().enumerate() {
        if versions.list()[..index].contains(version.value()) {
            errors.push(version.invalid("duplicate version"));
        } else {
            version.judge(errors, names::dns_1035_label(version.str()));
        }
    }
    if !versions.list().iter().any(|version| REVIEW_VERSIONS.iter().any(|known| version == known)) {
        errors.push(versions.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}
