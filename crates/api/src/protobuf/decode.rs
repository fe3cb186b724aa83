//! Messages to JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::{
    Error,
    messages::{Card, Field, Kind, Message, Other, Table},
    wire::{Reader, Wire},
};
use crate::time;

/// Reads a message's fields; unknown ones are skipped.
pub(super) fn message(table: &Table, index: usize, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Error> {
    let depth = depth.checked_sub(1).ok_or(Error::Malformed("messages are nested too deep"))?;
    let message: &Message = table.message(index);
    let mut members = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        let Some(field) = message.numbered(number) else { continue };
        match field.card {
            Card::One if field.inline => {
                if let Kind::Message(index) = field.kind {
                    members.extend(self::message(table, index, wire.bytes()?, depth)?);
                }
            }
            Card::One => {
                if let Some(value) =
                    one(table, field, wire, depth)?.filter(|value| field.keep_zero || !is_zero(field.kind, value))
                {
                    merge(&mut members, field, value);
                }
            }
            Card::Repeated => repeated(table, field, wire, depth, &mut members)?,
            Card::Map => {
                let (mut key, mut value) = ("", None);
                let mut entry = Reader::new(wire.bytes()?);
                while let Some((number, wire)) = entry.field()? {
                    match number {
                        1 => key = wire.text()?,
                        2 => value = one(table, field, wire, depth)?,
                        _ => {}
                    }
                }
                let value = value.unwrap_or_else(|| zero(field.kind));
                if let Value::Object(all) = members.entry(field.name).or_insert_with(|| Map::new().into()) {
                    all.insert(key.to_string(), value);
                }
            }
        }
    }
    Ok(members)
}

/// A message that comes in parts is one.
fn merge(members: &mut Map<String, Value>, field: &Field, value: Value) {
    match (members.get_mut(field.name), value) {
        (Some(Value::Object(known)), Value::Object(more)) if matches!(field.kind, Kind::Message(_)) => {
            known.extend(more)
        }
        (_, value) => _ = members.insert(field.name.to_string(), value),
    }
}

fn repeated(
    table: &Table,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
    members: &mut Map<String, Value>,
) -> Result<(), Error> {
    let Value::Array(items) = members.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) else {
        return Ok(());
    };
    match (field.kind, wire) {
        (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Bytes(packed)) => {
            for int in Reader::new(packed).packed()? {
                items.extend(one(table, field, Wire::Varint(int as u64), depth)?);
            }
        }
        _ => items.extend(one(table, field, wire, depth)?),
    }
    Ok(())
}

/// What Go's encoding says of a plain field that has no value.
fn is_zero(kind: Kind, value: &Value) -> bool {
    if !matches!(kind, Kind::String | Kind::Bytes | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Double) {
        return false;
    }
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A map entry's value that is not on the wire.
fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => 0.into(),
        Kind::Message(_) => Map::new().into(),
        Kind::Quantity => "0".into(),
        Kind::Texts => Value::Array(Vec::new()),
        _ => "".into(),
    }
}

/// One value; `None`: there is none, in a message that Go writes for a value that is not set.
fn one(table: &Table, field: &Field, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, Error> {
    Ok(Some(match field.kind {
        Kind::String => wire.text()?.into(),
        Kind::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Kind::Bool => (wire.int()? != 0).into(),
        // Negative numbers come sign-extended to 64 bits.
        Kind::Int32 => (wire.int()? as i32).into(),
        Kind::Int64 => wire.int()?.into(),
        Kind::Double => number(wire.double()?),
        Kind::Message(index) => message(table, index, wire.bytes()?, depth)?.into(),
        Kind::Time | Kind::MicroTime => return instant(field.kind, wire.bytes()?),
        Kind::Quantity => match text_in(wire.bytes()?, 1)? {
            "" => "0".into(),
            text => text.into(),
        },
        Kind::IntOrString => {
            let (mut is_text, mut int, mut text) = (false, 0, "");
            let mut reader = Reader::new(wire.bytes()?);
            while let Some((number, wire)) = reader.field()? {
                match number {
                    1 => is_text = wire.int()? == 1,
                    2 => int = wire.int()? as i32,
                    3 => text = wire.text()?,
                    _ => {}
                }
            }
            if is_text { text.into() } else { int.into() }
        }
        Kind::Json => match text_in(wire.bytes()?, 1)? {
            "" => return Ok(None),
            text => serde_json::from_str(text).map_err(|_| Error::Malformed("embedded JSON is none"))?,
        },
        Kind::Texts => texts(wire.bytes()?, 1)?.into(),
        Kind::SchemaOr(other, schema) => return schema_or(table, other, schema, wire.bytes()?, depth),
    }))
}

/// A whole number is written as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn instant(kind: Kind, bytes: &[u8]) -> Result<Option<Value>, Error> {
    let (mut seconds, mut nanos) = (None, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match number {
            1 => seconds = Some(wire.int()?),
            2 => nanos = wire.int()?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let nanos = i32::try_from(nanos).map_err(|_| Error::Malformed("a time has too many nanoseconds"))?;
    let at = Timestamp::new(seconds, nanos).map_err(|_| Error::Malformed("a time is out of range"))?;
    Ok(Some(if kind == Kind::MicroTime { time::micros(at) } else { time::seconds(at) }.into()))
}

fn text_in(bytes: &[u8], wanted: u32) -> Result<&str, Error> {
    let mut reader = Reader::new(bytes);
    let mut text = "";
    while let Some((number, wire)) = reader.field()? {
        if number == wanted {
            text = wire.text()?;
        }
    }
    Ok(text)
}

fn texts(bytes: &[u8], wanted: u32) -> Result<Vec<Value>, Error> {
    let mut reader = Reader::new(bytes);
    let mut texts = Vec::new();
    while let Some((number, wire)) = reader.field()? {
        if number == wanted {
            texts.push(wire.text()?.into());
        }
    }
    Ok(texts)
}

fn schema_or(table: &Table, other: Other, schema: usize, bytes: &[u8], depth: usize) -> Result<Option<Value>, Error> {
    let (mut found, mut schemas, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        let read = || Ok::<Value, Error>(message(table, schema, wire.bytes()?, depth)?.into());
        match (other, number) {
            (Other::Schemas | Other::Texts, 1) | (Other::Bool, 2) => found = Some(read()?),
            (Other::Schemas, 2) => schemas.push(read()?),
            (Other::Texts, 2) => schemas.push(wire.text()?.into()),
            (Other::Bool, 1) => allows = wire.int()? != 0,
            _ => {}
        }
    }
    Ok(Some(match (found, other) {
        (Some(found), _) => found,
        (None, Other::Bool) => allows.into(),
        (None, _) => schemas.into(),
    }))
}
