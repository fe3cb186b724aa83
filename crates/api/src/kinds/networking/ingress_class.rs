//! IngressClass: which controller serves an Ingress.

use serde_json::Value;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        names, net,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::GENERATION,
    default: |class| {
        if let Some(parameters) = class.member("spec").existing("parameters") {
            parameters.fill("scope", "Cluster");
        }
    },
    validate: |errors, class, _| validate(errors, class),
    validate_update: Some(|errors, new, old, _| {
        new.get("spec.controller").immutable(errors, &old.get("spec.controller"));
        validate(errors, new);
    }),
    row: Some(|class, now| {
        let spec = &class["spec"];
        let parameters = &spec["parameters"];
        let parameters = match (parameters.is_object(), parameters.text("apiGroup")) {
            (false, _) => cells::NONE.to_string(),
            (true, "") => format!("{}/{}", parameters.text("kind"), parameters.text("name")),
            (true, group) => format!("{}.{group}/{}", parameters.text("kind"), parameters.text("name")),
        };
        let mut name = walk(class, "metadata.name").as_str().unwrap_or_default().to_string();
        let annotations = walk(class, "metadata.annotations");
        if annotations.get("ingressclass.kubernetes.io/is-default-class").and_then(Value::as_str) == Some("true") {
            name += " (default)";
        }
        vec![name.into(), spec.text("controller").into(), parameters.into(), cells::age(class, now)]
    }),
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, class: &Field<'_>) {
    let controller = class.get("spec.controller");
    if controller.str().len() > 250 {
        errors.push(controller.too_long(250));
    }
    net::domain_prefixed_path(errors, &controller);
    let parameters = class.get("spec.parameters");
    if !parameters.exists() {
        return;
    }
    for name in ["kind", "name"] {
        let field = parameters.get(name);
        if field.str().is_empty() {
            errors.push(field.required(""));
        } else {
            field.judge(errors, names::path_segment(field.str(), false));
        }
    }
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    scope.one_of(errors, &["Cluster", "Namespace"]);
    match scope.str() {
        "Namespace" if namespace.str().is_empty() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => namespace.judge(errors, names::dns_label(namespace.str())),
        "Cluster" if namespace.exists() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        _ => {}
    }
}
