//! Schemas of types: the model's shapes with descriptions.

use serde_json::{Map, Value, json};

use super::{Dialect, texts::Texts};
use crate::schema::{Field, ListKind, Object, Scalar, Schema, Shape, TypeRef};

/// The definitions that a document needs, and those that they need.
pub(super) struct Definitions<'a> {
    dialect: Dialect,
    /// The group version that the document is about; `None`: all.
    only: Option<(&'a str, &'a str)>,
    texts: Texts,
    written: Map<String, Value>,
    pending: Vec<TypeRef<'static>>,
}

impl<'a> Definitions<'a> {
    pub(super) fn new(dialect: Dialect, only: Option<(&'a str, &'a str)>) -> Self {
        Self { dialect, only, texts: Texts::default(), written: Map::new(), pending: Vec::new() }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A reference to a built-in type, which becomes part of the document; `None` when there is no such type.
    pub(super) fn refer(&mut self, definition: &str) -> Option<Value> {
        let found = Schema::builtin().find(definition)?;
        self.want(found);
        Some(self.dialect.reference(definition))
    }

    /// Adds a custom resource's definition as it is.
    pub(super) fn insert(&mut self, name: &str, schema: Value) -> Value {
        self.written.insert(name.to_string(), schema);
        self.dialect.reference(name)
    }

    /// All definitions, by name.
    pub(super) fn finish(mut self) -> Map<String, Value> {
        while let Some(next) = self.pending.pop() {
            let schema = self.definition(next);
            self.written.insert(next.get().name.to_string(), schema);
        }
        self.written.sort_keys();
        self.written
    }

    fn want(&mut self, found: TypeRef<'static>) {
        let name: &str = &found.get().name;
        if !self.written.contains_key(name) {
            // Holds the place, so that a type is wanted once.
            self.written.insert(name.to_string(), Value::Null);
            self.pending.push(found);
        }
    }

    fn definition(&mut self, of: TypeRef<'static>) -> Value {
        let name: &str = &of.get().name;
        let mut schema = match of.shape() {
            Shape::Object(object) => self.object(of, object),
            _ => self.anonymous(of),
        };
        let own = self.texts.get(name).map(|text| text.description.clone()).filter(|text| !text.is_empty());
        if let Some(description) = own.or_else(|| list_description(name)) {
            schema.insert("description".into(), description.into());
        }
        // Options exist in every group: a document tells of its own.
        let all = &of.get().kinds;
        let own = |group: &str, version: &str| self.only.is_none_or(|only| only == (group, version));
        let kinds = all.iter().filter(|(group, version, _)| {
            all.len() == 1 || own(group, version) || (&**group, &**version) == ("", "v1")
        });
        let kinds: Vec<Value> =
            kinds.map(|(group, version, kind)| json!({"group": group, "kind": kind, "version": version})).collect();
        if !kinds.is_empty() {
            schema.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        schema.into()
    }

    fn object(&mut self, of: TypeRef<'static>, object: &'static Object) -> Map<String, Value> {
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        let name: &str = &of.get().name;
        let properties: Map<String, Value> =
            object.members().map(|field| (field.name.to_string(), self.property(name, of, field).into())).collect();
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        if !object.required.is_empty() {
            schema.insert("required".into(), object.required.iter().map(|name| Value::from(&**name)).collect());
        }
        if object.atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        schema
    }

    fn property(&mut self, owner: &str, of: TypeRef<'static>, field: &'static Field) -> Map<String, Value> {
        let mut schema = self.value(of.at(field.of));
        let text = self.texts.get(owner).and_then(|text| text.fields.get(&*field.name).cloned());
        let text = text.or_else(|| shared_text(owner, &field.name));
        if text.is_some() || field.default.is_some() {
            schema = self.beside(schema);
        }
        if let Some(description) = text {
            schema.insert("description".into(), description.into());
        }
        if let Some(default) = &field.default {
            schema.insert("default".into(), (**default).clone());
        }
        let strategy = field.strategy;
        let names = [("merge", strategy.merge), ("replace", strategy.replace), ("retainKeys", strategy.retain_keys)];
        let names: Vec<&str> = names.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        if !names.is_empty() {
            schema.insert("x-kubernetes-patch-strategy".into(), names.join(",").into());
        }
        if !field.merge_key.is_empty() {
            schema.insert("x-kubernetes-patch-merge-key".into(), (*field.merge_key).into());
        }
        if field.atomic == Some(true) {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        schema
    }

    /// Version 3 ignores what stands beside a reference, so the reference goes into an `allOf`.
    fn beside(&self, schema: Map<String, Value>) -> Map<String, Value> {
        if self.dialect == Dialect::V3 && schema.contains_key("$ref") {
            return Map::from_iter([("allOf".to_string(), json!([schema]))]);
        }
        schema
    }

    fn value(&mut self, of: TypeRef<'static>) -> Map<String, Value> {
        let name: &str = &of.get().name;
        if name.is_empty() {
            return self.anonymous(of);
        }
        self.want(of);
        match self.dialect.reference(name) {
            Value::Object(reference) => reference,
            // A reference is an object.
            _ => Map::new(),
        }
    }

    fn anonymous(&mut self, of: TypeRef<'static>) -> Map<String, Value> {
        let mut schema = Map::new();
        match of.shape() {
            Shape::Scalar(scalar) => scalar_schema(*scalar, self.dialect, &mut schema),
            Shape::List(list) => {
                schema.insert("type".into(), "array".into());
                schema.insert("items".into(), self.value(of.at(list.item)).into());
                let kind = match list.kind {
                    ListKind::Atomic => "atomic",
                    ListKind::Set => "set",
                    ListKind::Map => "map",
                };
                schema.insert("x-kubernetes-list-type".into(), kind.into());
                if !list.keys.is_empty() {
                    let keys = list.keys.iter().map(|key| Value::from(&**key)).collect();
                    schema.insert("x-kubernetes-list-map-keys".into(), keys);
                }
            }
            Shape::Map(map) => {
                schema.insert("type".into(), "object".into());
                schema.insert("additionalProperties".into(), self.value(of.at(map.value)).into());
                if map.atomic {
                    schema.insert("x-kubernetes-map-type".into(), "atomic".into());
                }
            }
            Shape::Object(object) => return self.object(of, object),
            Shape::Any { .. } => {
                // The types whose values may be anything but an object say nothing at all.
                if !of.get().name.contains(".JSON") {
                    schema.insert("type".into(), "object".into());
                }
            }
        }
        schema
    }
}

fn scalar_schema(scalar: Scalar, dialect: Dialect, schema: &mut Map<String, Value>) {
    let one_of = |types: [&str; 2]| types.map(|name| json!({"type": name})).to_vec();
    let (of, format) = match scalar {
        Scalar::String => ("string", None),
        Scalar::Bytes => ("string", Some("byte")),
        Scalar::Boolean => ("boolean", None),
        Scalar::Int32 => ("integer", Some("int32")),
        Scalar::Int64 => ("integer", Some("int64")),
        Scalar::Number => ("number", Some("double")),
        Scalar::Time | Scalar::MicroTime => ("string", Some("date-time")),
        Scalar::IntOrString if dialect == Dialect::V3 => {
            schema.insert("format".into(), "int-or-string".into());
            schema.insert("oneOf".into(), one_of(["integer", "string"]).into());
            return;
        }
        Scalar::IntOrString => ("string", Some("int-or-string")),
        Scalar::Quantity if dialect == Dialect::V3 => {
            schema.insert("oneOf".into(), one_of(["string", "number"]).into());
            return;
        }
        Scalar::Quantity => ("string", None),
    };
    schema.insert("type".into(), of.into());
    if let Some(format) = format {
        schema.insert("format".into(), format.into());
    }
}

/// Lists are all alike, and no typed object of theirs exists.
fn list_description(definition: &str) -> Option<String> {
    let kind = definition.rsplit('.').next()?.strip_suffix("List")?;
    Some(format!("{kind}List is a list of {kind} objects."))
}

fn shared_text(owner: &str, field: &str) -> Option<String> {
    let kind = owner.rsplit('.').next()?.strip_suffix("List")?;
    Some(match field {
        "apiVersion" => "Group and version of the schema of this list.".to_string(),
        "kind" => format!("Name of this type: {kind}List."),
        "metadata" => {
            "Metadata of the list: its resourceVersion, and how to go on when it is not complete.".to_string()
        }
        "items" => format!("The {kind} objects."),
        _ => return None,
    })
}
