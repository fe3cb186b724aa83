//! Reads the fact table of built-in types. Texts are borrowed from the embedded file.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{Field, List, ListKind, Map, Object, Pb, Scalar, Schema, Shape, Str, Strategy, Type, TypeId};

/// Index of the type whose structure follows from the value.
pub(super) const DEDUCED: u32 = 0;
/// Index of the type that is one leaf whatever it holds.
pub(super) const UNTYPED: u32 = 1;
/// Scalars, shared by all fields, begin here.
const SCALARS: [Scalar; 10] = [
    Scalar::String,
    Scalar::Bytes,
    Scalar::Boolean,
    Scalar::Int32,
    Scalar::Int64,
    Scalar::Number,
    Scalar::IntOrString,
    Scalar::Quantity,
    Scalar::Time,
    Scalar::MicroTime,
];

/// Keys of associative lists that have a value when they are left out.
const KEY_DEFAULTS: [(&str, &str, &str); 2] =
    [("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"), ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP")];

static TYPES: &str = include_str!("../../data/types.json");

/// A map as a list of its entries, in the file's order.
struct Entries<'a, T>(Vec<(&'a str, T)>);

impl<T> Default for Entries<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Entries<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a, T>(std::marker::PhantomData<(&'a (), T)>);
        impl<'de: 'a, 'a, T: Deserialize<'de>> de::Visitor<'de> for Visitor<'a, T> {
            type Value = Entries<'a, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Entries<'a, T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<&'de str, T>()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawType<'a> {
    #[serde(default, borrow)]
    fields: Entries<'a, RawField<'a>>,
    #[serde(default, borrow)]
    pb_fields: Entries<'a, RawField<'a>>,
    #[serde(default, borrow)]
    required: Vec<&'a str>,
    #[serde(default)]
    proto_message: bool,
    #[serde(default)]
    proto_only: bool,
    map_type: Option<&'a str>,
    #[serde(rename = "type")]
    of: Option<&'a str>,
    format: Option<&'a str>,
    #[serde(default, borrow)]
    gvk: Vec<RawKind<'a>>,
}

#[derive(Deserialize)]
struct RawKind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawField<'a> {
    #[serde(rename = "type")]
    of: Option<&'a str>,
    format: Option<&'a str>,
    #[serde(rename = "ref")]
    name: Option<&'a str>,
    #[serde(borrow)]
    array: Option<Box<RawField<'a>>>,
    #[serde(borrow)]
    map: Option<Box<RawField<'a>>>,
    default: Option<Box<Value>>,
    list_type: Option<&'a str>,
    #[serde(default, borrow)]
    list_map_keys: Vec<&'a str>,
    map_type: Option<&'a str>,
    patch_strategy: Option<&'a str>,
    patch_merge_key: Option<&'a str>,
    #[serde(borrow)]
    pb: Option<RawPb<'a>>,
}

#[derive(Deserialize)]
struct RawPb<'a> {
    n: u32,
    t: &'a str,
    #[serde(default)]
    repeated: bool,
    #[serde(default)]
    inline: bool,
}

/// Builds the schema. The table is part of the binary: that it is sound is a test's matter, and what a reader of it
/// would not understand becomes an untyped value.
pub(super) fn load() -> Schema {
    let mut schema = Schema::default();
    schema.push(Shape::Any { atomic: false });
    schema.push(Shape::Any { atomic: true });
    for scalar in SCALARS {
        schema.push(Shape::Scalar(scalar));
    }
    // The embedded table is valid JSON of this form: `every_reference_of_the_table_resolves` holds it to that.
    let table: Entries<'static, RawType<'static>> = serde_json::from_str(TYPES).expect("embedded type table");
    let first = schema.types.len() as u32;
    let mut ids = BTreeMap::new();
    for (index, (name, _)) in table.0.iter().enumerate() {
        ids.insert(*name, first + index as u32);
        schema.push(Shape::Any { atomic: true });
    }
    for (name, raw) in table.0 {
        let index = ids[name] as usize;
        let kinds = raw.gvk.iter().map(|kind| (kind.group.into(), kind.version.into(), kind.kind.into())).collect();
        let (message, proto_only) = (raw.proto_message, raw.proto_only);
        let shape = shape(&mut schema, &ids, name, raw);
        schema.types[index] = Type { name: name.into(), shape, nullable: false, message, proto_only, kinds };
    }
    schema.names = ids.into_iter().map(|(name, index)| (Str::Borrowed(name), index)).collect();
    schema
}

fn scalar_id(scalar: Scalar) -> TypeId {
    let at = SCALARS.iter().position(|own| *own == scalar).unwrap_or(0);
    TypeId(UNTYPED + 1 + at as u32)
}

fn scalar(of: &str, format: Option<&str>) -> Option<Scalar> {
    Some(match (of, format) {
        ("string", Some("byte")) => Scalar::Bytes,
        ("string", _) => Scalar::String,
        ("boolean", _) => Scalar::Boolean,
        ("integer", Some("int32")) => Scalar::Int32,
        ("integer", _) => Scalar::Int64,
        ("number", _) => Scalar::Number,
        _ => return None,
    })
}

fn shape(schema: &mut Schema, ids: &BTreeMap<&'static str, u32>, name: &'static str, raw: RawType<'static>) -> Shape {
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => return Shape::Scalar(Scalar::Quantity),
        "IntOrString" => return Shape::Scalar(Scalar::IntOrString),
        "Time" if raw.format == Some("date-time") => return Shape::Scalar(Scalar::Time),
        "MicroTime" => return Shape::Scalar(Scalar::MicroTime),
        "RawExtension"
        | "FieldsV1"
        | "JSON"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray" => {
            return Shape::Any { atomic: true };
        }
        _ => {}
    }
    if let (Some(of), true) = (raw.of, raw.fields.0.is_empty())
        && let Some(scalar) = scalar(of, raw.format)
    {
        return Shape::Scalar(scalar);
    }
    let mut fields: Vec<Field> = raw
        .fields
        .0
        .into_iter()
        .chain(raw.pb_fields.0)
        .map(|(field_name, raw_field)| {
            let mut field = field(schema, ids, field_name, raw_field);
            let default = KEY_DEFAULTS.iter().find(|(of, key, _)| *of == name && *key == field_name);
            if let Some((_, _, value)) = default {
                field.default = Some(Box::new(Value::from(*value)));
            }
            field
        })
        .collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Shape::Object(Object {
        fields,
        required: raw.required.into_iter().map(Str::Borrowed).collect(),
        atomic: raw.map_type == Some("atomic"),
        ..Object::default()
    })
}

