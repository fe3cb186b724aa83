//! Reads one value along its type, from any `serde` source.
//!
//! Errors are collected in the [`Report`] rather than returned, because Go's decoder goes on after a wrong type, and
//! because a source would add its own position to a returned one.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::syntax;
use crate::{
    quantity::Quantity,
    schema::{Scalar, Shape, TypeRef},
    time,
};

/// More problems than this are not collected (upstream's limit).
const MOST_PROBLEMS: usize = 100;

/// What was wrong.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<String>,
    /// The first value of a wrong JSON type.
    type_error: Option<String>,
    /// The first value that its own type refused.
    value_error: Option<String>,
}

impl Report {
    pub(super) fn failure(&self) -> Option<&str> {
        self.value_error.as_deref().or(self.type_error.as_deref())
    }

    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < MOST_PROBLEMS && !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }
}

/// The way to a value: borrowed steps on the stack.
#[derive(Clone, Copy)]
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    /// A member of a struct, and the struct's definition name.
    Field(&'p str, &'p str),
    Key(&'p str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Field(name, _) | Step::Key(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name, _) | Step::Key(name) => f.write_str(name),
        }
    }
}

impl Path<'_> {
    /// Struct members only, as Go's decoder tells where it was.
    fn go_fields(&self) -> String {
        let mut out = self.parent.map(Path::go_fields).unwrap_or_default();
        if let Step::Field(name, _) = self.step {
            if !out.is_empty() {
                out.push('.');
            }
            out += name;
        }
        out
    }

    fn owner(&self) -> Option<&str> {
        match self.step {
            Step::Field(_, owner) => Some(owner),
            _ => self.parent?.owner(),
        }
    }
}

/// Reads JSON text; the error says what is wrong with it as JSON.
pub(super) fn json(bytes: &[u8], of: TypeRef<'_>, report: &mut Report) -> Result<Value, String> {
    let fail = |error: &serde_json::Error| syntax::go(error, bytes);
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { of, path: None, report }.deserialize(&mut source).map_err(|error| fail(&error))?;
    source.end().map_err(|error| fail(&error))?;
    Ok(value)
}

/// Reads a JSON value.
pub(super) fn value(source: Value, of: TypeRef<'_>, report: &mut Report) -> Value {
    Seed { of, path: None, report }.deserialize(source).unwrap_or_default()
}

/// Reads a member of the root.
pub(super) fn member(source: Value, of: TypeRef<'_>, name: &str, report: &mut Report) -> Value {
    let path = Path { parent: None, step: Step::Key(name) };
    Seed { of, path: Some(&path), report }.deserialize(source).unwrap_or_default()
}

/// Go's name of a JSON value's kind.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Reads through any source.
pub(super) fn any<'de, D: Deserializer<'de>>(
    source: D,
    of: TypeRef<'_>,
    report: &mut Report,
) -> Result<Value, D::Error> {
    Seed { of, path: None, report }.deserialize(source)
}

struct Seed<'r, 'p, 't> {
    of: TypeRef<'t>,
    path: Option<&'p Path<'p>>,
    report: &'r mut Report,
}

impl Seed<'_, '_, '_> {
    /// Notes a wrong JSON type; reading goes on.
    fn mismatch(self, found: &str) -> Value {
        let wanted = go_type(self.of);
        self.mismatch_into(found, &wanted)
    }

    fn mismatch_into(self, found: &str, wanted: &str) -> Value {
        if self.report.type_error.is_none() {
            let place = match self.path.and_then(|path| Some((path.owner()?, path.go_fields()))) {
                Some((owner, fields)) => {
                    format!("struct field {}.{fields}", owner.rsplit('.').next().unwrap_or(owner))
                }
                None => "value".to_string(),
            };
            self.report.type_error = Some(format!("json: cannot unmarshal {found} into Go {place} of type {wanted}"));
        }
        Value::Null
    }

    fn refuse(self, why: impl fmt::Display) -> Value {
        if self.report.value_error.is_none() {
            self.report.value_error = Some(why.to_string());
        }
        Value::Null
    }

    fn text(self, text: Cow<'_, str>) -> Value {
        match self.of.shape() {
            Shape::Any { .. } | Shape::Scalar(Scalar::String | Scalar::IntOrString) => Value::String(text.into_owned()),
            Shape::Scalar(Scalar::Quantity) => match Quantity::canonicalize(text.trim()) {
                Ok(canonical) => Value::String(canonical),
                Err(why) => self.refuse(why),
            },
            Shape::Scalar(Scalar::Time) => match time::parse(&text) {
                Ok(at) => Value::String(time::seconds(at)),
                Err(why) => self.refuse(why),
            },
            Shape::Scalar(Scalar::MicroTime) => match time::parse_micro(&text) {
                Ok(at) => Value::String(time::micros(at)),
                Err(why) => self.refuse(why),
            },
            Shape::Scalar(Scalar::Bytes) => match syntax::bad_base64(&text) {
                None => Value::String(text.into_owned()),
                Some(at) => self.refuse(format_args!("illegal base64 data at input byte {at}")),
            },
            _ => self.mismatch("string"),
        }
    }

    fn number(self, number: Number) -> Value {
        let fits = match self.of.shape() {
            Shape::Any { .. } | Shape::Scalar(Scalar::Number) => true,
            Shape::Scalar(Scalar::Int64) => number.is_i64(),
            Shape::Scalar(Scalar::Int32 | Scalar::IntOrString) => {
                number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
            }
            Shape::Scalar(Scalar::Quantity) => return self.text(Cow::Owned(number.to_string())),
            Shape::Scalar(Scalar::Time | Scalar::MicroTime) => return self.mismatch_into("number", "string"),
            _ => return self.mismatch("number"),
        };
        if fits { Value::Number(number) } else { self.mismatch(&format!("number {number}")) }
    }
}

