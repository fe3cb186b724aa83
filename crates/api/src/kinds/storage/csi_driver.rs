//! CSIDriver: what a storage driver can do and wants to be told.

use serde_json::{Value, json};

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::{Errors, Field, walk},
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation_on_create: false, ..Shape::GENERATION },
    default: |driver| {
        let spec = driver.member("spec");
        spec.fill("attachRequired", true);
        for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            spec.fill(name, false);
        }
        spec.fill("fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec["volumeLifecycleModes"].as_array().is_none_or(Vec::is_empty) {
            spec.set("volumeLifecycleModes", json!(["Persistent"]));
        }
    },
    validate: |errors, driver, _| validate(errors, &driver.get("spec")),
    validate_update: Some(|errors, new, old, _| {
        validate(errors, &new.get("spec"));
        let shown = Field::at(new.get("spec.attachRequired").value(), "spec.attachedRequired");
        shown.immutable(errors, &old.get("spec.attachRequired"));
        new.get("spec.volumeLifecycleModes").immutable(errors, &old.get("spec.volumeLifecycleModes"));
    }),
    row: Some(|driver, now| {
        let spec = &driver["spec"];
        let joined = |list: &Value, text: fn(&Value) -> Option<&str>| -> String {
            let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(text).collect();
            texts.join(",")
        };
        let audiences = match &spec["tokenRequests"] {
            Value::Null => "<unset>".to_string(),
            requests => joined(requests, |request| Some(request.text("audience"))),
        };
        vec![
            cells::name(driver),
            walk(spec, "attachRequired").as_bool().unwrap_or(true).into(),
            cells::flag(spec, "podInfoOnMount"),
            cells::flag(spec, "storageCapacity"),
            audiences.into(),
            cells::flag(spec, "requiresRepublish"),
            cells::or_none(&joined(&spec["volumeLifecycleModes"], Value::as_str)),
            cells::age(driver, now),
        ]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

fn validate(errors: &mut Errors, spec: &Field<'_>) {
    spec.get("fsGroupPolicy").one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.list() {
        if mode != "Persistent" && mode != "Ephemeral" {
            errors.push(crate::status::FieldError::not_supported(
                modes.path(),
                mode.clone(),
                &["Persistent", "Ephemeral"],
            ));
        }
    }
    let requests = &spec.get("tokenRequests");
    for (index, request) in requests.items().enumerate() {
        let audience = request.get("audience");
        if requests.list()[..index].iter().any(|other| other.text("audience") == audience.str()) {
            errors.push(audience.duplicate());
            continue;
        }
        let seconds = request.get("expirationSeconds");
        match seconds.int() {
            Some(number) if number < TOKEN_SECONDS_MIN => {
                errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
            }
            Some(number) if number > TOKEN_SECONDS_MAX => {
                errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
            }
            _ => {}
        }
    }
}
