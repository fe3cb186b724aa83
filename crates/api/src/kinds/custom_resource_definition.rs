//! CustomResourceDefinition: makes a new kind.

mod validate;

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    default,
    empty_status: || json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": null}),
    create: |definition, _| add_stored_version(definition),
    update: |new, _, cx: &Context<'_>| {
        if cx.part == Part::Main {
            add_stored_version(new);
        }
    },
    row: Some(|definition, _| vec![cells::name(definition), walk(definition, "metadata.creationTimestamp").clone()]),
    validate: |errors, definition, _| validate::create(errors, definition),
    validate_update: Some(validate::update),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn default(definition: &mut Value) {
    let spec = definition.member("spec");
    let names = spec.member("names");
    let kind = names.text("kind").to_string();
    if !kind.is_empty() {
        names.fill("singular", kind.to_lowercase());
        names.fill("listKind", format!("{kind}List"));
    }
    spec.fill("conversion", json!({"strategy": "None"}));
    if let Some(conversion) = spec.existing("conversion")
        && let Some(webhook) = conversion.existing("webhook")
        && let Some(config) = webhook.existing("clientConfig")
        && let Some(service) = config.existing("service")
    {
        service.fill("port", 443);
    }
}

/// The storage version is from now on one that objects may be stored in.
fn add_stored_version(definition: &mut Value) {
    let versions = walk(definition, "spec.versions").as_array();
    let Some(name) = versions
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
    else {
        return;
    };
    match definition.member("status").member("storedVersions") {
        Value::Array(stored) if stored.contains(&name) => {}
        Value::Array(stored) => stored.push(name),
        absent => *absent = json!([name]),
    }
}
