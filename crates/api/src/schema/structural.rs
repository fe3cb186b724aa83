//! Builds a schema from a custom resource's `openAPIV3Schema`.
//!
//! Only what shapes an object is kept: members, items, list and map kinds, defaults, `nullable`, preserved fields.
//! Value validations are the `crd` module's.

use serde_json::Value;

use super::{BUILTIN, Field, List, ListKind, Map, Object, Scalar, Schema, Shape, Strategy, TypeId, builtin};

/// A schema that is not structural, which validation of the definition should have refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema at {path} has the type {found:?}, which is none of object, array, string, integer, number, boolean")]
pub struct SchemaError {
    path: String,
    found: String,
}

pub(super) fn read(source: &Value) -> Result<Schema, SchemaError> {
    let mut schema = Schema::default();
    let root = value(&mut schema, source, false, "openAPIV3Schema")?;
    schema.root = root.0;
    if let Some(kind) = schema.types.get_mut(root.0 as usize)
        && let Shape::Object(object) = &mut kind.shape
    {
        object_members(object);
    } else {
        let mut object = Object { preserve: true, extra: Some(deduced()), ..Object::default() };
        object_members(&mut object);
        schema.root = schema.push(Shape::Object(object)).0;
    }
    Ok(schema)
}

fn deduced() -> TypeId {
    TypeId(BUILTIN | builtin::DEDUCED)
}

/// The members that every object has, in place of what the definition says of them.
fn object_members(object: &mut Object) {
    let builtin = Schema::builtin();
    let meta = builtin.find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let text = builtin.find("io.k8s.api.core.v1.ConfigMap").and_then(|map| map.field("kind")).map(|field| field.of.0);
    let members = [("apiVersion", text), ("kind", text), ("metadata", meta.map(|meta| meta.index))];
    for (name, index) in members {
        let Some(index) = index else { continue };
        object.fields.retain(|field| field.name != name);
        object.fields.push(plain(name, TypeId(BUILTIN | index)));
    }
    object.fields.sort_by(|a, b| a.name.cmp(&b.name));
}

fn plain(name: &str, of: TypeId) -> Field {
    Field {
        name: name.to_string().into(),
        of,
        default: None,
        strategy: Strategy::default(),
        merge_key: "".into(),
        atomic: None,
        pb: None,
    }
}

/// `preserve`: an ancestor keeps unknown members, which server-side apply then deduces.
fn value(schema: &mut Schema, source: &Value, preserve: bool, path: &str) -> Result<TypeId, SchemaError> {
    let flag = |name: &str| source.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| source.get(name).and_then(Value::as_str).unwrap_or_default();
    let preserves = flag("x-kubernetes-preserve-unknown-fields");
    let deduce = preserve || preserves;
    let shape = match text("type") {
        _ if flag("x-kubernetes-int-or-string") => Shape::Scalar(Scalar::IntOrString),
        "object" => object(schema, source, deduce, preserves, path)?,
        "array" => {
            let item = match source.get("items") {
                Some(items) => value(schema, items, deduce, &format!("{path}.items"))?,
                None => TypeId(BUILTIN | builtin::UNTYPED),
            };
            let kind = match text("x-kubernetes-list-type") {
                "set" => ListKind::Set,
                "map" => ListKind::Map,
                _ => ListKind::Atomic,
            };
            let keys = source.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            let keys = keys.filter_map(|key| key.as_str().map(|key| key.to_string().into())).collect();
            Shape::List(List { item, kind, keys })
        }
        "string" if text("format") == "byte" => Shape::Scalar(Scalar::String),
        "string" => Shape::Scalar(Scalar::String),
        "integer" => Shape::Scalar(Scalar::Int64),
        "number" => Shape::Scalar(Scalar::Number),
        "boolean" => Shape::Scalar(Scalar::Boolean),
        "" if source.get("properties").is_some() => object(schema, source, deduce, preserves, path)?,
        "" => Shape::Any { atomic: false },
        other => return Err(SchemaError { path: path.into(), found: other.into() }),
    };
    let id = schema.push(shape);
    schema.types[id.0 as usize].nullable = flag("nullable");
    Ok(id)
}

fn object(schema: &mut Schema, source: &Value, deduce: bool, preserve: bool, path: &str) -> Result<Shape, SchemaError> {
    let properties = source.get("properties").and_then(Value::as_object);
    let atomic = source.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    let embedded = source.get("x-kubernetes-embedded-resource").and_then(Value::as_bool).unwrap_or(false);
    let extra = match source.get("additionalProperties") {
        Some(of @ Value::Object(_)) => Some(value(schema, of, deduce, &format!("{path}.additionalProperties"))?),
        Some(Value::Bool(true)) => Some(deduced()),
        _ => None,
    };
    if let (Some(value), true, false) = (extra, properties.is_none_or(serde_json::Map::is_empty), embedded) {
        return Ok(Shape::Map(Map { value, atomic }));
    }
    let mut fields = Vec::new();
    for (name, of) in properties.into_iter().flatten() {
        let id = value(schema, of, deduce, &format!("{path}.properties[{name}]"))?;
        let mut field = plain(name, id);
        field.default = of.get("default").map(|default| Box::new(default.clone()));
        fields.push(field);
    }
    let required = source.get("required").and_then(Value::as_array).into_iter().flatten();
    let required = required.filter_map(|name| name.as_str().map(|name| name.to_string().into())).collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    // For server-side apply an object of which nothing is said is free-form; pruning goes by `preserve`.
    let extra = extra.or_else(|| (deduce || fields.is_empty()).then(deduced));
    let mut out = Object { fields, required, atomic, extra, preserve, embedded };
    if embedded {
        object_members(&mut out);
    }
    Ok(Shape::Object(out))
}
