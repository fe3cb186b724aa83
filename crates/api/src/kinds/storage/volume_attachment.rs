//! VolumeAttachment: the wish that a volume be attached to a node, and what came of it.

use serde_json::json;

use super::csi_node;
use crate::{
    kind::Part,
    kinds::{
        access::Members,
        builtin::{Kind, RESET_FOR_STATUS, Shape},
        cells, volume,
    },
    validation::{
        field::{Errors, Field, walk},
        names,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { status_keeps: RESET_FOR_STATUS, ..Shape::STATUS },
    empty_status: || json!({"attached": false}),
    default: |attachment| {
        if let Some(source) = attachment.member("spec").existing("source")
            && let Some(inline) = source.existing("inlineVolumeSpec")
        {
            volume::default_source(inline);
        }
    },
    validate: |errors, attachment, _| validate(errors, &attachment.get("spec")),
    validate_update: Some(|errors, new, old, cx| {
        if cx.part != Part::Status {
            validate(errors, &new.get("spec"));
            new.get("spec").immutable(errors, &old.get("spec"));
        }
    }),
    row: Some(|attachment, now| {
        let spec = &attachment["spec"];
        vec![
            cells::name(attachment),
            spec.text("attacher").into(),
            walk(spec, "source.persistentVolumeName").as_str().unwrap_or_default().into(),
            spec.text("nodeName").into(),
            cells::flag(attachment, "status.attached"),
            cells::age(attachment, now),
        ]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, spec: &Field<'_>) {
    csi_node::driver_name(errors, &spec.get("attacher"));
    let node = spec.get("nodeName");
    node.judge(errors, names::dns_subdomain(node.str()));
    let source = &spec.get("source");
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let volume = source.get("persistentVolumeName");
    match (volume.exists(), source.get("inlineVolumeSpec").exists()) {
        (false, false) => errors.push(source.required(ONE)),
        (true, true) => errors.push(source.forbidden(ONE)),
        (true, false) if volume.is_empty() => {
            errors.push(volume.required("must specify non empty persistentVolumeName"));
        }
        _ => {}
    }
}
