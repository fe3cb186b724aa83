//! Rules of CustomResourceDefinitions: names, versions, conversion. The schemas' own rules are the schema module's.

use serde_json::Value;

use crate::{
    crd,
    kind::{Context, Part},
    kinds::access::Members,
    validation::{
        field::{Errors, Field, same},
        names,
    },
};

pub(super) fn create(errors: &mut Errors, definition: &Field<'_>) {
    spec(errors, definition);
}

fn spec(errors: &mut Errors, definition: &Field<'_>) {
    let spec = &definition.get("spec");
    let (group, plural) = (spec.get("group"), spec.get("names.plural"));
    let name = definition.get("metadata.name");
    let wanted = format!("{}.{}", plural.str(), group.str());
    if name.str() != wanted {
        errors.push(name.invalid("must be spec.names.plural+\".\"+spec.group"));
    }
    if group.is_empty() {
        errors.push(group.required(""));
    } else {
        let messages = names::dns_subdomain(group.str());
        if !messages.is_empty() {
            errors.push(group.invalid(messages.join(",")));
        } else if !group.str().contains('.') {
            errors.push(group.invalid("should be a domain with at least one dot"));
        }
    }
    spec.get("scope").required_one_of(errors, &["Cluster", "Namespaced"]);
    protected(errors, definition, group.str());
    versions(errors, spec);
    accepted_names(errors, &spec.get("names"));
    conversion(errors, spec);
    errors.extend(crd::validate(definition.value()));
}

/// Groups of the project itself need a link to the review of their API.
fn protected(errors: &mut Errors, definition: &Field<'_>, group: &str) {
    const KEY: &str = "api-approved.kubernetes.io";
    if !matches!(group, "k8s.io" | "kubernetes.io") && !group.ends_with(".k8s.io") && !group.ends_with(".kubernetes.io")
    {
        return;
    }
    let annotations = &definition.get("metadata.annotations");
    let approval = annotations.key(KEY);
    let fine = approval.str().starts_with("unapproved") || approval.str().starts_with("http");
    if approval.str().is_empty() {
        errors.push(approval.required(
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ));
    } else if !fine {
        errors.push(approval.invalid("protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"));
    }
}

