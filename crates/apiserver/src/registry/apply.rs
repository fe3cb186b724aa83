//! Server-side apply: the client says which fields it wants, the server remembers who wanted what.

use api::{
    apply::{self, Request},
    codec::Encoding,
    kind::Part,
    schema::TypeRef,
    status::{About, FieldError, Status},
};
use serde_json::Value;

use super::{
    input, meta, options, output,
    update::{self, Changed, Ownership, Update},
};
use crate::{
    body::Body,
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

/// PATCH with an apply configuration: of an object, which may not exist yet, or of one of its parts.
pub(crate) async fn handle(call: &Call, served: &Served, name: &str, body: Body, part: Part, dry_run: bool) -> Answer {
    let Some(manager) = call.query.text("fieldManager").map(str::to_string) else {
        let about = About { group: "meta.k8s.io", resource: "PatchOptions", name: "" };
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid(about, vec![error]));
    };
    let validation = options::field_validation(call, "PatchOptions")?;
    let bytes = input::read(call, body).await?;
    let (kind, version) = (&served.resource.kind, &served.version().name);
    // Unknown fields are apply's to judge; here only duplicates show.
    let decoded = api::codec::decode(&bytes, Encoding::Yaml, TypeRef::deduced(), kind, version)
        .map_err(|status| Status::bad_request(format!("error decoding YAML: {}", status.message)))?;
    input::report(call, validation, decoded.problems, kind, version)?;
    let mut config = decoded.object;
    complete(call, served, &mut config, name)?;

    let api_version = served.api_version();
    let request = Request {
        manager: &manager,
        api_version: &api_version,
        subresource: &call.info.subresource,
        now: &call.now,
        force: call.query.flag("force"),
        reset: apply::reset_fields(&call.info.subresource, served.subresource("status").is_some()),
    };
    let update =
        Update { call, served, namespace: &call.info.namespace, name, part, dry_run, create: part == Part::Main };
    let mut change = |current: Option<&Value>| {
        let mut object = apply::apply(served.schema(), current, &config, &request)?;
        // Only a revision that the configuration names is insisted on.
        if meta::text(&config, "resourceVersion").is_empty() {
            meta::of(&mut object).remove("resourceVersion");
        }
        Ok(Changed { object, ownership: Ownership::Done })
    };
    let (written, created) = update::run(&update, &mut change).await?;
    output::written(call, served, if created { 201 } else { 200 }, written)
}

/// Fills in what the path says already, and refuses what contradicts it.
fn complete(call: &Call, served: &Served, config: &mut Value, name: &str) -> Result<(), Status> {
    let kind = config["kind"].as_str().unwrap_or_default().to_string();
    if kind != served.resource.kind {
        return Err(Status::bad_request(format!(
            "invalid object type: /{}, Kind={kind}",
            config["apiVersion"].as_str().unwrap_or_default()
        )));
    }
    let given = meta::name(config).to_string();
    if given.is_empty() {
        meta::of(config).insert("name".into(), name.into());
    } else if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    meta::check_namespace(served, config, &call.info.namespace)
}

/// Options of a patch that is no apply may not force anything.
pub(crate) fn check_not_forced(call: &Call) -> Result<(), Status> {
    if call.query.get("force").is_none() {
        return Ok(());
    }
    let about = About { group: "meta.k8s.io", resource: "PatchOptions", name: "" };
    Err(Status::invalid(about, vec![FieldError::forbidden("force", "may not be specified for non-apply patch")]))
}
