//! Values of expressions. JSON objects and lists stay what they are until somebody looks inside.

use std::{borrow::Cow, net::IpAddr, rc::Rc};

use base64::Engine as _;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::functions::{semver::Version, url::Url};
use crate::quantity::Quantity;

/// What a schema tells of a value that JSON does not.
pub trait Typing: Send + Sync {
    /// The type of a member; `None` when the schema does not know it.
    fn member(&self, name: &str) -> Option<&dyn Typing>;
    fn item(&self) -> Option<&dyn Typing>;
    /// `date-time`, `duration`, `byte`, ...; empty when there is none.
    fn format(&self) -> &str;
    /// Members that the schema does not name may be there.
    fn is_open(&self) -> bool;
}

/// What an authorization check asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
    /// For checks of a path instead of a resource.
    pub path: Option<String>,
    /// Namespace and name of a service account to ask for instead of the requester.
    pub service_account: Option<(String, String)>,
    pub field_selector: String,
    pub label_selector: String,
}

/// What an authorizer answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// Answers `authorizer....check('verb')`.
pub trait Authorizer {
    fn check(&self, check: &Check) -> Decision;
}

/// A value.
#[derive(Clone)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Cow<'a, str>),
    Bytes(Rc<[u8]>),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<Vec<(Val<'a>, Val<'a>)>>),
    /// A JSON object or array, with what its schema says.
    Json(&'a Value, Option<&'a dyn Typing>),
    Time(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    Type(&'static str),
    Optional(Option<Rc<Val<'a>>>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpNet),
    Url(Rc<Url>),
    Semver(Rc<Version>),
    /// A named format: `dns1123Label`.
    Format(&'static str),
    Authorizer(Rc<dyn Authorizer + 'a>, Rc<Check>),
    Decision(Rc<Decision>),
}

impl<'a> Val<'a> {
    /// A JSON value without a schema.
    pub fn json(value: &'a Value) -> Val<'a> {
        Self::typed(value, None)
    }

    /// A JSON value with its schema.
    pub fn typed(value: &'a Value, typing: Option<&'a dyn Typing>) -> Val<'a> {
        match value {
            Value::Null => Val::Null,
            Value::Bool(value) => Val::Bool(*value),
            Value::Number(number) => number_of(number),
            Value::String(text) => match typing.map(Typing::format).unwrap_or_default() {
                "date-time" | "datetime" => text.parse().map_or_else(|_| Val::text(text), Val::Time),
                "date" => format!("{text}T00:00:00Z").parse().map_or_else(|_| Val::text(text), Val::Time),
                "duration" => crate::crd::duration(text).map_or_else(|| Val::text(text), Val::Duration),
                "byte" => base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_or_else(|_| Val::text(text), |bytes| Val::Bytes(bytes.into())),
                _ => Val::text(text),
            },
            Value::Array(_) | Value::Object(_) => Val::Json(value, typing),
        }
    }

    pub fn text(text: &'a str) -> Val<'a> {
        Val::Str(Cow::Borrowed(text))
    }

    pub(crate) fn string(text: impl Into<String>) -> Val<'a> {
        Val::Str(Cow::Owned(text.into()))
    }

    pub(crate) fn list(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(Rc::new(items))
    }

    pub(crate) fn optional(value: Option<Val<'a>>) -> Val<'a> {
        Val::Optional(value.map(Rc::new))
    }

    /// The items, when it is a list.
    pub(crate) fn items(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Val::List(items) => Some(items.to_vec()),
            Val::Json(Value::Array(items), typing) => {
                let of = typing.and_then(|typing| typing.item());
                Some(items.iter().map(|item| Val::typed(item, of)).collect())
            }
            _ => None,
        }
    }

    /// The entries, when it is a map.
    pub(crate) fn entries(&self) -> Option<Vec<(Val<'a>, Val<'a>)>> {
        match self {
            Val::Map(entries) => Some(entries.to_vec()),
            Val::Json(Value::Object(members), typing) => Some(
                members
                    .iter()
                    .map(|(name, value)| (Val::text(name), Val::typed(value, member_type(*typing, name))))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// How many characters, items or entries.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Val::Str(text) => Some(text.chars().count()),
            Val::Bytes(bytes) => Some(bytes.len()),
            Val::List(items) => Some(items.len()),
            Val::Map(entries) => Some(entries.len()),
            Val::Json(Value::Array(items), _) => Some(items.len()),
            Val::Json(Value::Object(members), _) => Some(members.len()),
            _ => None,
        }
    }

    /// The member of a name or key; `None` when there is none.
    pub(crate) fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match self {
            Val::Json(Value::Object(members), typing) => {
                let Val::Str(name) = key else { return None };
                member(members, name, *typing)
            }
            Val::Map(entries) => entries.iter().find(|(own, _)| own.equals(key)).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self, Val::Map(_) | Val::Json(Value::Object(_), _))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Val::List(_) | Val::Json(Value::Array(_), _))
    }

    /// The name that `type(x)` prints.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Str(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::List(_) | Val::Json(Value::Array(_), _) => "list",
            Val::Map(_) | Val::Json(..) => "map",
            Val::Time(_) => "google.protobuf.Timestamp",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::Type(_) => "type",
            Val::Optional(_) => "optional_type",
            Val::Quantity(_) => "kubernetes.Quantity",
            Val::Ip(_) => "net.IP",
            Val::Cidr(_) => "net.CIDR",
            Val::Url(_) => "kubernetes.URL",
            Val::Semver(_) => "kubernetes.Semver",
            Val::Format(_) => "kubernetes.NamedFormat",
            Val::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Val::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// The value as JSON, for mutations, audit annotations and messages. `None` when JSON has no such value.
    pub fn to_json(&self) -> Option<Value> {
        Some(match self {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(*value),
            Val::Int(value) => Value::from(*value),
            Val::Uint(value) => Value::from(*value),
            Val::Double(value) => Value::Number(Number::from_f64(*value)?),
            Val::Str(text) => Value::String(text.to_string()),
            Val::Bytes(bytes) => Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Val::List(items) => Value::Array(items.iter().map(Val::to_json).collect::<Option<_>>()?),
            Val::Map(entries) => {
                let mut members = Map::new();
                for (key, value) in entries.iter() {
                    let Val::Str(name) = key else { return None };
                    members.insert(name.to_string(), value.to_json()?);
                }
                Value::Object(members)
            }
            Val::Json(value, _) => (*value).clone(),
            Val::Time(at) => Value::String(at.to_string()),
            Val::Duration(nanos) => Value::String(super::functions::convert::duration_text(*nanos)),
            Val::Optional(Some(value)) => value.to_json()?,
            Val::Optional(None) => Value::Null,
            Val::Quantity(quantity) => Value::String(quantity.to_string()),
            _ => return None,
        })
    }
}

fn number_of(number: &Number) -> Val<'static> {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Val::Int(value),
        (None, Some(value)) => Val::Uint(value),
        _ => Val::Double(number.as_f64().unwrap_or_default()),
    }
}

fn member_type<'a>(typing: Option<&'a dyn Typing>, name: &str) -> Option<&'a dyn Typing> {
    typing.and_then(|typing| typing.member(name))
}

fn member<'a>(members: &'a Map<String, Value>, name: &str, typing: Option<&'a dyn Typing>) -> Option<Val<'a>> {
    if let Some(value) = members.get(name) {
        return Some(Val::typed(value, member_type(typing, name)));
    }
    let plain = unescape(name)?;
    Some(Val::typed(members.get(&plain)?, member_type(typing, &plain)))
}

/// A member's name whose characters or word CEL does not allow is written escaped. `None` when it is not.
pub(super) fn unescape(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && !word.is_empty()
        && !word.contains("__")
        && !matches!(word, "underscores" | "dot" | "dash" | "slash")
    {
        return Some(word.to_string());
    }
    let plain = name
        .replace("__underscores__", "\u{0}")
        .replace("__dot__", ".")
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace('\u{0}', "__");
    (plain != name).then_some(plain)
}
