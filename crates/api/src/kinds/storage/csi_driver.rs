//! CSIDriver: what a storage driver can do and wants to be told.

use serde_json::{Value, json};

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::walk,
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
