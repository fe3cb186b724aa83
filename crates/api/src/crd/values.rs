//! Value validations of a custom resource's schema, compiled once per version.
//!
//! Parts of an update that equal the old object are not judged again (ratcheting, KEP-4008), so that a schema may
//! become stricter under objects that break it. Patterns are compiled when they are first needed: a definition that
//! nobody uses costs no automaton.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Number, Value};

use super::{expressions::Expression, formats, list_items};
use crate::{
    cel::Typing,
    status::{FieldError, FieldErrorKind},
};

/// The validations of one schema node.
#[derive(Debug, Default)]
pub(super) struct Rules {
    types: Vec<Type>,
    nullable: bool,
    format: String,
    allowed: Vec<Value>,
    maximum: Option<(Number, bool)>,
    minimum: Option<(Number, bool)>,
    multiple_of: Option<Number>,
    max_length: Option<u64>,
    min_length: Option<u64>,
    pattern: Option<Pattern>,
    max_items: Option<u64>,
    min_items: Option<u64>,
    unique_items: bool,
    max_properties: Option<u64>,
    min_properties: Option<u64>,
    required: Vec<String>,
    /// Sorted by name.
    properties: Vec<(String, Rules)>,
    pub(super) additional: Option<Box<Rules>>,
    pub(super) items: Option<Box<Rules>>,
    all_of: Vec<Rules>,
    any_of: Vec<Rules>,
    one_of: Vec<Rules>,
    not: Option<Box<Rules>>,
    pub(super) list: list_items::Kind,
    embedded: bool,
    preserve: bool,
    pub(super) expressions: Vec<Expression>,
    /// Here or below.
    pub(super) has_expressions: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// A pattern that does not compile matches everything: the definition's validation has refused it.
    fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }
}

