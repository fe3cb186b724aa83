//! [`Kind`]: what a built-in kind says about itself, as one constant.
//!
//! A kind's file fills in what differs from [`Kind::PLAIN`]; the generic rules (status is the status subresource's,
//! `generation` counts changes of the spec) are written here once and chosen by [`Shape`].

use serde_json::{Map, Value};

use super::access::{Members, keep};
use crate::{
    kind::{Context, Hooks, Part, ScalePaths, SharedStorage},
    status::FieldError,
    validation::{
        field::{Errors, Field, same, walk},
        names,
    },
};

/// What of an object each kind of write may change.
pub(crate) struct Shape {
    /// There is a `status` subresource: status is dropped on create and kept by other updates.
    pub(crate) status: bool,
    /// A new object may come with its status (nodes register themselves that way).
    pub(crate) status_on_create: bool,
    /// Members whose change counts up `metadata.generation`; empty: the kind has no generation.
    pub(crate) generation: &'static [&'static str],
    /// A new object has the generation 1; else it has none until its first change.
    pub(crate) generation_on_create: bool,
    /// Members of `metadata` that a status update must leave alone.
    pub(crate) status_keeps: &'static [&'static str],
}

/// Members of `metadata` that strict status strategies leave alone.
pub(crate) const RESET_FOR_STATUS: &[&str] =
    &["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"];

