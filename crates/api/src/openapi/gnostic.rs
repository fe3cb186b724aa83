//! Version 2 documents as the `openapi.v2.Document` message that Go clients ask for.
//!
//! Maps become lists of named values; extensions and untyped values become YAML text, of which JSON is a part.

use serde_json::{Map, Value};

use crate::protobuf::{Error, wire::Writer};

/// How a member of a JSON object is written: its number and its form.
type Field = (&'static str, u32, Form);

/// A message by the members of its JSON object.
struct Message {
    fields: &'static [Field],
    /// Number of the extensions: members that begin with `x-`.
    extensions: u32,
}

enum Form {
    Text,
    Bool,
    Int,
    Double,
    Texts,
    /// Anything, as text.
    Any,
    Anys,
    One(&'static Message),
    Many(&'static Message),
    /// A message with one field of this number: one message.
    Wrapped(u32, &'static Message),
    /// A message with one field of this number: messages named by the members' names.
    Named(u32, &'static Message),
    /// A message with one field: texts, of which this is one.
    TextList,
    AdditionalProperties,
    Parameters,
    Responses,
    Security,
    SecurityDefinitions,
}

use Form::{Any, Anys, Bool, Double, Int, Many, Named, One, Text, TextList, Texts, Wrapped};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 8, Named(2, &PATH_ITEM)),
        ("definitions", 9, Named(1, &SCHEMA)),
        ("security", 12, Form::Security),
        ("securityDefinitions", 13, Form::SecurityDefinitions),
    ],
    extensions: 16,
};

static INFO: Message =
    Message { fields: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], extensions: 7 };

static API_KEY: Message = Message {
    fields: &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)],
    extensions: 5,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Texts),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::Responses),
        ("schemes", 10, Texts),
    ],
    extensions: 13,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, One(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("uniqueItems", 20, Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("uniqueItems", 19, Bool),
    ],
    extensions: 22,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("schema", 2, Wrapped(1, &SCHEMA))], extensions: 5 };

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Form::AdditionalProperties),
        ("type", 22, TextList),
        ("items", 23, Wrapped(1, &SCHEMA)),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, Named(1, &SCHEMA)),
        ("example", 30, Any),
    ],
    extensions: 31,
};

/// Encodes a document. What the message has no field for is left out.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Writer::new(&[]);
    message(&DOCUMENT, document, &mut out);
    out.finish()
}

fn nested(out: &mut Writer, number: u32, write: impl FnOnce(&mut Writer)) {
    let written: Result<(), Error> = out.nested(number, |inner| {
        write(inner);
        Ok(())
    });
    debug_assert!(written.is_ok());
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn message(of: &Message, value: &Value, out: &mut Writer) {
    for (name, value) in members(value) {
        if name.starts_with("x-") {
            named(out, of.extensions, name, |any| any.text(2, &value.to_string()));
        } else if let Some((_, number, form)) = of.fields.iter().find(|(own, ..)| own == name) {
            field(*number, form, value, out);
        }
    }
}

/// A `NamedX` message: 1 name, 2 value.
fn named(out: &mut Writer, number: u32, name: &str, value: impl FnOnce(&mut Writer)) {
    nested(out, number, |entry| {
        entry.text(1, name);
        nested(entry, 2, value);
    });
}

fn field(number: u32, form: &Form, value: &Value, out: &mut Writer) {
    match form {
        Form::Text => out.text(number, value.as_str().unwrap_or_default()),
        Form::Bool => out.int(number, value.as_bool().unwrap_or_default().into()),
        Form::Int => out.int(number, value.as_i64().unwrap_or_default()),
        Form::Double => out.double(number, value.as_f64().unwrap_or_default()),
        Form::Texts => items(value).filter_map(Value::as_str).for_each(|text| out.text(number, text)),
        Form::Any => nested(out, number, |any| any.text(2, &value.to_string())),
        Form::Anys => items(value).for_each(|item| nested(out, number, |any| any.text(2, &item.to_string()))),
        Form::One(of) => nested(out, number, |inner| message(of, value, inner)),
        Form::Many(of) => items(value).for_each(|item| nested(out, number, |inner| message(of, item, inner))),
        Form::Wrapped(wrapped, of) => {
            nested(out, number, |inner| nested(inner, *wrapped, |inner| message(of, value, inner)));
        }
        Form::Named(own, of) => nested(out, number, |inner| {
            members(value).for_each(|(name, value)| named(inner, *own, name, |inner| message(of, value, inner)));
        }),
        Form::TextList => nested(out, number, |inner| inner.text(1, value.as_str().unwrap_or_default())),
        Form::AdditionalProperties => nested(out, number, |inner| match value {
            Value::Bool(allowed) => inner.int(2, (*allowed).into()),
            schema => nested(inner, 1, |inner| message(&SCHEMA, schema, inner)),
        }),
        Form::Parameters => items(value).for_each(|parameter| {
            nested(out, number, |item| nested(item, 1, |choice| self::parameter(parameter, choice)));
        }),
        Form::Responses => nested(out, number, |inner| {
            members(value).for_each(|(code, response)| {
                named(inner, 1, code, |choice| nested(choice, 1, |inner| message(&RESPONSE, response, inner)));
            });
        }),
        Form::Security => items(value).for_each(|requirement| {
            nested(out, number, |inner| {
                members(requirement).for_each(|(name, scopes)| {
                    named(inner, 1, name, |list| field(1, &Form::Texts, scopes, list));
                });
            });
        }),
        Form::SecurityDefinitions => nested(out, number, |inner| {
            members(value).for_each(|(name, definition)| {
                named(inner, 1, name, |choice| nested(choice, 2, |inner| message(&API_KEY, definition, inner)));
            });
        }),
    }
}

/// A `Parameter`: 1 in the body, 2 elsewhere, of which 3 in the query and 4 in the path.
fn parameter(parameter: &Value, out: &mut Writer) {
    let empty = Map::new();
    let place = parameter.as_object().unwrap_or(&empty).get("in").and_then(Value::as_str);
    match place {
        Some("body") => nested(out, 1, |inner| message(&BODY_PARAMETER, parameter, inner)),
        Some("path") => {
            nested(out, 2, |choice| nested(choice, 4, |inner| message(&PATH_PARAMETER, parameter, inner)));
        }
        _ => nested(out, 2, |choice| nested(choice, 3, |inner| message(&QUERY_PARAMETER, parameter, inner))),
    }
}
