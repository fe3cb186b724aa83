//! Lease: who leads, or lives, and until when.

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::names,
};

pub(crate) static KIND: Kind = Kind {
    default: |lease| {
        lease.object("spec");
    },
    validate: |errors, lease, _| {
        let spec = &lease.get("spec");
        let seconds = spec.get("leaseDurationSeconds");
        if seconds.int().is_some_and(|number| number <= 0) {
            errors.push(seconds.invalid("must be greater than 0"));
        }
        spec.get("leaseTransitions").not_negative(errors);
        let strategy = spec.get("strategy");
        if strategy.exists() {
            let text = strategy.str();
            if text != "OldestEmulationVersion" {
                strategy.judge(errors, names::qualified_name(text));
            }
        }
    },
    row: Some(|lease, now| {
        vec![cells::name(lease), lease["spec"].text("holderIdentity").into(), cells::age(lease, now)]
    }),
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};
