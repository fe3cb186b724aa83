//! CSIStorageCapacity: room that a driver has in some topology.

use crate::{
    kinds::{builtin::Kind, cells},
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    validate: |errors, capacity, _| {
        let class = capacity.get("storageClassName");
        class.judge(errors, crate::validation::names::dns_subdomain(class.str()));
    },
    validate_update: Some(|errors, new, old, _| {
        for name in ["nodeTopology", "storageClassName"] {
            new.get(name).immutable(errors, &old.get(name));
        }
    }),
    row: Some(|capacity, _| vec![cells::name(capacity), walk(capacity, "metadata.creationTimestamp").clone()]),
    unconditional_update: false,
    ..Kind::PLAIN
};
