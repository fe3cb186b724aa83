//! CSINode: the drivers that run on a node.

use crate::{
    kinds::{builtin::Kind, cells},
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    row: Some(|node, now| {
        let drivers = walk(node, "spec.drivers").as_array().map_or(0, Vec::len);
        vec![cells::name(node), drivers.into(), cells::age(node, now)]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};
