//! RoleBinding and ClusterRoleBinding: who has the rules of a role.

use serde_json::Value;

use crate::{
    kind::Context,
    kinds::{access::Members, builtin::Kind, cells},
    validation::{
        field::{Errors, Field},
        names,
    },
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) static ROLE_BINDING: Kind = Kind {
    validate: |errors, binding, _| validate(errors, binding, &["Role", "ClusterRole"]),
    validate_update: Some(|errors, new, old, cx| update(errors, new, old, cx, &["Role", "ClusterRole"])),
    ..BOTH
};

pub(crate) static CLUSTER_ROLE_BINDING: Kind = Kind {
    validate: |errors, binding, _| validate(errors, binding, &["ClusterRole"]),
    validate_update: Some(|errors, new, old, cx| update(errors, new, old, cx, &["ClusterRole"])),
    ..BOTH
};

const BOTH: Kind = Kind {
    name: names::path_segment,
    default: |binding| {
        binding.member("roleRef").fill("apiGroup", GROUP);
        for subject in binding.each("subjects") {
            if matches!(subject.text("kind"), "User" | "Group") {
                subject.fill("apiGroup", GROUP);
            }
        }
    },
    row: Some(row),
    create_on_update: true,
    ..Kind::PLAIN
};

fn update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, _cx: &Context<'_>, kinds: &[&str]) {
    if new.get("roleRef").value() != old.get("roleRef").value() {
        errors.push(new.get("roleRef").invalid("cannot change roleRef"));
    }
    validate(errors, new, kinds);
}

fn validate(errors: &mut Errors, binding: &Field<'_>, kinds: &[&str]) {
    let role = &binding.get("roleRef");
    role.get("apiGroup").one_of(errors, &[GROUP]);
    role.get("kind").one_of(errors, kinds);
    let name = role.get("name");
    if name.str().is_empty() {
        errors.push(name.required(""));
    } else {
        name.judge(errors, names::path_segment(name.str(), false));
    }
    let subjects = &binding.get("subjects");
    let namespaced = kinds.len() > 1;
    for subject in subjects.items() {
        let (name, group) = (subject.get("name"), subject.get("apiGroup"));
        if name.str().is_empty() {
            errors.push(name.required(""));
        }
        match subject.get("kind").str() {
            "ServiceAccount" => {
                if !name.str().is_empty() {
                    name.judge(errors, names::dns_subdomain(name.str()));
                }
                if !group.str().is_empty() {
                    group.one_of(errors, &[""]);
                }
                if !namespaced && subject.get("namespace").str().is_empty() {
                    errors.push(subject.get("namespace").required(""));
                }
            }
            "User" | "Group" => {
                group.one_of(errors, &[GROUP]);
            }
            _ => errors.push(subject.get("kind").not_supported(&["ServiceAccount", "User", "Group"])),
        }
    }
}

fn row(binding: &Value, now: &str) -> Vec<Value> {
    let subjects = |kind: &str| {
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let names: Vec<String> = subjects
            .filter(|subject| subject.text("kind") == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", subject.text("namespace"), subject.text("name")),
                _ => subject.text("name").to_string(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    let role = &binding["roleRef"];
    vec![
        cells::name(binding),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        cells::age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
