//! Taints of nodes and the effects that tolerations share with them.

use super::{
    field::{Errors, Field},
    names,
};

/// The effects a taint can have.
pub const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The taints of a Node: named keys, known effects, no pair of key and effect twice.
pub fn of_node(errors: &mut Errors, taints: &Field<'_>) {
    for (index, taint) in taints.items().enumerate() {
        let key = taint.get("key");
        key.judge(errors, names::qualified_name(key.str()));
        let value = taint.get("value");
        value.judge(errors, names::label_value(value.str()));
        effect(errors, &taint.get("effect"), false);
        let same = |other: &serde_json::Value| {
            other["key"] == taint.value()["key"] && other["effect"] == taint.value()["effect"]
        };
        if taints.list()[..index].iter().any(same) {
            let mut error = taint.duplicate();
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

/// A taint's effect; `empty_fine` for tolerations, where none means all.
pub fn effect(errors: &mut Errors, effect: &Field<'_>, empty_fine: bool) {
    if effect.str().is_empty() {
        if !empty_fine {
            errors.push(effect.required(""));
        }
        return;
    }
    effect.one_of(errors, EFFECTS);
}