fn versions(errors: &mut Errors, spec: &Field<'_>) {
    let versions = &spec.get("versions");
    let mut stored = 0;
    for (index, version) in versions.items().enumerate() {
        let name = version.get("name");
        for message in names::dns_1035_label(name.str()) {
            errors.push(name.invalid(message.clone()));
            if versions.list().len() == 1 {
                errors.push(crate::status::FieldError::invalid("spec.version", name.str(), message));
            }
        }
        if versions.list()[..index].iter().any(|other| other["name"] == *name.value()) {
            errors.push(versions.invalid("must contain unique version names"));
        }
        stored += usize::from(version.get("storage").is_true());
        let schema = version.get("schema.openAPIV3Schema");
        if !schema.exists() {
            errors.push(schema.required(""));
        }
        if version.get("deprecationWarning").exists() && !version.get("deprecated").is_true() {
            errors.push(version.get("deprecationWarning").invalid("can only be set for deprecated versions"));
        }
        // What all versions share is reported at the spec, and a single version shares everything.
        let prefix = if versions.list().len() == 1 { "spec".to_string() } else { version.path() };
        let at = |name: &str| format!("{prefix}.{name}");
        let (column_path, scale_path) = (at("additionalPrinterColumns"), at("subresources.scale"));
        columns(errors, &Field::at(version.get("additionalPrinterColumns").value(), &column_path));
        scale(errors, &Field::at(version.get("subresources.scale").value(), &scale_path));
    }
    if stored != 1 {
        errors.push(
            versions.invalid_value(versions.value().clone(), "must have exactly one version marked as storage version"),
        );
    }
    if stored == 0 {
        errors.push(crate::status::FieldError::invalid(
            "status.storedVersions",
            Value::Null,
            "must have at least one stored version",
        ));
    }
    if !spec.value()["preserveUnknownFields"].is_null() && spec.get("preserveUnknownFields").is_true() {
        errors.push(spec.get("preserveUnknownFields").invalid(
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
}

fn columns(errors: &mut Errors, columns: &Field<'_>) {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    for column in columns.items() {
        if column.get("name").is_empty() {
            errors.push(column.get("name").required(""));
        }
        let kind = column.get("type");
        if kind.is_empty() {
            errors.push(kind.required(format!("must be one of {}", TYPES.join(","))));
        } else if !TYPES.contains(&kind.str()) {
            errors.push(kind.invalid(format!("must be one of {}", TYPES.join(","))));
        }
        if column.get("jsonPath").is_empty() {
            errors.push(column.get("JSONPath").required(""));
        }
    }
}

fn scale(errors: &mut Errors, scale: &Field<'_>) {
    if !scale.exists() {
        return;
    }
    for (name, prefix, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let path = scale.get(name);
        match path.str() {
            "" if required => errors.push(path.required("")),
            "" => {}
            text if !text.starts_with('.') => errors.push(path.invalid("must be a simple json path starting with .")),
            text if !text.starts_with(prefix) => {
                errors.push(path.invalid(format!("should be a json path under {}", prefix.trim_end_matches('.'))));
            }
            text if name == "labelSelectorPath" && !text.starts_with(".spec.") && !text.starts_with(".status.") => {
                errors.push(path.invalid("should be a json path under either .spec or .status"));
            }
            _ => {}
        }
    }
}

fn accepted_names(errors: &mut Errors, names_field: &Field<'_>) {
    let judged = |name: &'static str| names_field.get(name);
    for name in ["plural", "singular", "kind", "listKind"] {
        if names_field.get(name).is_empty() {
            errors.push(names_field.get(name).required(""));
        }
    }
    for name in ["plural", "singular"] {
        let field = names_field.get(name);
        if field.is_empty() {
            continue;
        }
        let messages = names::dns_1035_label(field.str());
        if !messages.is_empty() {
            errors.push(field.invalid(messages.join(",")));
        }
    }
    for name in ["kind", "listKind"] {
        let field = names_field.get(name);
        if field.is_empty() {
            continue;
        }
        let messages = names::dns_1035_label(&field.str().to_lowercase());
        if !messages.is_empty() {
            errors.push(
                field.invalid(format!("may have mixed case, but should otherwise match: {}", messages.join(","))),
            );
        }
    }
    if !judged("kind").is_empty() && judged("kind").str() == judged("listKind").str() {
        errors.push(judged("listKind").invalid("kind and listKind may not be the same"));
    }
    for list in ["shortNames", "categories"] {
        let list = &names_field.get(list);
        for name in list.items() {
            let messages = names::dns_1035_label(name.str());
            if !messages.is_empty() {
                errors.push(name.invalid(messages.join(",")));
            }
        }
    }
}

fn conversion(errors: &mut Errors, spec: &Field<'_>) {
    let conversion = &spec.get("conversion");
    let webhook = &conversion.get("webhook");
    let strategy = conversion.get("strategy");
    if !strategy.required_one_of(errors, &["None", "Webhook"]) {
        return;
    }
    if strategy.str() == "None" {
        if webhook.exists() {
            errors.push(webhook.forbidden("should not be set when strategy is not set to Webhook"));
        }
        return;
    }
    let config = &webhook.get("clientConfig");
    if !config.exists() {
        let config = conversion.get("webhookClientConfig");
        errors.push(config.required("required when strategy is set to Webhook"));
    } else if config.get("url").exists() == config.get("service").exists() {
        errors.push(config.required("exactly one of url or service is required"));
    }
    let versions = &webhook.get("conversionReviewVersions");
    if versions.is_empty() {
        errors.push(conversion.get("conversionReviewVersions").required(""));
    } else if !versions.list().iter().any(|version| version == "v1" || version == "v1beta1") {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
}

pub(super) fn update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        return;
    }
    spec(errors, new);
    let established = old.value()["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition.text("type") == "Established" && condition.text("status") == "True");
    let names: &[&str] = if established { &["scope", "names.kind"] } else { &[] };
    for name in names.iter().copied().chain(["group", "names.plural"]) {
        let path = format!("spec.{name}");
        let field = new.get(&path);
        if !same(field.value(), old.get(&path).value()) {
            errors.push(field.invalid("field is immutable"));
        }
    }
    let kept: Vec<&Value> = new.get("spec.versions").list().iter().map(|version| &version["name"]).collect();
    let stored = new.get("status.storedVersions");
    for (index, version) in stored.list().iter().enumerate() {
        if !kept.contains(&version) {
            errors.push(crate::status::FieldError::invalid(
                format!("status.storedVersions[{index}]"),
                version.clone(),
                "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until \
                 a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"
                    .replace("v1", version.as_str().unwrap_or_default()),
            ));
        }
    }
}
