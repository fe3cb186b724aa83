//! Conversions between types, and the names of types.

use base64::Engine as _;

use super::{
    super::{EvalError, value::Val},
    Result,
};

/// A type by its name.
pub(in crate::cel) fn type_named<'a>(name: &str) -> Option<Val<'a>> {
    const TYPES: [&str; 12] = [
        "null_type",
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "type",
        "optional_type",
        "google.protobuf.Timestamp",
    ];
    TYPES.iter().find(|own| **own == name).map(|name| Val::Type(name))
}

/// Whether `optional.ofNonZeroValue` takes the value for nothing.
pub(super) fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(value) => *value == 0.0,
        value => value.size() == Some(0),
    }
}

fn range<'a>() -> Result<'a> {
    Err(EvalError::new("integer overflow"))
}

pub(super) fn make<'a>(name: &str, arg: Val<'a>) -> Result<'a> {
    match (name, &arg) {
        ("dyn", _) => Ok(arg),
        ("type", _) => Ok(Val::Type(arg.type_name())),
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) | ("string", Val::Str(_)) => Ok(arg),
        ("int", Val::Uint(value)) => i64::try_from(*value).map_or_else(|_| range(), |value| Ok(Val::Int(value))),
        ("int", Val::Double(value)) if value.abs() < 9.223_372_036_854_775e18 => Ok(Val::Int(*value as i64)),
        ("int" | "uint", Val::Double(_)) if name == "int" => range(),
        ("int", Val::Str(text)) => {
            text.parse().map(Val::Int).map_err(|_| EvalError::new(format!("cannot convert {text:?} to int")))
        }
        ("int", Val::Time(at)) => Ok(Val::Int(at.as_second())),
        ("uint", Val::Int(value)) => u64::try_from(*value).map_or_else(|_| range(), |value| Ok(Val::Uint(value))),
        ("uint", Val::Double(value)) if *value >= 0.0 && *value < 1.8e19 => Ok(Val::Uint(*value as u64)),
        ("uint", Val::Double(_)) => range(),
        ("uint", Val::Str(text)) => {
            text.parse().map(Val::Uint).map_err(|_| EvalError::new(format!("cannot convert {text:?} to uint")))
        }
        ("double", Val::Int(value)) => Ok(Val::Double(*value as f64)),
        ("double", Val::Uint(value)) => Ok(Val::Double(*value as f64)),
        ("double", Val::Str(text)) => {
            text.parse().map(Val::Double).map_err(|_| EvalError::new(format!("cannot convert {text:?} to double")))
        }
        ("bool", Val::Bool(_)) => Ok(arg),
        ("bool", Val::Str(text)) => match text.as_ref() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Val::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Val::Bool(false)),
            _ => Err(EvalError::new(format!("cannot convert {text:?} to bool"))),
        },
        ("bytes", Val::Bytes(_)) => Ok(arg),
        ("bytes", Val::Str(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        ("string", value) => to_text(value).map(Val::string).ok_or_else(EvalError::overload),
        ("timestamp", Val::Time(_)) | ("duration", Val::Duration(_)) => Ok(arg),
        ("timestamp", Val::Str(text)) => {
            text.parse().map(Val::Time).map_err(|_| EvalError::new(format!("cannot convert {text:?} to timestamp")))
        }
        ("timestamp", Val::Int(seconds)) => {
            jiff::Timestamp::from_second(*seconds).map_or_else(|_| range(), |at| Ok(Val::Time(at)))
        }
        ("duration", Val::Str(text)) => match crate::crd::duration(text) {
            Some(nanos) => Ok(Val::Duration(nanos)),
            None => Err(EvalError::new(format!("cannot convert {text:?} to duration"))),
        },
        _ => Err(EvalError::overload()),
    }
}

/// The text of a value, as `string(x)` gives it.
pub(super) fn to_text(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Str(text) => text.to_string(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) => value.to_string(),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Val::Time(at) => at.to_string(),
        Val::Duration(nanos) => duration_text(*nanos),
        Val::Type(name) => (*name).to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(cidr) => cidr.to_string(),
        Val::Url(url) => url.to_string(),
        Val::Semver(version) => version.to_string(),
        _ => return None,
    })
}

/// Seconds with as many digits as it takes: `90s`, `1.5s`.
pub(in crate::cel) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

/// How `format()` shows a value with `%s`.
pub(super) fn shown(value: &Val<'_>) -> Option<String> {
    if let Some(items) = value.items() {
        let items: Option<Vec<String>> = items.iter().map(shown).collect();
        return Some(format!("[{}]", items?.join(", ")));
    }
    if let Some(entries) = value.entries() {
        let mut entries: Vec<String> = entries
            .iter()
            .map(|(key, value)| Some(format!("{}: {}", shown(key)?, shown(value)?)))
            .collect::<Option<_>>()?;
        entries.sort();
        return Some(format!("{{{}}}", entries.join(", ")));
    }
    match value {
        Val::Null => Some("null".into()),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .ok()
            .or_else(|| Some(base64::engine::general_purpose::STANDARD.encode(bytes))),
        other => to_text(other),
    }
}
