//! ResourceSlice: the devices of one pool that a driver publishes.

use super::validate;
use crate::kinds::{
    access::Members,
    builtin::{Kind, Shape},
    cells,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::GENERATION,
    validate: |errors, slice, _| validate::slice(errors, &slice.get("spec")),
    validate_update: Some(|errors, new, old, _| {
        for name in ["spec.nodeName", "spec.driver", "spec.pool.name", "spec.nodeSelector", "spec.allNodes"] {
            new.get(name).immutable(errors, &old.get(name));
        }
    }),
    fields: &["spec.nodeName", "spec.driver"],
    row: Some(|slice, now| {
        let spec = &slice["spec"];
        vec![
            cells::name(slice),
            spec.text("nodeName").into(),
            spec.text("driver").into(),
            spec["pool"].text("name").into(),
            cells::age(slice, now),
        ]
    }),
    ..Kind::PLAIN
};
