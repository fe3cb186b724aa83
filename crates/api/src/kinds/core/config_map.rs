//! ConfigMap: text and bytes by key; immutable when it says so.

use serde_json::Value;

use crate::{
    kind::Context,
    kinds::{builtin::Kind, cells},
    validation::{
        field::{Errors, Field},
        names,
    },
};

/// Bytes that the values of one ConfigMap or Secret may hold.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;

pub(crate) static KIND: Kind = Kind {
    validate: |errors, object, _| validate(errors, object),
    validate_update: Some(validate_update),
    row: Some(|object, now| {
        let keys = |name: &str| object[name].as_object().map_or(0, |data| data.len());
        vec![cells::name(object), (keys("data") + keys("binaryData")).into(), cells::age(object, now)]
    }),
    ..Kind::PLAIN
};

fn validate(errors: &mut Errors, object: &Field<'_>) {
    let (data, binary) = (&object.get("data"), &object.get("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        errors.extend(names::config_key(key).into_iter().map(|message| value.invalid_value(key, message)));
        if binary.key(key).exists() {
            errors.push(value.invalid_value(key, "duplicate of key present in binaryData"));
        }
        bytes += value.str().len();
    }
    for (key, value) in binary.entries() {
        errors.extend(names::config_key(key).into_iter().map(|message| value.invalid_value(key, message)));
        bytes += decoded_length(value.value());
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(Field::at(&Value::Null, "").too_long(DATA_BYTES_MAX));
    }
}

/// Bytes behind a base64 text, without decoding it.
pub(super) fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take(2).filter(|byte| *byte == b'=').count().min(text.len() / 4 * 3)
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, _cx: &Context<'_>) {
    if old.get("immutable").is_true() {
        frozen(errors, new, old, &["data", "binaryData"]);
    }
    validate(errors, new);
}

/// Refuses every change of an object that was marked immutable, the mark's own removal included.
pub(super) fn frozen(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, members: &[&str]) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if !new.get("immutable").is_true() {
        errors.push(new.get("immutable").forbidden(WHY));
    }
    for name in members {
        if !crate::validation::field::same(new.get(name).value(), old.get(name).value()) {
            errors.push(new.get(name).forbidden(WHY));
        }
    }
}
