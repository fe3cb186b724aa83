//! What the generic registry knows of a resource: names, versions, schema and hooks.
//!
//! A built-in kind is one file under `kinds/` that implements [`Hooks`] and a line in `kinds::KINDS`; a custom resource
//! is the same [`Resource`] built from its definition at run time, with hooks driven by its schema.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    schema::{Schema, TypeRef},
    status::FieldError,
};

/// One resource of a group with all versions it is served in.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Plural, lower case: the path segment.
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: Vec<String>,
    /// Served versions, preferred first; exactly one is the storage version.
    pub versions: Vec<Version>,
    pub hooks: Arc<dyn Hooks>,
}

impl Resource {
    /// The type of the objects of a version, which decoding, patches and server-side apply walk.
    pub fn type_of(&self, version: &Version) -> TypeRef<'_> {
        match Schema::builtin().find(&version.definition) {
            Some(of) => of,
            None => self.hooks.schema(&version.name).unwrap_or_else(|| TypeRef::deduced()),
        }
    }
}

/// One version of a resource.
#[derive(Clone)]
pub struct Version {
    /// `v1`, `v2beta1`, ...
    pub name: String,
    /// Objects are converted to the storage version before they are encoded.
    pub storage: bool,
    /// Definition name of the object in the schema tables (`io.k8s.api.core.v1.Pod`); empty for custom resources.
    pub definition: String,
    pub subresources: Vec<Subresource>,
    /// Set for deprecated versions: sent as a `Warning` header.
    pub deprecation_warning: Option<String>,
}

/// A subresource as discovery shows it.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `log`, `exec`, ...
    pub name: String,
    /// Group, version, kind of what it reads and writes; empty group and version mean the parent's.
    pub response: (String, String, String),
    pub verbs: Vec<String>,
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but what the strategy protects (status, for kinds that have the subresource).
    Main,
    /// `status` (and what upstream's status strategy allows beside it).
    Status,
    /// Another subresource that updates the object: `resize`, `ephemeralcontainers`, `approval`, `finalize`, ...
    Other(&'static str),
}

/// What a hook may know about the request. No clock: `now` is an argument.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// RFC 3339, whole seconds, `Z`.
    pub now: &'a str,
    pub user: &'a str,
    pub groups: &'a [String],
    /// Version in which the request came.
    pub version: &'a str,
    pub part: Part,
}

/// Typed behaviour of one kind. Every method has the default of a kind without any.
///
/// All methods but [`Hooks::convert`] see objects in the storage version (of the shared storage, where there is one).
///
/// Generic metadata (name, namespace, labels, uid, timestamps, generation, finalizers, managedFields) is the registry's;
/// hooks see objects after it was filled in and must not touch it, but for `generation` where upstream does.
pub trait Hooks: Send + Sync {
    /// Fills defaults, after decode, patch and apply. Must be idempotent.
    fn default(&self, _object: &mut Value, _cx: &Context<'_>) {}

    /// Before create: drops what a client may not set (status), sets `generation` where the kind has one.
    ///
    /// Must be idempotent: it is called again when admission changed the object or a name was generated.
    fn prepare_create(&self, object: &mut Value, _cx: &Context<'_>);

    /// Before update: keeps the parts that `cx.part` may not change, bumps `generation` when the spec changed.
    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context<'_>);

    /// Field errors of a new object (object metadata is validated by the registry with [`Hooks::validate_name`]).
    fn validate(&self, _object: &Value, _cx: &Context<'_>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Field errors of an update, immutability included. Called instead of `validate`.
    fn validate_update(&self, new: &Value, _old: &Value, cx: &Context<'_>) -> Vec<FieldError> {
        self.validate(new, cx)
    }

    /// Why `name` is no name for this kind: messages, empty when it is fine. Default: DNS-1123 subdomain.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String>;

    /// Texts for `Warning` headers of a create or update.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Selectable fields beyond `metadata.name` and `metadata.namespace`.
    fn fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Names of the selectable fields that [`Hooks::fields`] gives (a selector on another one is a 400).
    fn field_names(&self) -> &[&'static str] {
        &[]
    }

    /// Table cells, in the order of the resource's columns. `now` for ages. `None`: Name and Age only.
    fn row(&self, _object: &Value, _now: &str) -> Option<Vec<Value>> {
        None
    }

    /// Column definitions of a version's tables, where the column table does not have them (custom resources).
    fn columns(&self, _version: &str) -> Option<Vec<Value>> {
        None
    }

    /// The schema of a version of a custom resource; built-in kinds have theirs in the table. See [`Resource::type_of`].
    fn schema(&self, _version: &str) -> Option<TypeRef<'_>> {
        None
    }

    /// Converts between served versions in place; `apiVersion` is set by the caller.
    fn convert(&self, _object: &mut Value, _from: &str, _to: &str) -> Result<(), String> {
        Ok(())
    }

    /// Where objects of this kind are kept when another group's resource of the same plural holds them (events).
    fn shared_storage(&self) -> Option<SharedStorage> {
        None
    }

    /// Objects are kept. The other kinds (reviews, bindings) are requests that get an answer and leave nothing.
    fn stored(&self) -> bool {
        true
    }

    /// Seconds of grace for a delete that asked for `requested`; `None`: the kind is deleted at once.
    fn grace(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// PUT to a name that does not exist creates it.
    fn create_on_update(&self) -> bool {
        false
    }

    /// PUT without a resourceVersion overwrites.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Dependents are orphaned unless the request says otherwise (upstream's default for old batch and core kinds).
    fn orphan_by_default(&self) -> bool {
        false
    }

    /// JSON paths of the `scale` subresource (spec replicas, status replicas, selector), where there is one.
    fn scale_paths(&self) -> Option<ScalePaths> {
        None
    }
}

/// The group and version in which a kind's objects are at rest, other than its own.
///
/// [`Hooks::convert`] of that kind is called with full `apiVersion`s then (`v1`, `events.k8s.io/v1`).
#[derive(Clone, Copy, Debug)]
pub struct SharedStorage {
    pub group: &'static str,
    pub version: &'static str,
}

/// Where `scale` reads and writes: dotted paths without the leading dot.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A label selector or its string form.
    pub selector: Option<String>,
}
