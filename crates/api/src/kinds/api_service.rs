//! APIService: a group and version served by this server, or by another one behind it.

use serde_json::{Value, json};

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        names,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { status_keeps: &["labels", "annotations", "finalizers", "ownerReferences"], ..Shape::STATUS },
    name: |name, _| names::path_segment(name, false),
    default: |service| {
        if let Some(reference) = service.member("spec").existing("service") {
            reference.fill("port", 443);
        }
    },
    create: |service, cx| {
        if walk(service, "spec.service").is_null() {
            let condition = json!([{
                "type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": cx.now,
                "message": "Local APIServices are always available",
            }]);
            service.member("status").set("conditions", condition);
        }
    },
    validate: |errors, service, _| validate(errors, service),
    row: Some(|service, now| {
        let reference = walk(service, "spec.service");
        let target = match reference.is_object() {
            true => format!("{}/{}", reference.text("namespace"), reference.text("name")),
            false => "Local".into(),
        };
        vec![cells::name(service), target.into(), available(service).into(), cells::age(service, now)]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn available(service: &Value) -> String {
    let mut conditions = walk(service, "status.conditions").as_array().into_iter().flatten();
    match conditions.rfind(|condition| condition.text("type") == "Available") {
        None => "Unknown".into(),
        Some(condition) if condition.text("status") == "True" => "True".into(),
        Some(condition) => format!("{} ({})", condition.text("status"), condition.text("reason")),
    }
}

fn validate(errors: &mut Errors, service: &Field<'_>) {
    let spec = &service.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let name = service.get("metadata.name");
    let required = format!("{}.{}", version.str(), group.str());
    if name.str() != required {
        errors.push(name.invalid(format!("must be `spec.version+\".\"+spec.group`: \"{required}\"")));
    }
    if group.str().is_empty() && version.str() != "v1" {
        errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.str().is_empty() {
        group.judge(errors, names::dns_subdomain(group.str()));
    }
    version.judge(errors, names::dns_1035_label(version.str()));
    for (name, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let priority = spec.get(name);
        let number = priority.int().unwrap_or(0);
        if number <= 0 || number > max {
            errors.push(priority.invalid_value(number, format!("must be positive and less than {max}")));
        }
    }
    let reference = spec.get("service");
    if !reference.exists() {
        for (name, why) in [
            ("caBundle", "local APIServices may not have a caBundle"),
            ("insecureSkipTLSVerify", "local APIServices may not have insecureSkipTLSVerify"),
        ] {
            let field = spec.get(name);
            if !field.is_empty() && field.value() != false {
                errors.push(field.invalid(why));
            }
        }
        return;
    }
    for name in ["namespace", "name"] {
        if reference.get(name).str().is_empty() {
            errors.push(reference.get(name).required(""));
        }
    }
    let port = reference.get("port");
    port.judge(errors, names::port_number(port.int().unwrap_or(443)));
    if spec.get("insecureSkipTLSVerify").is_true() && !spec.get("caBundle").is_empty() {
        errors.push(spec.get("insecureSkipTLSVerify").invalid("may not be true if caBundle is present"));
    }
}
