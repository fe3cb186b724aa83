//! ServiceCIDR: a range that cluster IPs are taken from.

use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::{
        builtin::{Kind, RESET_FOR_STATUS, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        net,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { status_keeps: RESET_FOR_STATUS, ..Shape::STATUS },
    validate: |errors, cidr, _| ranges(errors, cidr),
    validate_update: Some(validate_update),
    row: Some(|cidr, now| {
        let ranges: Vec<&str> =
            walk(cidr, "spec.cidrs").as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        vec![cells::name(cidr), ranges.join(",").into(), cells::age(cidr, now)]
    }),
    ..Kind::PLAIN
};

fn ranges(errors: &mut Errors, cidr: &Field<'_>) {
    let ranges = &cidr.get("spec.cidrs");
    match ranges.list() {
        [] => errors.push(ranges.required("at least one CIDR required")),
        [_] => {}
        [first, second] => {
            let six = |range: &Value| range.as_str().unwrap_or_default().contains(':');
            if six(first) == six(second) {
                errors.push(ranges.invalid(
                    "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ));
            }
        }
        _ => errors.push(ranges.invalid("may only hold up to 2 values")),
    }
    for range in ranges.items() {
        net::canonical_range(errors, &range);
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        return;
    }
    // One range may become two; what is there stays first.
    let (now, before) = (new.get("spec.cidrs"), old.get("spec.cidrs"));
    if now.list().len() < before.list().len() || before.list().len() == 2 {
        now.immutable(errors, &before);
    } else if now.list().first() != before.list().first() {
        errors.push(now.index(0).invalid("field is immutable"));
    }
    if now.value() != before.value() {
        ranges(errors, new);
    }
}
