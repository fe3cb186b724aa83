//! The messages of all types, with their references resolved.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use crate::schema::{self, Scalar, Shape, TypeRef};

/// Types and their plain fields that tell zero from nothing.
static POINTERS: &str = include_str!("../../data/pointers.txt");

static TABLE: LazyLock<Table> = LazyLock::new(Table::compile);

pub(super) struct Table {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, usize>,
}

/// A message's fields, sorted by JSON name.
#[derive(Default)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
    /// Positions in `fields`, sorted by number.
    by_number: Vec<u16>,
    /// Some fields are inline: their members stand in this message's JSON object.
    pub(super) inlines: bool,
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) card: Card,
    pub(super) inline: bool,
    /// Zero is a value.
    pub(super) keep_zero: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Card {
    One,
    Repeated,
    /// With string keys: entries of 1 key and 2 value.
    Map,
}

/// How one value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Message(usize),
    /// 1 seconds, 2 nanos.
    Time,
    MicroTime,
    /// 1 text.
    Quantity,
    /// 1 type, 2 number, 3 text.
    IntOrString,
    /// 1 the value's JSON as bytes.
    Json,
    /// 1 texts: a list that is a message of its own.
    Texts,
    /// A schema (of that message), or something else.
    SchemaOr(Other, usize),
}

/// What may stand in place of a schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Other {
    /// 1 schema, 2 schemas.
    Schemas,
    /// 1 bool, 2 schema.
    Bool,
    /// 1 schema, 2 texts.
    Texts,
}

impl Message {
    pub(super) fn named(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        Some(&self.fields[at]).filter(|field| !field.inline)
    }

    pub(super) fn numbered(&self, number: u32) -> Option<&Field> {
        let at = self.by_number.binary_search_by_key(&number, |at| self.fields[usize::from(*at)].number).ok()?;
        Some(&self.fields[usize::from(self.by_number[at])])
    }
}

impl Table {
    pub(super) fn get() -> &'static Self {
        &TABLE
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }

    fn compile() -> Self {
        let types: Vec<TypeRef<'static>> = super::schema().named().filter(|of| of.get().message).collect();
        let by_name: HashMap<&'static str, usize> =
            types.iter().enumerate().map(|(index, of)| (of.get().name.as_ref(), index)).collect();
        let pointers: HashSet<(&str, &str)> = POINTERS
            .lines()
            .filter_map(|line| line.split_once(' '))
            .flat_map(|(name, fields)| fields.split(' ').map(move |field| (name, field)))
            .collect();
        let messages = types.iter().map(|of| message(*of, &by_name, &pointers)).collect();
        Self { messages, by_name }
    }
}

fn message(of: TypeRef<'static>, by_name: &HashMap<&'static str, usize>, pointers: &HashSet<(&str, &str)>) -> Message {
    // The packages with a dash in their name have their messages under another name, without JSON's names.
    let json = super::schema().find(&of.get().name.replace('_', "-")).unwrap_or(of);
    let required = json.object().map(|object| object.required.as_slice()).unwrap_or_default();
    let Some(object) = of.object() else { return Message::default() };
    let mut fields: Vec<Field> = object
        .fields
        .iter()
        .filter_map(|field| {
            let pb = field.pb.as_ref()?;
            let name = json_name(json, &field.name);
            let (kind, card) = match pb.of.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>')) {
                Some(value) => (kind(value, by_name)?, Card::Map),
                None => (kind(&pb.of, by_name)?, if pb.repeated { Card::Repeated } else { Card::One }),
            };
            let keep_zero =
                required.iter().any(|own| own == name) || pointers.contains(&(json.get().name.as_ref(), name));
            Some(Field { name, number: pb.number, kind, card, inline: pb.inline, keep_zero })
        })
        .collect();
    fields.sort_by_key(|field| field.name);
    let mut by_number: Vec<u16> = (0..fields.len()).map(|at| at as u16).collect();
    by_number.sort_by_key(|at| fields[usize::from(*at)].number);
    let inlines = fields.iter().any(|field| field.inline);
    Message { fields, by_number, inlines }
}

/// The JSON name of a field: the same, but for `$ref` and names with dashes.
fn json_name(json: TypeRef<'static>, name: &'static schema::Str) -> &'static str {
    let plain = |name: &str| name.replace(['$', '-'], "").to_ascii_lowercase();
    let fields = json.object().map(|object| object.fields.as_slice()).unwrap_or_default();
    if fields.iter().any(|field| field.name == *name) {
        return name;
    }
    fields.iter().find(|field| plain(&field.name) == plain(name)).map_or(name, |field| &field.name)
}

/// `None`: nothing that JSON shows.
fn kind(of: &str, by_name: &HashMap<&'static str, usize>) -> Option<Kind> {
    let plain = match of {
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "bool" => Kind::Bool,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        _ => return named(of, by_name),
    };
    Some(plain)
}

fn named(of: &str, by_name: &HashMap<&'static str, usize>) -> Option<Kind> {
    let found = super::schema().find(of)?;
    match found.shape() {
        Shape::Scalar(Scalar::Time) => return Some(Kind::Time),
        Shape::Scalar(Scalar::MicroTime) => return Some(Kind::MicroTime),
        Shape::Scalar(Scalar::Quantity) => return Some(Kind::Quantity),
        Shape::Scalar(Scalar::IntOrString) => return Some(Kind::IntOrString),
        _ => {}
    }
    let (package, last) = of.rsplit_once('.')?;
    let schema = || by_name.get(format!("{package}.JSONSchemaProps").as_str()).copied();
    Some(match last {
        "RawExtension" | "FieldsV1" | "JSON" => Kind::Json,
        "Verbs" | "ExtraValue" => Kind::Texts,
        "JSONSchemaPropsOrArray" => Kind::SchemaOr(Other::Schemas, schema()?),
        "JSONSchemaPropsOrBool" => Kind::SchemaOr(Other::Bool, schema()?),
        "JSONSchemaPropsOrStringArray" => Kind::SchemaOr(Other::Texts, schema()?),
        _ => Kind::Message(*by_name.get(of)?),
    })
}
