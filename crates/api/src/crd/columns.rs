//! Table columns of custom resources.

use serde_json::{Value, json};

use super::jsonpath::JsonPath;
use crate::{status::FieldError, time};

/// A printer column.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: JsonPath,
}

/// The additional columns of a version; Age when there are none. Paths that do not parse show nothing.
pub(super) fn read(version: &Value) -> Vec<Column> {
    let given = version.get("additionalPrinterColumns").and_then(Value::as_array).filter(|all| !all.is_empty());
    let Some(given) = given else {
        let path = JsonPath::parse(".metadata.creationTimestamp").ok();
        let age = path.map(|path| Column {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "CreationTimestamp is a timestamp representing the server time when this object was created."
                .into(),
            priority: 0,
            path,
        });
        return age.into_iter().collect();
    };
    given
        .iter()
        .filter_map(|column| {
            let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
            Some(Column {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description: text("description"),
                priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
                path: JsonPath::parse(&text("jsonPath")).ok()?,
            })
        })
        .collect()
}

/// Field errors of the paths.
pub(super) fn check(version: &Value, path: &str) -> Vec<FieldError> {
    let columns = version.get("additionalPrinterColumns").and_then(Value::as_array).into_iter().flatten();
    columns
        .enumerate()
        .filter_map(|(index, column)| {
            let given = column.get("jsonPath")?.as_str()?;
            let why = JsonPath::parse(given).err()?;
            let field = format!("{path}[{index}].JSONPath");
            Some(FieldError::invalid(field, given, format!("is an invalid path: {why}")))
        })
        .collect()
}

impl Column {
    pub(super) fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description, "priority": self.priority})
    }

    pub(super) fn cell(&self, object: &Value, now: &str) -> Value {
        let found = self.path.find(object);
        let Some(value) = found.first() else { return Value::Null };
        match (self.kind.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).into()
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("date", Value::String(text)) if time::parse(text).is_ok() => time::age(text, now).into(),
            ("date", Value::String(_)) => "<invalid>".into(),
            _ => Value::Null,
        }
    }
}
