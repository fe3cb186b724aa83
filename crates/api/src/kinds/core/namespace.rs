//! Namespace: carries the `kubernetes` finalizer until its content is gone.

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        names,
    },
};

/// Label that every namespace has, with its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    name: names::label_name,
    default,
    empty_status: || json!({"phase": "Active"}),
    create: |namespace, _| {
        default(namespace);
        let finalizers = namespace.member("spec").member("finalizers");
        match finalizers {
            Value::Array(present) if present.iter().any(|finalizer| finalizer == FINALIZER) => {}
            Value::Array(present) => present.push(FINALIZER.into()),
            absent => *absent = json!([FINALIZER]),
        }
    },
    update: |new, old, cx| match cx.part {
        Part::Main => keep(new.member("spec"), &old["spec"], "finalizers"),
        Part::Status => {}
        Part::Other(_) => keep(new, old, "status"),
    },
    validate: |errors, namespace, _| finalizers(errors, namespace, false),
    validate_update: Some(validate_update),
    fields: &["status.phase"],
    row: Some(|namespace, now| {
        vec![cells::name(namespace), walk(namespace, "status.phase").clone(), cells::age(namespace, now)]
    }),
    ..Kind::PLAIN
};

fn default(namespace: &mut Value) {
    let name = walk(namespace, "metadata.name").clone();
    if name.as_str().is_some_and(|name| !name.is_empty()) {
        namespace.member("metadata").member("labels").set(NAME_LABEL, name);
    }
    namespace.object("spec");
}

fn finalizers(errors: &mut Errors, namespace: &Field<'_>, indexed: bool) {
    let finalizers = &namespace.get("spec.finalizers");
    for finalizer in finalizers.items() {
        let at = if indexed { &finalizer } else { finalizers };
        let mut messages = names::qualified_name(finalizer.str());
        if messages.is_empty()
            && !finalizer.str().contains('/')
            && !matches!(finalizer.str(), FINALIZER | "orphan" | "foregroundDeletion")
        {
            messages.push("name is neither a standard finalizer name nor is it fully qualified".into());
        }
        errors.extend(messages.into_iter().map(|message| at.invalid_value(finalizer.str(), message)));
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, _old: &Field<'_>, cx: &Context<'_>) {
    match cx.part {
        Part::Status => {
            let deleted = new.get("metadata.deletionTimestamp").exists();
            let phase = &Field::at(walk(new.value(), "status.phase"), "status.Phase");
            if !deleted && phase.str() != "Active" {
                errors.push(phase.invalid("may only be 'Active' if `deletionTimestamp` is empty"));
            }
            if deleted && phase.str() != "Terminating" {
                errors.push(phase.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty"));
            }
        }
        Part::Other("finalize") => finalizers(errors, new, true),
        Part::Main | Part::Other(_) => finalizers(errors, new, false),
    }
}