fn field(schema: &mut Schema, ids: &BTreeMap<&'static str, u32>, name: &'static str, raw: RawField<'static>) -> Field {
    let mut strategy = Strategy::default();
    for part in raw.patch_strategy.unwrap_or_default().split(',') {
        match part {
            "merge" => strategy.merge = true,
            "replace" => strategy.replace = true,
            "retainKeys" => strategy.retain_keys = true,
            _ => {}
        }
    }
    Field {
        name: name.into(),
        of: value(schema, ids, &raw),
        atomic: raw.map_type.map(|kind| kind == "atomic"),
        strategy,
        merge_key: raw.patch_merge_key.unwrap_or_default().into(),
        pb: raw.pb.map(|pb| Pb { number: pb.n, of: pb.t.into(), repeated: pb.repeated, inline: pb.inline }),
        default: raw.default,
    }
}

fn value(schema: &mut Schema, ids: &BTreeMap<&'static str, u32>, raw: &RawField<'static>) -> TypeId {
    if let Some(name) = raw.name {
        return ids.get(name).map_or(TypeId(UNTYPED), |index| TypeId(*index));
    }
    if let Some(item) = &raw.array {
        let item = value(schema, ids, item);
        let kind = match raw.list_type {
            Some("set") => ListKind::Set,
            Some("map") => ListKind::Map,
            _ => ListKind::Atomic,
        };
        let keys = raw.list_map_keys.iter().map(|key| Str::Borrowed(*key)).collect();
        return schema.push(Shape::List(List { item, kind, keys }));
    }
    if let Some(of) = &raw.map {
        let value = value(schema, ids, of);
        return schema.push(Shape::Map(Map { value, atomic: raw.map_type == Some("atomic") }));
    }
    if let Some(scalar) = raw.of.and_then(|of| scalar(of, raw.format)) {
        return scalar_id(scalar);
    }
    match &raw.pb {
        Some(pb) => proto_value(schema, ids, pb.t, pb.repeated),
        None => TypeId(if raw.of.is_some() { DEDUCED } else { UNTYPED }),
    }
}

/// The JSON type that follows from a protobuf type, where no JSON type is published.
fn proto_value(schema: &mut Schema, ids: &BTreeMap<&'static str, u32>, of: &'static str, repeated: bool) -> TypeId {
    let plain = match of {
        "string" => scalar_id(Scalar::String),
        "bytes" => scalar_id(Scalar::Bytes),
        "bool" => scalar_id(Scalar::Boolean),
        "int32" => scalar_id(Scalar::Int32),
        "int64" => scalar_id(Scalar::Int64),
        "double" => scalar_id(Scalar::Number),
        _ => match of.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>')) {
            Some(of) => {
                let value = proto_value(schema, ids, of, false);
                schema.push(Shape::Map(Map { value, atomic: false }))
            }
            None => ids.get(of).map_or(TypeId(UNTYPED), |index| TypeId(*index)),
        },
    };
    if repeated {
        return schema.push(Shape::List(List { item: plain, kind: ListKind::Atomic, keys: Vec::new() }));
    }
    plain
}
