//! Who owns which field: server-side apply, and the ownership that all other writes leave behind.
//!
//! `metadata.managedFields` has one entry for each manager, operation and subresource, with the [`Set`] of fields that
//! it owns. [`track_update`] gives a writer the fields that it changed and takes them from everybody else; [`apply`]
//! merges a configuration into an object, refuses to change what others own unless forced, and removes what the manager
//! applied before and no longer does. (KEP-555; the format is `FieldsV1`.)
//!
//! Entries of other versions of the kind are judged by the same paths: versions of built-in kinds share theirs.

use serde_json::{Map, Value};

use crate::{
    codec,
    schema::{Schema, TypeRef},
    status::Status,
};

mod compare;
mod conflict;
mod managed;
mod merge;
mod prune;
mod set;
mod validate;
mod walk;

pub use managed::{Entry, Managed};
pub use set::Set;

use compare::Comparison;
use walk::Node;

/// Update managers beyond this many are merged, oldest first.
const MOST_UPDATERS: usize = 10;
/// The owner of everything that was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Metadata that nobody owns.
const STRIPPED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// What a write says about itself.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The field manager; see [`manager_of`].
    pub manager: &'a str,
    /// Group and version of the request: `apps/v1`, `v1`.
    pub api_version: &'a str,
    /// `status`, `scale`, ...; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, whole seconds.
    pub now: &'a str,
    /// Apply only: takes the fields that others own.
    pub force: bool,
    /// Dotted paths that the endpoint does not let a client set, see [`reset_fields`].
    pub reset: &'a [&'a str],
}

/// The field manager that a request without one has: the first part of its user agent, at most 128 bytes.
pub fn manager_of(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let mut end = name.len().min(128);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_string()
}

/// What a write to the object, or to its `status`, cannot set, for kinds with a status subresource.
pub fn reset_fields(subresource: &str, has_status: bool) -> &'static [&'static str] {
    match subresource {
        "" if has_status => &["status"],
        "status" => &["spec"],
        _ => &[],
    }
}

/// Records an update or create: `new` gets the managed fields that follow from what `live` was.
///
/// What `new` carries as `managedFields` counts as upstream has it: `[]` and `[{}]` drop all entries, nothing and what
/// cannot be read mean the live ones.
pub fn track_update(of: TypeRef<'_>, live: Option<&Value>, new: &mut Value, request: &Request<'_>) {
    let given = take_managed_fields(new);
    let live_fields = live.and_then(|live| live.get("metadata")?.get("managedFields"));
    let reset = request.subresource.is_empty() && given.as_ref().is_some_and(is_reset);
    if !reset && live_fields.is_none() && live.is_some() && given.is_none() {
        return;
    }
    let nothing = empty();
    let comparison = compare::compare(Node::root(of), live.unwrap_or(&nothing), new).without(request.reset);
    let given =
        given.filter(|given| request.subresource.is_empty() && given.as_array().is_some_and(|all| !all.is_empty()));
    if comparison.is_same() && !reset && given.as_ref().is_none_or(|given| Some(given) == live_fields) {
        put_managed_fields(new, live_fields.cloned());
        return;
    }
    let mut managed = if reset {
        Managed::default()
    } else {
        given
            .as_ref()
            .and_then(|given| Managed::decode(given).ok())
            .filter(|managed| !managed.entries.is_empty())
            .or_else(|| live_fields.and_then(|live| Managed::decode(live).ok()))
            .unwrap_or_default()
    };
    if managed.entries.is_empty() && live.is_some() {
        return;
    }
    record(&mut managed, comparison, request);
    managed.cap(MOST_UPDATERS);
    put_managed_fields(new, managed.encode());
}

/// Gives the changed fields to the request's manager and takes them from all others.
fn record(managed: &mut Managed, comparison: Comparison, request: &Request<'_>) {
    let Comparison { removed, mut changed } = comparison;
    for entry in &mut managed.entries {
        entry.set.subtract(&changed);
        entry.set.subtract(&removed);
    }
    managed.entries.retain(|entry| !entry.set.is_empty());
    strip(&mut changed);
    if changed.is_empty() {
        return;
    }
    let entry = managed.update_entry(request);
    entry.set.unite(&changed);
    entry.time = Some(request.now.to_string());
}

fn strip(set: &mut Set) {
    let mut stripped = Set::default();
    for path in STRIPPED {
        stripped.insert_dotted(path);
    }
    set.subtract(&stripped);
}

