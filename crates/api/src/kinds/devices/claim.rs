//! ResourceClaim and ResourceClaimTemplate: a wish for devices, and what it got.

use serde_json::{Value, json};

use super::validate;
use crate::{
    kind::{Context, Part},
    kinds::{
        access::Members,
        builtin::{Kind, RESET_FOR_STATUS, Shape},
        cells,
    },
    validation::field::walk,
};

pub(crate) static CLAIM: Kind = Kind {
    shape: Shape { status_keeps: RESET_FOR_STATUS, ..Shape::STATUS },
    default: |claim| {
        default_spec(claim.member("spec"));
        if let Some(allocation) = claim.member("status").existing("allocation")
            && let Some(devices) = allocation.existing("devices")
        {
            default_tolerations(devices, "results");
        }
    },
    update,
    validate: |errors, claim, _| validate::devices(errors, &claim.get("spec.devices")),
    validate_update: Some(|errors, new, old, cx| {
        if cx.part == Part::Main {
            new.get("spec").immutable(errors, &old.get("spec"));
        }
    }),
    row: Some(|claim, now| vec![cells::name(claim), state(claim).into(), cells::age(claim, now)]),
    ..Kind::PLAIN
};

pub(crate) static TEMPLATE: Kind = Kind {
    default: |template| {
        let spec = template.member("spec");
        spec.object("metadata");
        default_spec(spec.member("spec"));
    },
    validate: |errors, template, _| validate::devices(errors, &template.get("spec.spec.devices")),
    validate_update: Some(|errors, new, old, _| {
        new.get("spec").immutable(errors, &old.get("spec"));
    }),
    row: Some(|template, now| vec![cells::name(template), cells::age(template, now)]),
    ..Kind::PLAIN
};

fn default_spec(spec: &mut Value) {
    let devices = spec.member("devices");
    if !devices.is_object() {
        *devices = json!({});
    }
    for request in devices.each("requests") {
        if let Some(exact) = request.existing("exactly") {
            default_request(exact);
        }
        for sub in request.each("firstAvailable") {
            default_request(sub);
        }
    }
}

fn default_request(request: &mut Value) {
    request.fill("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        request.fill_zero("count", 1);
    }
    for toleration in request.each("tolerations") {
        toleration.fill("operator", "Equal");
    }
}

fn default_tolerations(devices: &mut Value, list: &str) {
    for toleration in devices.each(list).flat_map(|result| result.each("tolerations")) {
        toleration.fill("operator", "Equal");
    }
}

/// Statuses of devices that are no longer allocated go with the allocation.
fn update(new: &mut Value, old: &Value, cx: &Context<'_>) {
    if cx.part != Part::Status || walk(old, "status.devices").is_null() {
        return;
    }
    let key = |device: &Value| ["driver", "pool", "device"].map(|name| device.text(name).to_string());
    let results = |claim: &Value| -> Vec<[String; 3]> {
        walk(claim, "status.allocation.devices.results").as_array().into_iter().flatten().map(key).collect()
    };
    let (before, after) = (results(old), results(new));
    let gone: Vec<[String; 3]> = before.into_iter().filter(|device| !after.contains(device)).collect();
    let status = new.member("status");
    if let Some(Value::Array(devices)) = status.get_mut("devices") {
        devices.retain(|device| !gone.contains(&key(device)));
        if devices.is_empty() {
            status.drop_member("devices");
        }
    }
}

fn state(claim: &Value) -> String {
    let mut states = Vec::new();
    let deleted = !walk(claim, "metadata.deletionTimestamp").is_null();
    if deleted {
        states.push("deleted");
    }
    if !walk(claim, "status.allocation").is_null() {
        states.push("allocated");
        if walk(claim, "status.reservedFor").as_array().is_some_and(|list| !list.is_empty()) {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}
