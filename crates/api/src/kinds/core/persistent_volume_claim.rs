//! PersistentVolumeClaim: a pod's wish for storage.

use serde_json::{Value, json};

use super::persistent_volume::{class, phase};
use crate::{
    kind::{Context, Part},
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    default,
    empty_status: || json!({"phase": "Pending"}),
    create: |claim, _| {
        align_sources(claim.member("spec"));
    },
    update: |new, _, cx: &Context<'_>| {
        if cx.part == Part::Main {
            align_sources(new.member("spec"));
        }
    },
    row: Some(|claim, now| {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let bound = !spec.text("volumeName").is_empty();
        let when_bound = |value: Value| if bound { value } else { "".into() };
        vec![
            cells::name(claim),
            phase(claim),
            spec.text("volumeName").into(),
            when_bound(cells::quantity(walk(status, "capacity.storage"))),
            when_bound(cells::access_modes(&status["accessModes"])),
            class(claim),
            cells::or_unset(&spec["volumeAttributesClassName"]),
            cells::age(claim, now),
            cells::or_unset(&spec["volumeMode"]),
        ]
    }),
    ..Kind::PLAIN
};

/// Also for the claim templates of a StatefulSet.
pub(crate) fn default(claim: &mut Value) {
    claim.member("status").fill("phase", "Pending");
    let spec = claim.member("spec");
    spec.fill("volumeMode", "Filesystem");
    spec.object("resources");
}

/// `dataSource` and `dataSourceRef` say the same: one that is given alone is copied to the other, unless the reference
/// names a namespace, which the old field cannot.
fn align_sources(spec: &mut Value) {
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    match (source.is_null(), reference.is_null()) {
        (false, true) => spec.set("dataSourceRef", source),
        (true, false) if reference.text("namespace").is_empty() => spec.set("dataSource", reference),
        _ => {}
    }
}
