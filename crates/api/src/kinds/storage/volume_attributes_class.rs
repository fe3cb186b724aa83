//! VolumeAttributesClass: attributes of volumes that can change while they are in use.

use super::csi_node;
use crate::kinds::{access::Members, builtin::Kind, cells};

pub(crate) static KIND: Kind = Kind {
    validate: |errors, class, _| {
        csi_node::driver_name(errors, &class.get("driverName"));
        let parameters = class.get("parameters");
        if parameters.is_empty() {
            errors.push(parameters.required("must contain at least one key/value pair"));
        }
    },
    validate_update: Some(|errors, new, old, _| {
        for name in ["driverName", "parameters"] {
            if !crate::validation::field::same(new.get(name).value(), old.get(name).value()) {
                errors.push(new.get(name).forbidden(format!("updates to {name} are forbidden.")));
            }
        }
    }),
    row: Some(|class, now| vec![cells::name(class), class.text("driverName").into(), cells::age(class, now)]),
    ..Kind::PLAIN
};
