//! `patch`: JSON patch, merge patch and strategic merge patch. Server-side apply is [`super::apply`]'s.

use api::{
    kind::Part,
    patch::{Kind, Patch, Patched},
    status::Status,
};
use serde_json::Value;

use super::{
    apply, input, meta,
    options::{self, FieldValidation},
    output,
    update::{self, Changed, Ownership, Update},
};
use crate::{
    body::Body,
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

/// The patch that the request's content type announces; `None`: server-side apply.
pub(crate) fn kind(call: &Call, served: &Served) -> Result<Option<Kind>, Status> {
    match input::media_type(call) {
        "application/json-patch+json" => Ok(Some(Kind::Json)),
        "application/merge-patch+json" => Ok(Some(Kind::Merge)),
        "application/strategic-merge-patch+json" if !served.is_custom() => Ok(Some(Kind::Strategic)),
        "application/apply-patch+yaml" => Ok(None),
        _ => {
            let mut accepted = vec!["application/json-patch+json", "application/merge-patch+json"];
            if !served.is_custom() {
                accepted.push("application/strategic-merge-patch+json");
            }
            accepted.push("application/apply-patch+yaml");
            Err(Status::unsupported_media_type(&accepted.join(", ")))
        }
    }
}

/// PATCH of an object or of one of its parts.
pub(crate) async fn handle(call: &Call, served: &Served, name: &str, body: Body, part: Part) -> Answer {
    call.negotiate(output::offer(served))?;
    let dry_run = options::dry_run(&call.query, "PatchOptions")?;
    let Some(kind) = kind(call, served)? else {
        return apply::handle(call, served, name, body, part, dry_run).await;
    };
    apply::check_not_forced(call)?;
    let validation = options::field_validation(call, "PatchOptions")?;
    let bytes = input::read(call, body).await?;
    let patch = Patch::parse(kind, &bytes)?;
    let update = Update { call, served, namespace: &call.info.namespace, name, part, dry_run, create: false };
    let mut change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(served.about(name)))?;
        let patched = patch.apply(current, served.schema())?;
        minded(call, validation, &patched)?;
        let mut object = patched.object;
        meta::check_type(&mut object, &served.api_version(), &served.resource.kind)?;
        check_identity(current, &object, name)?;
        // A patch that does not name a revision does not insist on one.
        let given = meta::text(&object, "resourceVersion");
        if given == meta::text(current, "resourceVersion") && !mentions_revision(&bytes) {
            meta::of(&mut object).remove("resourceVersion");
        }
        Ok(Changed { object, ownership: Ownership::Track })
    };
    let (written, created) = update::run(&update, &mut change).await?;
    output::written(call, served, if created { 201 } else { 200 }, written)
}

/// Warns about or refuses what a strict reader minds.
fn minded(call: &Call, validation: FieldValidation, patched: &Patched) -> Result<(), Status> {
    match validation {
        FieldValidation::Strict if !patched.problems.is_empty() => Err(patched.strict_error()),
        FieldValidation::Warn => {
            patched.problems.iter().for_each(|problem| call.warn(problem.clone()));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether the patch may name a revision: when it does, the write insists on it.
fn mentions_revision(patch: &[u8]) -> bool {
    const NAME: &[u8] = b"resourceVersion";
    patch.windows(NAME.len()).any(|window| window == NAME)
}

/// A patch cannot rename an object or move it.
fn check_identity(current: &Value, object: &Value, name: &str) -> Result<(), Status> {
    let given = meta::name(object);
    if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let (old, new) = (meta::namespace(current), meta::namespace(object));
    if old != new {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({new}) does not match the namespace on the request ({old})"
        )));
    }
    Ok(())
}
