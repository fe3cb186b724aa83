//! CertificateSigningRequest: asks a signer for a certificate; approved or denied by others than its author.

mod validate;

use jiff::SignedDuration;
use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells,
    },
    time,
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    name: |_, _| Vec::new(),
    create,
    update,
    validate: |errors, request, _| validate::request(errors, request),
    validate_update: Some(validate::update),
    fields: &["spec.signerName"],
    row: Some(row),
    ..Kind::PLAIN
};

/// Who asks is who sent the request, whatever the object says.
fn create(request: &mut Value, cx: &Context<'_>) {
    let spec = request.member("spec");
    for name in ["username", "uid", "groups", "extra"] {
        spec.drop_member(name);
    }
    if !cx.user.is_empty() {
        spec.set("username", cx.user);
    }
    if !cx.groups.is_empty() {
        spec.set("groups", cx.groups.to_vec());
    }
}

fn update(new: &mut Value, old: &Value, cx: &Context<'_>) {
    keep(new, old, "spec");
    match cx.part {
        Part::Main => {}
        Part::Status => {
            // Decisions are the approval subresource's. Those added or taken away are for validation to refuse.
            let mut list: Vec<Value> = conditions(new).cloned().collect();
            for kind in ["Approved", "Denied"] {
                let before: Vec<&Value> = conditions(old).filter(|condition| condition["type"] == kind).collect();
                let now: Vec<&mut Value> = list.iter_mut().filter(|condition| condition["type"] == kind).collect();
                if now.len() == before.len() {
                    now.into_iter().zip(before).for_each(|(now, before)| *now = before.clone());
                }
            }
            set_conditions(new, old, list, cx.now);
        }
        Part::Other(_) => {
            let list = conditions(new).cloned().collect();
            keep(new, old, "status");
            set_conditions(new, old, list, cx.now);
        }
    }
}

fn conditions(request: &Value) -> impl Iterator<Item = &Value> {
    walk(request, "status.conditions").as_array().into_iter().flatten()
}

/// Writes conditions with their times: the change of status, and the last update.
fn set_conditions(request: &mut Value, old: &Value, mut list: Vec<Value>, now: &str) {
    for condition in &mut list {
        condition.fill("lastUpdateTime", now);
        if condition["lastTransitionTime"].is_null() {
            let same = conditions(old).find(|old| {
                old.text("type") == condition.text("type") && old.text("status") == condition.text("status")
            });
            let time = same.map_or(Value::from(now), |old| old["lastTransitionTime"].clone());
            condition.set("lastTransitionTime", time);
        }
    }
    if list.is_empty() {
        request.member("status").drop_member("conditions");
    } else {
        request.member("status").set("conditions", list);
    }
}

fn row(request: &Value, now: &str) -> Vec<Value> {
    let spec = &request["spec"];
    let has = |kind: &str| conditions(request).any(|condition| condition.text("type") == kind);
    let mut state = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_string();
    if has("Failed") {
        state += ",Failed";
    }
    if !request["status"].text("certificate").is_empty() {
        state += ",Issued";
    }
    let duration = spec["expirationSeconds"].as_i64().map(|seconds| time::human(SignedDuration::from_secs(seconds)));
    vec![
        cells::name(request),
        cells::age(request, now),
        cells::or_none(spec.text("signerName")),
        spec.text("username").into(),
        cells::or_none(&duration.unwrap_or_default()),
        state.into(),
    ]
}
