//! VolumeAttachment: the wish that a volume be attached to a node, and what came of it.

use serde_json::json;

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, RESET_FOR_STATUS, Shape},
        cells, volume,
    },
    validation::field::walk,
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
