//! A cursor over a JSON object that knows its field path.
//!
//! Validators walk [`Field`]s instead of bare values: the path is a chain of borrowed steps that costs nothing until an
//! error is made, and the errors come out with the paths that Kubernetes prints (`spec.containers[0].image`).

use serde_json::{Map, Value};

use crate::status::{FieldError, FieldErrorKind};

/// Collected field errors.
pub type Errors = Vec<FieldError>;

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    /// One or more member names joined with dots.
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A place in an object: the value there (`Null` when absent) and the way to it.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    value: &'a Value,
    parent: Option<&'a Field<'a>>,
    step: Step<'a>,
}

const NULL: &Value = &Value::Null;

impl<'a> Field<'a> {
    /// The object itself.
    pub fn root(value: &'a Value) -> Field<'a> {
        Field { value, parent: None, step: Step::Root }
    }

    /// `value` as if it stood at `path`.
    pub fn at(value: &'a Value, path: &'a str) -> Field<'a> {
        Field { value, parent: None, step: Step::Name(path) }
    }

    /// The member at a dotted path below this one.
    pub fn get<'b>(&'b self, path: &'b str) -> Field<'b> {
        Field { value: walk(self.value, path), parent: Some(self), step: Step::Name(path) }
    }

    /// The place of a map entry: printed `parent[key]`.
    pub fn key<'b>(&'b self, key: &'b str) -> Field<'b> {
        let value = self.value.get(key).unwrap_or(NULL);
        Field { value, parent: Some(self), step: Step::Key(key) }
    }

    /// The place of a list item: printed `parent[index]`.
    pub fn index(&self, index: usize) -> Field<'_> {
        Field { value: self.value.get(index).unwrap_or(NULL), parent: Some(self), step: Step::Index(index) }
    }

    /// List items with their places.
    pub fn items(&self) -> impl Iterator<Item = Field<'_>> {
        self.list().iter().enumerate().map(|(index, value)| Field {
            value,
            parent: Some(self),
            step: Step::Index(index),
        })
    }

    /// Map entries with their places.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Field<'_>)> {
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), Field { value, parent: Some(self), step: Step::Key(key) }))
    }

    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The text there; empty when absent.
    pub fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// `true` only when the value is there and true.
    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    pub fn list(&self) -> &'a [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    /// Present and not null.
    pub fn exists(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, null, or an empty text, list or map.
    pub fn is_empty(&self) -> bool {
        is_empty(self.value)
    }

    /// The path as upstream prints it.
    pub fn path(&self) -> String {
        let mut out = match self.parent {
            Some(parent) => parent.path(),
            None => String::new(),
        };
        match self.step {
            Step::Root => {}
            Step::Name(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out += name;
            }
            Step::Index(index) => out += &format!("[{index}]"),
            Step::Key(key) => out += &format!("[{key}]"),
        }
        out
    }

    pub fn required(&self, detail: impl Into<String>) -> FieldError {
        FieldError::required(self.path(), detail)
    }

    pub fn invalid(&self, detail: impl Into<String>) -> FieldError {
        let value = match self.value {
            Value::Null => Value::String(String::new()),
            other => other.clone(),
        };
        FieldError::invalid(self.path(), value, detail)
    }

    /// Invalid, printing `value` instead of what stands here.
    pub fn invalid_value(&self, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(self.path(), value, detail)
    }

    pub fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(self.path(), detail)
    }

    pub fn duplicate(&self) -> FieldError {
        FieldError::duplicate(self.path(), self.value.clone())
    }

    pub fn not_found(&self) -> FieldError {
        FieldError::not_found(self.path(), self.value.clone())
    }

    pub fn not_supported(&self, supported: &[&str]) -> FieldError {
        let value = match self.value {
            Value::Null => Value::String(String::new()),
            other => other.clone(),
        };
        FieldError::not_supported(self.path(), value, supported)
    }

    pub fn too_long(&self, max_bytes: usize) -> FieldError {
        FieldError::too_long(self.path(), max_bytes)
    }

    /// More items than allowed.
    pub fn too_many(&self, actual: usize, max: usize) -> FieldError {
        let detail = format!("must have at most {max} {}", if max == 1 { "item" } else { "items" });
        FieldError::new(FieldErrorKind::TooMany, self.path(), actual, detail)
    }

    /// One error for each message about the text here.
    pub fn judge(&self, errors: &mut Errors, messages: Vec<String>) {
        errors.extend(messages.into_iter().map(|message| self.invalid(message)));
    }

    /// The text here is one of `supported`; absent texts are an error too.
    pub fn one_of(&self, errors: &mut Errors, supported: &[&str]) -> bool {
        let fine = supported.contains(&self.str());
        if !fine {
            errors.push(self.not_supported(supported));
        }
        fine
    }

    /// As [`Field::one_of`], but the absent text is a `Required` error.
    pub fn required_one_of(&self, errors: &mut Errors, supported: &[&str]) -> bool {
        if self.str().is_empty() {
            errors.push(self.required(""));
            return false;
        }
        self.one_of(errors, supported)
    }

    /// An integer here is not negative.
    pub fn not_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|number| number < 0) {
            errors.push(self.invalid("must be greater than or equal to 0"));
        }
    }

    /// An integer here is above zero; absent ones pass.
    pub fn positive(&self, errors: &mut Errors) {
        if self.int().is_some_and(|number| number <= 0) {
            errors.push(self.invalid("must be greater than zero"));
        }
    }

    /// The value here equals the one in the old object.
    pub fn immutable(&self, errors: &mut Errors, old: &Field<'_>) -> bool {
        let same = same(self.value, old.value);
        if !same {
            errors.push(self.invalid("field is immutable"));
        }
        same
    }
}

/// The value at a dotted path; `Null` when absent.
pub fn walk<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(value, |value, name| value.get(name)).unwrap_or(NULL)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Equal in meaning: empty lists, maps and nulls count as absent.
///
/// An empty object stays different from an absent one only where both sides are compared directly; inside an object an
/// empty member equals a missing one, as the API's semantic equality has it for lists and maps.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            left.iter().all(|(name, value)| same(value, right.get(name).unwrap_or(NULL)))
                && right.iter().all(|(name, value)| left.contains_key(name) || is_empty(value))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        _ => a == b || is_empty(a) && is_empty(b),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_printed_as_kubernetes_prints_them() {
        let pod = json!({"spec": {"containers": [{"image": 1}]}, "metadata": {"labels": {"a/b": "c"}}});
        let root = &Field::root(&pod);
        let containers = &root.get("spec.containers");
        let first = &containers.index(0);
        assert_eq!(first.get("image").path(), "spec.containers[0].image");
        let labels = &root.get("metadata.labels");
        assert_eq!(labels.key("a/b").path(), "metadata.labels[a/b]");
        assert_eq!(labels.key("a/b").str(), "c");
    }

    #[test]
    fn empty_members_equal_absent_ones() {
        assert!(same(&json!({"a": [], "b": 1}), &json!({"b": 1, "c": {}})));
        assert!(!same(&json!({"b": 1}), &json!({"b": 2})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }
}
