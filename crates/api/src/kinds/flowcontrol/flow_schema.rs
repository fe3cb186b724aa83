//! FlowSchema: which requests go to which priority level.

use super::validate;
use crate::{
    kind::Part,
    kinds::{
        access::Members,
        builtin::{Kind, RESET_FOR_STATUS, Shape},
        cells,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { status_keeps: RESET_FOR_STATUS, ..Shape::WORKLOAD },
    default: |schema| {
        schema.member("spec").fill_zero("matchingPrecedence", 1000);
    },
    validate: |errors, schema, _| validate::schema(errors, schema),
    validate_update: Some(|errors, new, _, cx| {
        if cx.part != Part::Status {
            validate::schema(errors, new);
        }
    }),
    row: Some(|schema, now| {
        let spec = &schema["spec"];
        let dangling = schema["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition.text("type") == "Dangling")
            .map_or("?", |condition| condition.text("status"));
        vec![
            cells::name(schema),
            spec["priorityLevelConfiguration"].text("name").into(),
            cells::count(spec, "matchingPrecedence").into(),
            cells::or_none(spec["distinguisherMethod"].text("type")),
            cells::age(schema, now),
            dangling.into(),
        ]
    }),
    ..Kind::PLAIN
};
