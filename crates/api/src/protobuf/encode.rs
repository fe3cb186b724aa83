//! JSON to messages.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    Error,
    messages::{Card, Field, Kind, Message, Other, Table},
    wire::Writer,
};
use crate::time;

/// Writes the members that the message has; others have no protobuf form.
pub(super) fn message(
    table: &Table,
    index: usize,
    members: &Map<String, Value>,
    out: &mut Writer,
) -> Result<(), Error> {
    let message: &Message = table.message(index);
    for (name, value) in members {
        if let Some(own) = message.named(name).filter(|_| !value.is_null()) {
            field(table, own, value, out)?;
        }
    }
    for own in message.fields.iter().filter(|own| message.inlines && own.inline) {
        if let Kind::Message(index) = own.kind {
            let start = out.len();
            let mut empty = false;
            out.nested(own.number, |inner| {
                let before = inner.len();
                self::message(table, index, members, inner)?;
                empty = inner.len() == before;
                Ok(())
            })?;
            if empty {
                out.truncate(start);
            }
        }
    }
    Ok(())
}

fn field(table: &Table, field: &Field, value: &Value, out: &mut Writer) -> Result<(), Error> {
    match (field.card, value) {
        (Card::One, value) => one(table, field, field.number, value, out),
        (Card::Repeated, Value::Array(items)) => {
            items.iter().try_for_each(|item| one(table, field, field.number, item, out))
        }
        (Card::Map, Value::Object(members)) => members.iter().try_for_each(|(key, value)| {
            out.nested(field.number, |entry| {
                entry.text(1, key);
                one(table, field, 2, value, entry)
            })
        }),
        (Card::Repeated, _) => Err(mismatch(field, "a list")),
        (Card::Map, _) => Err(mismatch(field, "an object")),
    }
}

fn mismatch(field: &Field, wanted: &'static str) -> Error {
    Error::Mismatch { field: field.name.to_string(), wanted }
}

fn one(table: &Table, field: &Field, number: u32, value: &Value, out: &mut Writer) -> Result<(), Error> {
    let text = || value.as_str().ok_or_else(|| mismatch(field, "a string"));
    match field.kind {
        Kind::String => out.text(number, text()?),
        Kind::Bytes => {
            let bytes = STANDARD.decode(text()?).map_err(|_| mismatch(field, "base64 text"))?;
            out.blob(number, &bytes);
        }
        Kind::Bool => out.int(number, value.as_bool().ok_or_else(|| mismatch(field, "true or false"))?.into()),
        Kind::Int32 | Kind::Int64 => {
            // A whole number may be written with a fraction of zero.
            let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
            let int = value.as_i64().or_else(|| value.as_f64().and_then(whole));
            out.int(number, int.ok_or_else(|| mismatch(field, "a whole number"))?);
        }
        Kind::Double => out.double(number, value.as_f64().ok_or_else(|| mismatch(field, "a number"))?),
        Kind::Message(index) => {
            let members = value.as_object().ok_or_else(|| mismatch(field, "an object"))?;
            out.nested(number, |inner| message(table, index, members, inner))?;
        }
        Kind::Time | Kind::MicroTime => {
            let text = text()?;
            let at = time::parse(text).map_err(|_| mismatch(field, "a time"))?;
            out.nested(number, |inner| {
                inner.int(1, at.as_second());
                inner.int(2, at.subsec_nanosecond().into());
                Ok(())
            })?;
        }
        Kind::Quantity => {
            let quantity = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(mismatch(field, "a quantity")),
            };
            out.nested(number, |inner| {
                inner.text(1, &quantity);
                Ok(())
            })?;
        }
        Kind::IntOrString => out.nested(number, |inner| {
            match value {
                Value::String(text) => {
                    inner.int(1, 1);
                    inner.int(2, 0);
                    inner.text(3, text);
                }
                _ => {
                    inner.int(1, 0);
                    inner.int(2, value.as_i64().ok_or_else(|| mismatch(field, "a whole number or a string"))?);
                    inner.text(3, "");
                }
            }
            Ok(())
        })?,
        Kind::Json => out.nested(number, |inner| {
            inner.blob(1, value.to_string().as_bytes());
            Ok(())
        })?,
        Kind::Texts => out.nested(number, |inner| texts(field, 1, value, inner))?,
        Kind::SchemaOr(other, schema) => {
            out.nested(number, |inner| schema_or(table, field, other, schema, value, inner))?
        }
    }
    Ok(())
}

fn texts(field: &Field, number: u32, value: &Value, out: &mut Writer) -> Result<(), Error> {
    let items = value.as_array().ok_or_else(|| mismatch(field, "a list of strings"))?;
    items.iter().try_for_each(|item| {
        out.text(number, item.as_str().ok_or_else(|| mismatch(field, "a list of strings"))?);
        Ok(())
    })
}

fn schema_or(
    table: &Table,
    field: &Field,
    other: Other,
    schema: usize,
    value: &Value,
    out: &mut Writer,
) -> Result<(), Error> {
    let number_of_schema = if other == Other::Bool { 2 } else { 1 };
    match (other, value) {
        (_, Value::Object(members)) => {
            if other == Other::Bool {
                // A schema allows something.
                out.int(1, 1);
            }
            out.nested(number_of_schema, |inner| message(table, schema, members, inner))
        }
        (Other::Bool, Value::Bool(allows)) => {
            out.int(1, (*allows).into());
            Ok(())
        }
        (Other::Schemas, Value::Array(schemas)) => schemas.iter().try_for_each(|value| {
            let members = value.as_object().ok_or_else(|| mismatch(field, "a list of schemas"))?;
            out.nested(2, |inner| message(table, schema, members, inner))
        }),
        (Other::Texts, value) => texts(field, 2, value, out),
        _ => Err(mismatch(field, "a schema")),
    }
}