/// Applies a configuration to an object (`None`: there is none yet) and returns the object as it should be, with its
/// managed fields. `live` and `config` are in the request's version.
///
/// # Errors
/// 409 with a cause for each field that another manager owns, 400 for a configuration of another version or with
/// managed fields, 500 (as upstream) for one that does not fit the schema.
pub fn apply(of: TypeRef<'_>, live: Option<&Value>, config: &Value, request: &Request<'_>) -> Result<Value, Status> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != request.api_version {
        return Err(Status::bad_request(format!("invalid object type: {}", kind_of(config))));
    }
    if config.get("metadata").and_then(|metadata| metadata.get("managedFields")).is_some_and(|given| !given.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let root = Node::root(of);
    validate::check(root, config).map_err(|why| {
        Status::failure(500, "", format!("failed to create typed patch object ({}): {why}", named(config)))
    })?;
    // Values in the form in which they are stored: `cpu: 1` is no change of `cpu: "1"`.
    let config = &codec::conform(config.clone(), of)
        .map_err(|why| Status::bad_request(format!("failed to create typed patch object ({}): {why}", named(config))))?
        .object;
    let live_fields = live.and_then(|live| live.get("metadata")?.get("managedFields"));
    let mut managed = match live_fields {
        Some(fields) => Managed::decode(fields)
            .map_err(|why| Status::failure(500, "", format!("failed to decode managed fields: {why}")))?,
        None => Managed::default(),
    };
    let nothing = empty();
    let mut before = live.cloned().unwrap_or_else(|| nothing.clone());
    take_managed_fields(&mut before);
    if managed.entries.is_empty() && live.is_some() {
        let all = compare::compare(root, &nothing, &before).without(request.reset);
        record(&mut managed, all, &Request { manager: BEFORE_FIRST_APPLY, ..*request });
    }

    let mut merged = merge::merge(root, &before, config)
        .map_err(|why| Status::failure(500, "", format!("failed to merge config: {why}")))?;
    let mut set = walk::field_set(root, config);
    for path in request.reset {
        set.subtract_below(path);
    }
    let own = managed.apply_entry(request);
    let last = std::mem::replace(&mut own.set, set);
    own.api_version = request.api_version.to_string();
    if !last.is_empty() {
        merged = prune::prune(root, merged, &managed, &last);
    }
    let comparison = compare::compare(root, &before, &merged);
    let is_same = merged == before;
    let comparison = comparison.without(request.reset);
    let conflicts = managed.conflicts(request, &comparison.changed);
    if !conflicts.is_empty() && !request.force {
        let allowed =
            if request.manager == "kubectl" { last_applied_set(root, &before, request) } else { Set::default() };
        let conflicts = conflict::without(conflicts, &allowed);
        if !conflicts.is_empty() {
            return Err(conflict::status(&conflicts));
        }
    }
    for entry in managed.others(request) {
        entry.set.subtract(&comparison.changed);
        entry.set.subtract(&comparison.removed);
    }
    let own = managed.apply_entry(request);
    strip(&mut own.set);
    if !is_same || live.is_none() {
        own.time = Some(request.now.to_string());
    }
    managed.entries.retain(|entry| !entry.set.is_empty());
    let mut result = if is_same && live.is_some() { before } else { merged };
    if request.manager == "kubectl" {
        refresh_last_applied(&mut result, config);
    }
    put_managed_fields(&mut result, managed.encode());
    Ok(result)
}

/// What client-side apply owned and nobody changed since: server-side apply by kubectl may take it over.
fn last_applied_set(root: Node<'_>, live: &Value, request: &Request<'_>) -> Set {
    let read = || -> Option<Set> {
        let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
        let config: Value = serde_json::from_str(text).ok()?;
        if config.get("apiVersion")?.as_str()? != request.api_version {
            return None;
        }
        let mut set = walk::field_set(root, &config);
        let comparison = compare::compare(root, &config, live);
        set.subtract(&comparison.changed);
        set.subtract(&comparison.removed);
        Some(set)
    };
    read().unwrap_or_default()
}

/// Keeps kubectl's annotation in step, for clients that go back to client-side apply.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    let Some(place) = object.pointer_mut("/metadata/annotations") else { return };
    let Some(Value::String(text)) = place.get_mut(LAST_APPLIED) else { return };
    if text.is_empty() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    *text = format!("{config}\n");
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// `namespace/name; group/version, Kind=kind`, as upstream names objects in these errors.
fn named(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}; {}", text("/metadata/namespace"), text("/metadata/name"), kind_of(object))
}

fn kind_of(object: &Value) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(|fields| !fields.is_null())
}

fn put_managed_fields(object: &mut Value, fields: Option<Value>) {
    if let (Some(Value::Object(metadata)), Some(fields)) = (object.get_mut("metadata"), fields) {
        metadata.insert("managedFields".into(), fields);
    }
}

/// The type of a built-in kind's objects, or one that is deduced for names that the table does not have.
pub fn type_of(definition: &str) -> TypeRef<'static> {
    Schema::builtin().find(definition).unwrap_or_else(TypeRef::deduced)
}

#[cfg(test)]
mod tests;
