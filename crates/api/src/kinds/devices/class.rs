//! DeviceClass: a named choice of devices, with their configuration.

use crate::kinds::{
    builtin::{Kind, Shape},
    cells,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::GENERATION,
    row: Some(|class, now| vec![cells::name(class), cells::age(class, now)]),
    ..Kind::PLAIN
};
