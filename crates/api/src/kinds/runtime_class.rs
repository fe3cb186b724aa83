//! RuntimeClass: which handler runs a pod's containers.

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::{names, pod::resources},
};

pub(crate) static KIND: Kind = Kind {
    validate: |errors, class, _| {
        let handler = class.get("handler");
        handler.judge(errors, names::dns_label(handler.str()));
        resources::overhead(errors, &class.get("overhead.podFixed"), "overhead.limits");
    },
    validate_update: Some(|errors, new, old, _| {
        new.get("handler").immutable(errors, &old.get("handler"));
    }),
    row: Some(|class, now| vec![cells::name(class), class.text("handler").into(), cells::age(class, now)]),
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};