/// How Go's messages name a type.
fn go_type(of: TypeRef<'_>) -> String {
    match of.shape() {
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Time | Scalar::MicroTime | Scalar::Quantity => "string",
            Scalar::Bytes => "[]uint8",
            Scalar::Boolean => "bool",
            Scalar::Int32 | Scalar::IntOrString => "int32",
            Scalar::Int64 => "int64",
            Scalar::Number => "float64",
        }
        .to_string(),
        Shape::List(list) => format!("[]{}", go_type(of.at(list.item))),
        Shape::Map(map) => format!("map[string]{}", go_type(of.at(map.value))),
        Shape::Object(_) => {
            let mut parts = of.get().name.rsplit('.');
            let name = parts.next().unwrap_or_default();
            format!("{}.{name}", parts.next().unwrap_or_default())
        }
        Shape::Any { .. } => "interface {}".to_string(),
    }
}

/// What Go makes of `null` as a list item or map value.
fn zero(of: TypeRef<'_>) -> Value {
    match of.shape() {
        Shape::Scalar(Scalar::String | Scalar::Bytes) => Value::String(String::new()),
        Shape::Scalar(Scalar::Quantity) => Value::String("0".into()),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Number | Scalar::IntOrString) => Value::from(0),
        Shape::Scalar(Scalar::Boolean) => Value::Bool(false),
        Shape::Object(_) => Value::Object(Map::new()),
        Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Scalar(Scalar::Time | Scalar::MicroTime) | Shape::Any { .. } => Value::Null,
    }
}

/// Go leaves empty lists and maps out when it writes a member that is not required.
fn is_omitted(value: &Value, of: TypeRef<'_>) -> bool {
    match (value, of.shape()) {
        (Value::Array(items), Shape::List(_)) => items.is_empty(),
        (Value::Object(members), Shape::Map(_)) => members.is_empty(),
        _ => false,
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(match self.of.shape() {
            Shape::Any { .. } | Shape::Scalar(Scalar::Boolean) => Value::Bool(value),
            Shape::Scalar(Scalar::Quantity) => self.refuse(crate::quantity::ParseError::Format),
            _ => self.mismatch("bool"),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(self.number(number)),
            None => Err(E::custom("json: unsupported value: not a finite number")),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.text(Cow::Borrowed(value)))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(self.text(Cow::Owned(value)))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (of, any) = match self.of.shape() {
            Shape::List(list) => (self.of.at(list.item), false),
            Shape::Any { .. } => (self.of, true),
            _ => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(self.mismatch("array"));
            }
        };
        let mut out = Vec::new();
        loop {
            let path = Path { parent: self.path, step: Step::Index(out.len()) };
            match items.next_element_seed(Seed { of, path: Some(&path), report: &mut *self.report })? {
                Some(Value::Null) if !any => out.push(zero(of)),
                Some(item) => out.push(item),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        let shape = self.of.shape();
        if matches!(shape, Shape::Scalar(_) | Shape::List(_)) {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(match shape {
                Shape::Scalar(Scalar::Quantity) => self.refuse(crate::quantity::ParseError::Format),
                _ => self.mismatch("object"),
            });
        }
        let owner = self.of.get().name.as_ref();
        while let Some(key) = entries.next_key::<String>()? {
            let (of, step) = match shape {
                Shape::Object(object) => match object.field(&key) {
                    Some(field) => (self.of.at(field.of), Step::Field(&key, owner)),
                    None => {
                        let path = Path { parent: self.path, step: Step::Key(&key) };
                        self.report.problem(format!("unknown field \"{path}\""));
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    }
                },
                Shape::Map(map) => (self.of.at(map.value), Step::Key(&key)),
                _ => (self.of, Step::Key(&key)),
            };
            let path = Path { parent: self.path, step };
            if out.contains_key(&key) && !matches!(shape, Shape::Any { atomic: true }) {
                self.report.problem(format!("duplicate field \"{path}\""));
            }
            let value = entries.next_value_seed(Seed { of, path: Some(&path), report: &mut *self.report })?;
            match (value, shape) {
                (Value::Null, Shape::Object(_)) => {
                    out.remove(&key);
                }
                (value, Shape::Object(object))
                    if is_omitted(&value, of) && !object.required.iter().any(|own| *own == key) =>
                {
                    out.remove(&key);
                }
                (Value::Null, Shape::Map(_)) => {
                    out.insert(key, zero(of));
                }
                (value, _) => {
                    out.insert(key, value);
                }
            }
        }
        Ok(Value::Object(out))
    }
}
