//! StorageClass: how volumes are made when claims ask for them.

use serde_json::Value;

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::{
        field::{Errors, Field, walk},
        names,
    },
};

const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(crate) static KIND: Kind = Kind {
    default: |class| {
        class.fill("reclaimPolicy", "Delete");
        class.fill("volumeBindingMode", "Immediate");
    },
    validate: |errors, class, _| validate(errors, class),
    validate_update: Some(|errors, new, old, _| {
        for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            let field = new.get(name);
            if !crate::validation::field::same(field.value(), old.get(name).value()) {
                errors.push(field.invalid("field is immutable"));
            }
        }
        validate(errors, new);
    }),
    row: Some(|class, now| {
        let annotations = walk(class, "metadata.annotations");
        let default =
            DEFAULT_ANNOTATIONS.iter().any(|name| annotations.get(*name).and_then(Value::as_str) == Some("true"));
        let mut name = walk(class, "metadata.name").as_str().unwrap_or_default().to_string();
        if default {
            name += " (default)";
        }
        vec![
            name.into(),
            class.text("provisioner").into(),
            class["reclaimPolicy"].as_str().unwrap_or("Delete").into(),
            class["volumeBindingMode"].as_str().unwrap_or("Immediate").into(),
            cells::flag(class, "allowVolumeExpansion"),
            cells::age(class, now),
        ]
    }),
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, class: &Field<'_>) {
    let provisioner = class.get("provisioner");
    if provisioner.str().is_empty() {
        errors.push(provisioner.required(""));
    } else {
        provisioner.judge(errors, names::qualified_name(&provisioner.str().to_lowercase()));
    }
    let parameters = &class.get("parameters");
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(parameters.invalid_value(key, "field can not be empty."));
        }
        bytes += key.len() + value.str().len();
    }
    if parameters.map().is_some_and(|map| map.len() > 512) {
        errors.push(parameters.too_long(512));
    }
    if bytes > 256 * 1024 {
        errors.push(parameters.too_long(256 * 1024));
    }
    class.get("reclaimPolicy").one_of(errors, &["Delete", "Retain"]);
    class.get("volumeBindingMode").required_one_of(errors, &["Immediate", "WaitForFirstConsumer"]);
}