/// The behaviour of one built-in kind.
pub(crate) struct Kind {
    pub(crate) shape: Shape,
    /// Judges a name; the flag says that it is a `generateName`.
    pub(crate) name: fn(&str, bool) -> Vec<String>,
    pub(crate) default: fn(&mut Value),
    /// The status of an object about which nothing is known: what is never absent for readers.
    pub(crate) empty_status: fn() -> Value,
    /// After the generic part of a create.
    pub(crate) create: fn(&mut Value, &Context<'_>),
    /// After the generic part of an update: new, old. For [`Part::Other`] there is no generic part.
    pub(crate) update: fn(&mut Value, &Value, &Context<'_>),
    pub(crate) validate: fn(&mut Errors, &Field<'_>, &Context<'_>),
    /// New, old; `None`: an update is judged by `validate`.
    pub(crate) validate_update: Option<fn(&mut Errors, &Field<'_>, &Field<'_>, &Context<'_>)>,
    pub(crate) warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// Selectable fields, by path.
    pub(crate) fields: &'static [&'static str],
    /// The text of a selectable field.
    pub(crate) field: fn(&Value, &'static str) -> String,
    /// Table cells; the second argument is the time of the request.
    pub(crate) row: Option<fn(&Value, &str) -> Vec<Value>>,
    pub(crate) convert: fn(&mut Value, &str, &str) -> Result<(), String>,
    pub(crate) shared_storage: Option<SharedStorage>,
    pub(crate) stored: bool,
    pub(crate) grace: fn(&Value, Option<i64>) -> Option<i64>,
    pub(crate) create_on_update: bool,
    pub(crate) unconditional_update: bool,
    pub(crate) orphan_by_default: bool,
    /// Path of the selector, for kinds with `scale` (replicas are at `spec.replicas` and `status.replicas`).
    pub(crate) scale_selector: Option<&'static str>,
}

impl Shape {
    /// No status, no generation.
    pub(crate) const PLAIN: Shape = Shape {
        status: false,
        status_on_create: false,
        generation: &[],
        generation_on_create: true,
        status_keeps: &[],
    };
    /// A generation, but no status subresource.
    pub(crate) const GENERATION: Shape = Shape { generation: &["spec"], ..Shape::PLAIN };
    /// A status subresource, no generation.
    pub(crate) const STATUS: Shape = Shape { status: true, ..Shape::PLAIN };
    /// Status and a generation that counts changes of `spec`.
    pub(crate) const WORKLOAD: Shape = Shape { status: true, ..Shape::GENERATION };
}

impl Kind {
    /// A kind without any behaviour: stored as it comes, named by a DNS subdomain.
    pub(crate) const PLAIN: Kind = Kind {
        shape: Shape::PLAIN,
        name: names::subdomain_name,
        default: |_| {},
        empty_status: || Value::Object(Map::new()),
        create: |_, _| {},
        update: |_, _, _| {},
        validate: |_, _, _| {},
        validate_update: None,
        warnings: |_, _| Vec::new(),
        fields: &[],
        field: text_at,
        row: None,
        convert: |_, _, _| Ok(()),
        shared_storage: None,
        stored: true,
        grace: |_, _| None,
        create_on_update: false,
        unconditional_update: true,
        orphan_by_default: false,
        scale_selector: None,
    };

    /// A request that is answered and never kept (reviews, bindings).
    pub(crate) const VIRTUAL: Kind = Kind { stored: false, ..Kind::PLAIN };
}

/// The text of the value at a path; empty when absent.
pub(crate) fn text_at(object: &Value, path: &'static str) -> String {
    match walk(object, path) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Finalizers of built-in kinds are the standard ones, or have a domain.
fn finalizers(errors: &mut Errors, finalizers: &Field<'_>) {
    for finalizer in finalizers.items() {
        let name = finalizer.str();
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            errors.push(finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified"));
        }
    }
}

impl Hooks for &'static Kind {
    fn default(&self, object: &mut Value, _cx: &Context<'_>) {
        if self.shape.status {
            let status = object.object("status");
            if let Value::Object(members) = (self.empty_status)() {
                for (name, value) in members {
                    status.entry(name).or_insert(value);
                }
            }
        }
        (self.default)(object);
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context<'_>) {
        if self.shape.status && !self.shape.status_on_create {
            object.set("status", (self.empty_status)());
        }
        if self.shape.generation_on_create && !self.shape.generation.is_empty() {
            object.object("metadata").insert("generation".into(), 1.into());
        }
        (self.create)(object, cx);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context<'_>) {
        match cx.part {
            Part::Main if self.shape.status => keep(new, old, "status"),
            Part::Status => {
                keep(new, old, "spec");
                for name in self.shape.status_keeps {
                    keep(new.member("metadata"), &old["metadata"], name);
                }
            }
            Part::Main | Part::Other(_) => {}
        }
        (self.update)(new, old, cx);
        if cx.part != Part::Status && self.shape.generation.iter().any(|path| !same(walk(new, path), walk(old, path))) {
            let generation = walk(old, "metadata.generation").as_i64().unwrap_or(0) + 1;
            new.object("metadata").insert("generation".into(), generation.into());
        }
    }

    fn validate(&self, object: &Value, cx: &Context<'_>) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root(object);
        finalizers(&mut errors, &root.get("metadata.finalizers"));
        (self.validate)(&mut errors, &root, cx);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, cx: &Context<'_>) -> Vec<FieldError> {
        let mut errors = Errors::new();
        finalizers(&mut errors, &Field::root(new).get("metadata.finalizers"));
        match self.validate_update {
            Some(validate) => validate(&mut errors, &Field::root(new), &Field::root(old), cx),
            None => (self.validate)(&mut errors, &Field::root(new), cx),
        }
        errors
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        (self.name)(name, prefix)
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warnings)(new, old)
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.fields.iter().map(|name| (*name, (self.field)(object, name))).collect()
    }

    fn field_names(&self) -> &[&'static str] {
        self.fields
    }

    fn row(&self, object: &Value, now: &str) -> Option<Vec<Value>> {
        self.row.map(|row| row(object, now))
    }

    fn convert(&self, object: &mut Value, from: &str, to: &str) -> Result<(), String> {
        (self.convert)(object, from, to)
    }

    fn shared_storage(&self) -> Option<SharedStorage> {
        self.shared_storage
    }

    fn stored(&self) -> bool {
        self.stored
    }

    fn grace(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        (self.grace)(object, requested)
    }

    fn create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn unconditional_update(&self) -> bool {
        self.unconditional_update
    }

    fn orphan_by_default(&self) -> bool {
        self.orphan_by_default
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        self.scale_selector.map(|selector| ScalePaths {
            spec_replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: Some(selector.into()),
        })
    }
}
