//! PriorityClass: a name for a pod's rank.

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::{Errors, Field, walk},
};

/// Users' classes end here; above are the system's two.
const USER_VALUE_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation: &["value"], ..Shape::PLAIN },
    default: |class| class.fill("preemptionPolicy", "PreemptLowerPriority"),
    validate: |errors, class, _| validate(errors, class),
    validate_update: Some(|errors, new, old, _| {
        let number = |class: &Field<'_>| class.get("value").int().unwrap_or(0);
        if number(new) != number(old) {
            errors.push(new.get("value").forbidden("may not be changed in an update."));
        }
        new.get("preemptionPolicy").immutable(errors, &old.get("preemptionPolicy"));
    }),
    row: Some(|class, now| {
        vec![
            cells::name(class),
            cells::count(class, "value").into(),
            cells::flag(class, "globalDefault"),
            cells::age(class, now),
            class.text("preemptionPolicy").into(),
        ]
    }),
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, class: &Field<'_>) {
    let name = walk(class.value(), "metadata.name").as_str().unwrap_or_default();
    let value = class.get("value").int().unwrap_or(0);
    if name.starts_with("system-") {
        let known = SYSTEM.contains(&(name, value)) && !class.get("globalDefault").is_true();
        if !known {
            errors.push(class.get("metadata.name").forbidden(
                "priority class names with 'system-' prefix are reserved for system use only. error: ".to_string()
                    + name
                    + " is not a known system priority class",
            ));
        }
    } else if value > USER_VALUE_MAX {
        errors.push(
            class
                .get("value")
                .forbidden(format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}")),
        );
    }
    let policy = class.get("preemptionPolicy");
    if policy.exists() {
        policy.required_one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
}
