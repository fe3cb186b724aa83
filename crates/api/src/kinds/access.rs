//! Writing into JSON objects: the few verbs that defaults and strategies are made of.

use serde_json::{Map, Value};

/// Writing by member name. Values of another type than expected are replaced: decoding has checked types before.
pub(crate) trait Members {
    /// The member, `Null` put in when absent.
    fn member(&mut self, name: &str) -> &mut Value;
    /// The member as an object, put in when absent.
    fn object(&mut self, name: &str) -> &mut Map<String, Value>;
    /// The member, when it is there and an object.
    fn existing(&mut self, name: &str) -> Option<&mut Value>;
    /// The items of a list member; none when absent.
    fn each(&mut self, name: &str) -> std::slice::IterMut<'_, Value>;
    /// Sets the member when it is absent, null, or an empty text.
    fn fill(&mut self, name: &str, value: impl Into<Value>);
    /// Sets the member when it is absent, null or zero.
    fn fill_zero(&mut self, name: &str, value: i64);
    fn set(&mut self, name: &str, value: impl Into<Value>);
    fn drop_member(&mut self, name: &str) -> Option<Value>;
    /// The text member; empty when absent.
    fn text(&self, name: &str) -> &str;
}

fn members(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(members) => members,
        // The line above made it an object.
        _ => unreachable!("not an object"),
    }
}

impl Members for Value {
    fn member(&mut self, name: &str) -> &mut Value {
        members(self).entry(name).or_insert(Value::Null)
    }

    fn object(&mut self, name: &str) -> &mut Map<String, Value> {
        members(self.member(name))
    }

    fn existing(&mut self, name: &str) -> Option<&mut Value> {
        self.get_mut(name).filter(|value| value.is_object())
    }

    fn each(&mut self, name: &str) -> std::slice::IterMut<'_, Value> {
        self.get_mut(name).and_then(Value::as_array_mut).map(|items| items.iter_mut()).unwrap_or_default()
    }

    fn fill(&mut self, name: &str, value: impl Into<Value>) {
        match self.get(name) {
            None | Some(Value::Null) => self.set(name, value),
            Some(Value::String(text)) if text.is_empty() => self.set(name, value),
            Some(_) => {}
        }
    }

    fn fill_zero(&mut self, name: &str, value: i64) {
        if self.get(name).and_then(Value::as_i64).unwrap_or(0) == 0 {
            self.set(name, value);
        }
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        members(self).insert(name.to_string(), value.into());
    }

    fn drop_member(&mut self, name: &str) -> Option<Value> {
        self.as_object_mut().and_then(|members| members.remove(name))
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Makes a member of `new` what it is in `old`, absence included.
pub(crate) fn keep(new: &mut Value, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) => {
            if new.get(name) != Some(value) {
                new.set(name, value.clone());
            }
        }
        None => {
            new.drop_member(name);
        }
    }
}
