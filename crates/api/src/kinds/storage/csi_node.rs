//! CSINode: the drivers that run on a node.

use crate::{
    kind::Context,
    kinds::{
        access::{Members, keep},
        builtin::Kind,
        cells,
    },
    status::FieldError,
    validation::{
        field::{Errors, Field, same, walk},
        names,
    },
};

pub(crate) static KIND: Kind = Kind {
    validate: |errors, node, _| validate(errors, &node.get("spec.drivers")),
    validate_update: Some(validate_update),
    row: Some(|node, now| {
        let drivers = walk(node, "spec.drivers").as_array().map_or(0, Vec::len);
        vec![cells::name(node), drivers.into(), cells::age(node, now)]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

const NODE_ID_MAX: usize = 256;

fn validate(errors: &mut Errors, drivers: &Field<'_>) {
    for (index, driver) in drivers.items().enumerate() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        driver_name(errors, &name);
        match id.str() {
            "" => errors.push(id.required("")),
            text if text.len() > NODE_ID_MAX => {
                errors.push(id.invalid(format!("must be {NODE_ID_MAX} characters or less")));
            }
            _ => {}
        }
        driver.get("allocatable.count").not_negative(errors);
        if drivers.list()[..index].iter().any(|other| other.text("name") == name.str()) {
            errors.push(name.duplicate());
        }
        let keys = driver.get("topologyKeys");
        for (index, key) in keys.list().iter().enumerate() {
            let text = key.as_str().unwrap_or_default();
            if text.is_empty() {
                errors.push(driver.required(""));
            }
            if keys.list()[..index].contains(key) {
                errors.push(FieldError::duplicate(driver.path(), text));
            }
            errors.extend(names::qualified_name(text).into_iter().map(|message| driver.invalid_value(text, message)));
        }
    }
}

/// A CSI driver's name: a subdomain in any case, of at most 63 characters.
pub(super) fn driver_name(errors: &mut Errors, name: &Field<'_>) {
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    if name.str().len() > 63 {
        errors.push(name.too_long(63));
    }
    name.judge(errors, names::dns_subdomain(&name.str().to_lowercase()));
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, _cx: &Context<'_>) {
    let drivers = new.get("spec.drivers");
    validate(errors, &drivers);
    for before in old.get("spec.drivers").list() {
        let Some(now) = drivers.list().iter().find(|driver| driver["name"] == before["name"]) else { continue };
        let mut now = now.clone();
        keep(&mut now, before, "allocatable");
        if !same(&now, before) {
            errors.push(drivers.invalid_value(now, "field is immutable"));
        }
    }
}
