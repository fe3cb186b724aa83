//! PriorityLevelConfiguration: how many requests of a level run at once, and how the others wait.

use serde_json::Value;

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
    default: |level| {
        let spec = level.member("spec");
        for (name, shares) in [("exempt", 0), ("limited", 30)] {
            if let Some(settings) = spec.existing(name) {
                settings.fill("nominalConcurrencyShares", shares);
                settings.fill("lendablePercent", 0);
            }
        }
        if let Some(limited) = spec.existing("limited")
            && let Some(response) = limited.existing("limitResponse")
            && let Some(queuing) = response.existing("queuing")
        {
            queuing.fill_zero("handSize", 8);
            queuing.fill_zero("queues", 64);
            queuing.fill_zero("queueLengthLimit", 50);
        }
    },
    validate: |errors, level, _| validate::level(errors, level),
    validate_update: Some(|errors, new, _, cx| {
        if cx.part != Part::Status {
            validate::level(errors, new);
        }
    }),
    row: Some(|level, now| {
        let spec = &level["spec"];
        let limited = &spec["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let number = |value: &Value| if value.is_null() { cells::NONE.into() } else { value.clone() };
        vec![
            cells::name(level),
            spec.text("type").into(),
            number(&limited["nominalConcurrencyShares"]),
            number(&queuing["queues"]),
            number(&queuing["handSize"]),
            number(&queuing["queueLengthLimit"]),
            cells::age(level, now),
        ]
    }),
    ..Kind::PLAIN
};