impl Rules {
    /// Compiles a schema node and everything below.
    pub(super) fn compile(schema: &Value) -> Rules {
        let number = |name: &str| schema.get(name).and_then(Value::as_number).cloned();
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let one = |name: &str| schema.get(name).filter(|of| of.is_object()).map(|of| Box::new(Rules::compile(of)));
        let all = |name: &str| -> Vec<Rules> {
            schema.get(name).and_then(Value::as_array).into_iter().flatten().map(Rules::compile).collect()
        };
        let types = if flag("x-kubernetes-int-or-string") {
            vec![Type::Integer, Type::String]
        } else {
            match text("type").as_str() {
                "object" => vec![Type::Object],
                "array" => vec![Type::Array],
                "string" => vec![Type::String],
                "integer" => vec![Type::Integer],
                "number" => vec![Type::Number],
                "boolean" => vec![Type::Boolean],
                _ => Vec::new(),
            }
        };
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let pattern = schema.get("pattern").and_then(Value::as_str);
        let mut rules = Rules {
            types,
            nullable: flag("nullable"),
            format: text("format"),
            allowed: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            maximum: number("maximum").map(|limit| (limit, flag("exclusiveMaximum"))),
            minimum: number("minimum").map(|limit| (limit, flag("exclusiveMinimum"))),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: pattern.map(|text| Pattern { text: text.into(), compiled: OnceLock::new() }),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag("uniqueItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: required.filter_map(|name| name.as_str().map(str::to_string)).collect(),
            properties: properties.map(|(name, of)| (name.clone(), Rules::compile(of))).collect(),
            additional: one("additionalProperties"),
            items: one("items"),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: one("not"),
            list: list_items::Kind::of(schema),
            embedded: flag("x-kubernetes-embedded-resource"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            expressions: Expression::read(schema),
            has_expressions: false,
        };
        let below =
            rules.properties.iter().map(|(_, of)| of).chain(rules.items.as_deref()).chain(rules.additional.as_deref());
        rules.has_expressions = !rules.expressions.is_empty() || below.into_iter().any(|of| of.has_expressions);
        rules
    }

    pub(super) fn property(&self, name: &str) -> Option<&Rules> {
        let at = self.properties.binary_search_by(|(own, _)| own.as_str().cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    /// Judges a value; `old` is what stood at the same place before.
    pub(super) fn check(&self, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
        if old == Some(value) {
            return;
        }
        if value.is_null() && self.nullable {
            return;
        }
        let name = format!("{path} in body ");
        if !self.types.is_empty() && !self.types.iter().any(|of| of.takes(value)) {
            let found = type_name(value);
            let wanted: Vec<&str> = self.types.iter().map(|of| of.name()).collect();
            let detail = format!("{name}must be of type {}: {found:?}", wanted.join(","));
            errors.push(FieldError::new(FieldErrorKind::TypeInvalid, path, found, detail));
            return;
        }
        let invalid = |value: Value, detail: String| FieldError::invalid(path, value, format!("{name}{detail}"));
        match value {
            Value::String(text) => self.string(text, path, &name, errors),
            Value::Number(number) => {
                errors.extend(self.number(number).into_iter().map(|why| invalid(value.clone(), why)))
            }
            Value::Array(items) => self.array(items, old, path, &name, errors),
            Value::Object(members) => self.object(members, old, path, &name, errors),
            _ => {}
        }
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| same(allowed, value)) {
            let shown = |allowed: &Value| match allowed {
                Value::String(text) => format!("{text:?}"),
                other => format!("{:?}", other.to_string()),
            };
            let supported: Vec<String> = self.allowed.iter().map(shown).collect();
            let detail = format!("supported values: {}", supported.join(", "));
            errors.push(FieldError::new(FieldErrorKind::NotSupported, path, value.clone(), detail));
        }
        self.combined(value, path, errors);
    }

    fn string(&self, text: &str, path: &str, name: &str, errors: &mut Vec<FieldError>) {
        let invalid = |detail: String| FieldError::invalid(path, text, format!("{name}{detail}"));
        let length = text.chars().count() as u64;
        if let Some(most) = self.max_length.filter(|most| length > *most) {
            errors.push(FieldError::too_long(path, most as usize));
        } else if let Some(least) = self.min_length.filter(|least| length < *least) {
            errors.push(invalid(format!("should be at least {least} chars long")));
        } else if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            errors.push(invalid(format!("should match '{}'", pattern.text)));
        }
        if self.types == [Type::String] && !formats::is(&self.format, text) {
            let detail = format!("{name}must be of type {}: {text:?}", self.format);
            errors.push(FieldError::new(FieldErrorKind::TypeInvalid, path, text, detail));
        }
    }

    fn number(&self, number: &Number) -> Vec<String> {
        let value = number.as_f64().unwrap_or_default();
        let mut out = Vec::new();
        if let Some(factor) = &self.multiple_of {
            let whole = match (number.as_i64(), factor.as_i64()) {
                (Some(number), Some(factor)) if factor != 0 => number % factor == 0,
                _ => {
                    let times = value / factor.as_f64().unwrap_or(1.0);
                    (times - times.round()).abs() < 1e-9
                }
            };
            if !whole {
                out.push(format!("should be a multiple of {factor}"));
            }
        }
        if let Some((limit, exclusive)) = &self.maximum {
            match compare(number, limit) {
                std::cmp::Ordering::Greater if !exclusive => {
                    out.push(format!("should be less than or equal to {limit}"));
                }
                std::cmp::Ordering::Greater | std::cmp::Ordering::Equal if *exclusive => {
                    out.push(format!("should be less than {limit}"));
                }
                _ => {}
            }
        }
        if let Some((limit, exclusive)) = &self.minimum {
            match compare(number, limit) {
                std::cmp::Ordering::Less if !exclusive => {
                    out.push(format!("should be greater than or equal to {limit}"));
                }
                std::cmp::Ordering::Less | std::cmp::Ordering::Equal if *exclusive => {
                    out.push(format!("should be greater than {limit}"));
                }
                _ => {}
            }
        }
        out
    }

    fn array(&self, items: &[Value], old: Option<&Value>, path: &str, name: &str, errors: &mut Vec<FieldError>) {
        let length = items.len() as u64;
        if let Some(of) = &self.items {
            let before = self.list.correlate(items, old);
            for (index, (item, old)) in items.iter().zip(before).enumerate() {
                of.check(item, old, &format!("{path}[{index}]"), errors);
            }
        }
        if let Some(least) = self.min_items.filter(|least| length < *least) {
            let detail = format!("{name}should have at least {least} items");
            errors.push(FieldError::invalid(path, length, detail));
        }
        if let Some(most) = self.max_items.filter(|most| length > *most) {
            errors.push(too_many(path, length, most));
        }
        if self.unique_items && items.iter().enumerate().any(|(at, item)| items[..at].contains(item)) {
            errors.push(FieldError::invalid(path, "", format!("{name}shouldn't contain duplicates")));
        }
        self.list.duplicates(items, path, errors);
    }

    fn object(
        &self,
        members: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
        name: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let below = |member: &str| if path.is_empty() { member.to_string() } else { format!("{path}.{member}") };
        let length = members.len() as u64;
        if let Some(least) = self.min_properties.filter(|least| length < *least) {
            let detail = format!("{name}should have at least {least} properties");
            errors.push(FieldError::invalid(path, length, detail));
        }
        if let Some(most) = self.max_properties.filter(|most| length > *most) {
            errors.push(too_many(path, length, most));
        }
        for name in self.required.iter().filter(|name| !members.contains_key(*name)) {
            errors.push(FieldError::required(below(name), ""));
        }
        if self.embedded {
            for name in ["apiVersion", "kind"] {
                match members.get(name).and_then(Value::as_str) {
                    None | Some("") => errors.push(FieldError::required(below(name), "")),
                    Some(_) => {}
                }
            }
        }
        for (member, value) in members {
            if let Some(rules) = self.property(member).or(self.additional.as_deref()) {
                rules.check(value, old.and_then(|old| old.get(member)), &below(member), errors);
            }
        }
    }

    fn combined(&self, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let failures = |rules: &Rules| {
            let mut errors = Vec::new();
            rules.check(value, None, path, &mut errors);
            errors
        };
        // Composites are told of the object: the field is in the text.
        let composite = |detail: &str| FieldError::invalid("<nil>", "", format!("{path:?} {detail}"));
        if !self.any_of.is_empty() {
            let all: Vec<Vec<FieldError>> = self.any_of.iter().map(failures).collect();
            if all.iter().all(|errors| !errors.is_empty()) {
                errors.push(composite("must validate at least one schema (anyOf)"));
                errors.extend(all.into_iter().min_by_key(Vec::len).into_iter().flatten());
            }
        }
        if !self.one_of.is_empty() {
            let all: Vec<Vec<FieldError>> = self.one_of.iter().map(failures).collect();
            match all.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    errors.push(composite("must validate one and only one schema (oneOf). Found none valid"));
                    errors.extend(all.into_iter().min_by_key(Vec::len).into_iter().flatten());
                }
                valid => errors.push(composite(&format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                ))),
            }
        }
        if !self.all_of.is_empty() {
            let all: Vec<FieldError> = self.all_of.iter().flat_map(failures).collect();
            if !all.is_empty() {
                let none =
                    if self.all_of.iter().all(|rules| !failures(rules).is_empty()) { ". None validated" } else { "" };
                errors.extend(all);
                errors.push(composite(&format!("must validate all the schemas (allOf){none}")));
            }
        }
        if self.not.as_ref().is_some_and(|not| failures(not).is_empty()) {
            errors.push(composite("must not validate the schema (not)"));
        }
    }
}

impl Typing for Rules {
    fn member(&self, name: &str) -> Option<&dyn Typing> {
        let found = self.property(name).or(self.additional.as_deref());
        found.map(|found| found as &dyn Typing)
    }

    fn item(&self) -> Option<&dyn Typing> {
        self.items.as_deref().map(|items| items as &dyn Typing)
    }

    fn format(&self) -> &str {
        &self.format
    }

    fn is_open(&self) -> bool {
        self.preserve || self.embedded || self.types != [Type::Object]
    }
}

fn too_many(path: &str, actual: u64, most: u64) -> FieldError {
    let items = if most == 1 { "item" } else { "items" };
    FieldError::new(FieldErrorKind::TooMany, path, actual, format!("must have at most {most} {items}"))
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }

    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_))
            | (Type::String, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_)) => true,
            (Type::Integer, Value::Number(number)) => {
                !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            _ => false,
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn compare(a: &Number, b: &Number) -> std::cmp::Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_eq(),
        _ => a == b,
    }
}
