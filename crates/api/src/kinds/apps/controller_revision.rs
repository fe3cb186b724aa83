//! ControllerRevision: a template as it was; its data never changes.

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    validate: |errors, revision, _| {
        let number = revision.get("revision");
        number.not_negative(errors);
        if !revision.get("data").exists() {
            errors.push(revision.get("data").required("data is mandatory"));
        }
    },
    validate_update: Some(|errors, new, old, _| {
        new.get("revision").not_negative(errors);
        new.get("data").immutable(errors, &old.get("data"));
    }),
    row: Some(|revision, now| {
        let owners = walk(revision, "metadata.ownerReferences").as_array();
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true).map(|owner| {
            let group =
                owner.text("apiVersion").rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
            format!("{}{group}/{}", owner.text("kind").to_lowercase(), owner.text("name"))
        });
        vec![
            cells::name(revision),
            cells::or_none(&controller.unwrap_or_default()),
            cells::count(revision, "revision").into(),
            cells::age(revision, now),
        ]
    }),
    ..Kind::PLAIN
};
