//! DeviceClass: a named choice of devices, with their configuration.

use super::validate;
use crate::kinds::{
    builtin::{Kind, Shape},
    cells,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::GENERATION,
    validate: |errors, class, _| validate::selectors(errors, &class.get("spec.selectors")),
    row: Some(|class, now| vec![cells::name(class), cells::age(class, now)]),
    ..Kind::PLAIN
};
