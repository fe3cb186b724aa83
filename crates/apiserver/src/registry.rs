//! The one registry: create, get, list, watch, update, patch, apply, delete and deletecollection, written once for
//! built-in kinds and custom resources alike.
//!
//! Objects travel as `serde_json::Value` in the version that the store holds; what a request names in another version
//! is converted on the way in and out. Reads of stored objects do not go through a `Value` unless a view, a conversion
//! or a selector asks for it.

pub(crate) mod apply;
pub(crate) mod caches;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod input;
pub(crate) mod list;
pub(crate) mod meta;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod rewrite;
pub(crate) mod scale;
pub(crate) mod select;
pub(crate) mod table;
pub(crate) mod update;
pub(crate) mod watch;

use api::status::Status;
use bytes::Bytes;
use serde_json::Value;
use store::Revision;

use crate::{
    body::Body,
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

/// An object as it was just written (or would have been, in a dry run).
pub(crate) struct Written {
    /// Storage version, with `metadata.resourceVersion`.
    pub(crate) object: Value,
    /// Stored form; `None` when nothing was stored.
    pub(crate) bytes: Option<Bytes>,
    pub(crate) revision: Revision,
}

/// Answers a request on a resource itself, without subresource.
pub(crate) async fn handle(call: &Call, served: &Served, body: Body) -> Answer {
    check_scope(call, served)?;
    let name = call.info.path_name();
    match call.info.verb {
        "get" => get::handle(call, served, name).await,
        "list" => list::handle(call, served).await,
        "watch" => watch::handle(call, served).await,
        "create" => create::handle(call, served, body).await,
        "update" => update::handle(call, served, name, body).await,
        "patch" => patch::handle(call, served, name, body, api::kind::Part::Main).await,
        "delete" => delete::handle(call, served, name, body).await,
        "deletecollection" => delete::handle_collection(call, served, body).await,
        verb => Err(Status::method_not_allowed(served.about(""), verb)),
    }
}

/// Namespaced objects are named inside a namespace, others never are; every verb is one that the resource has.
pub(crate) fn check_scope(call: &Call, served: &Served) -> Result<(), Status> {
    let resource = &served.resource;
    let is_namespace = resource.plural == "namespaces" && resource.group.is_empty();
    let namespace_given = !call.info.namespace.is_empty() && !is_namespace;
    let spans_namespaces = matches!(call.info.verb, "list" | "watch" | "deletecollection");
    if resource.namespaced && !namespace_given && !spans_namespaces {
        // `POST /api/v1/pods` has no handler upstream, and neither has an object without its namespace.
        return Err(match call.info.verb {
            "create" if call.info.path_name().is_empty() => Status::method_not_allowed_on_path(),
            _ => Status::no_such_path(),
        });
    }
    if !resource.namespaced && namespace_given {
        return Err(Status::no_such_path());
    }
    if call.info.subresource.is_empty() {
        let verb = call.info.verb;
        if verb == "create" && !call.info.path_name().is_empty() {
            return Err(Status::method_not_allowed_on_path());
        }
        let watched_by_name = verb == "watch" && resource.verbs.iter().any(|own| own == "watch");
        if !watched_by_name && !resource.verbs.iter().any(|own| own == verb) {
            return Err(Status::method_not_allowed_on_path());
        }
    }
    Ok(())
}

/// A failure of the store, as clients see it.
pub(crate) fn store_failed(error: store::Error) -> Status {
    match error {
        store::Error::Compacted { .. } => {
            Status::expired("The provided resource version is too old: its history has been compacted.")
        }
        store::Error::Future { requested, current } => too_large_revision(requested, current),
        store::Error::DiskFull => {
            tracing::error!("the datastore's disk is full: writes fail until there is room");
            Status::internal("the datastore's disk is full: nothing was written; make room and retry")
        }
        store::Error::Closed => Status::unavailable("the server is shutting down"),
        error => {
            tracing::error!(%error, "datastore request failed");
            Status::internal(error)
        }
    }
}

/// 504 with the cause by which clients recognise a revision that this server has not seen yet.
pub(crate) fn too_large_revision(requested: Revision, current: Revision) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {requested}, current: {current}"));
    status.details = Some(Box::new(api::status::Details {
        causes: vec![api::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..Default::default()
    }));
    status
}
