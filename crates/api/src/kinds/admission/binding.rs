//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy applies.

use crate::kinds::{
    access::Members,
    builtin::{Kind, Shape},
    cells,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::GENERATION,
    default: |binding| {
        if let Some(resources) = binding.member("spec").existing("matchResources") {
            super::policy::default_match_resources(resources);
        }
    },
    row: Some(|binding, now| {
        let spec = &binding["spec"];
        let parameter = &spec["paramRef"];
        let text = match (parameter.text("namespace"), parameter.text("name")) {
            (_, "") if parameter["selector"].is_object() => cells::selector_text(&parameter["selector"]),
            (_, "") => "<unset>".into(),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![cells::name(binding), spec.text("policyName").into(), text.into(), cells::age(binding, now)]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};
