//! Arithmetic, comparison, membership and indexing.

use std::{cmp::Ordering, rc::Rc};

use cel::common::ast::operators as op;

use super::{EvalError, value::Val};

type Result<'a> = std::result::Result<Val<'a>, EvalError>;

/// Applies an operator; `None` when the name is none.
pub(super) fn apply<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    Some(match (name, args) {
        (op::LOGICAL_NOT, [Val::Bool(value)]) => Ok(Val::Bool(!value)),
        (op::NEGATE, [value]) => negate(value),
        (op::ADD, [left, right]) => add(left, right),
        (op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [left, right]) => arithmetic(name, left, right),
        (op::EQUALS, [left, right]) => Ok(Val::Bool(left.equals(right))),
        (op::NOT_EQUALS, [left, right]) => Ok(Val::Bool(!left.equals(right))),
        (op::LESS, [left, right]) => order(left, right, Ordering::is_lt),
        (op::LESS_EQUALS, [left, right]) => order(left, right, Ordering::is_le),
        (op::GREATER, [left, right]) => order(left, right, Ordering::is_gt),
        (op::GREATER_EQUALS, [left, right]) => order(left, right, Ordering::is_ge),
        (op::IN, [item, container]) => contains(item, container),
        (op::INDEX, [container, key]) => index(container, key),
        (op::OPT_INDEX | op::OPT_SELECT, [container, key]) => Ok(optional_index(container, key)),
        (op::LOGICAL_NOT, _) => Err(EvalError::overload()),
        _ => return None,
    })
}

fn overflow<'a>(what: &str) -> Result<'a> {
    Err(EvalError::new(format!("{what} overflow")))
}

fn negate<'a>(value: &Val<'a>) -> Result<'a> {
    match value {
        Val::Int(value) => value.checked_neg().map_or_else(|| overflow("integer"), |value| Ok(Val::Int(value))),
        Val::Double(value) => Ok(Val::Double(-value)),
        Val::Duration(value) => {
            value.checked_neg().map_or_else(|| overflow("duration"), |value| Ok(Val::Duration(value)))
        }
        _ => Err(EvalError::overload()),
    }
}

fn add<'a>(left: &Val<'a>, right: &Val<'a>) -> Result<'a> {
    match (left, right) {
        (Val::Str(left), Val::Str(right)) => Ok(Val::string(format!("{left}{right}"))),
        (Val::Bytes(left), Val::Bytes(right)) => Ok(Val::Bytes([&left[..], &right[..]].concat().into())),
        (Val::Time(at), Val::Duration(nanos)) | (Val::Duration(nanos), Val::Time(at)) => at
            .checked_add(jiff::SignedDuration::from_nanos(*nanos))
            .map_or_else(|_| overflow("timestamp"), |at| Ok(Val::Time(at))),
        _ => match (left.items(), right.items()) {
            (Some(mut left), Some(right)) => {
                left.extend(right);
                Ok(Val::list(left))
            }
            _ => arithmetic(op::ADD, left, right),
        },
    }
}

fn arithmetic<'a>(name: &str, left: &Val<'a>, right: &Val<'a>) -> Result<'a> {
    match (left, right) {
        (Val::Int(_) | Val::Uint(_), Val::Int(0) | Val::Uint(0)) if name == op::DIVIDE => {
            Err(EvalError::new("division by zero"))
        }
        (Val::Int(_) | Val::Uint(_), Val::Int(0) | Val::Uint(0)) if name == op::MODULO => {
            Err(EvalError::new("modulus by zero"))
        }
        (Val::Int(left), Val::Int(right)) => match name {
            op::ADD => left.checked_add(*right),
            op::SUBSTRACT => left.checked_sub(*right),
            op::MULTIPLY => left.checked_mul(*right),
            op::DIVIDE => left.checked_div(*right),
            _ => left.checked_rem(*right),
        }
        .map_or_else(|| overflow("integer"), |value| Ok(Val::Int(value))),
        (Val::Uint(left), Val::Uint(right)) => match name {
            op::ADD => left.checked_add(*right),
            op::SUBSTRACT => left.checked_sub(*right),
            op::MULTIPLY => left.checked_mul(*right),
            op::DIVIDE => left.checked_div(*right),
            _ => left.checked_rem(*right),
        }
        .map_or_else(|| overflow("unsigned integer"), |value| Ok(Val::Uint(value))),
        (Val::Double(left), Val::Double(right)) => match name {
            op::ADD => Ok(left + right),
            op::SUBSTRACT => Ok(left - right),
            op::MULTIPLY => Ok(left * right),
            op::DIVIDE => Ok(left / right),
            _ => Err(EvalError::overload()),
        }
        .map(Val::Double),
        (Val::Duration(left), Val::Duration(right)) => match name {
            op::ADD => left.checked_add(*right),
            op::SUBSTRACT => left.checked_sub(*right),
            _ => return Err(EvalError::overload()),
        }
        .map_or_else(|| overflow("duration"), |value| Ok(Val::Duration(value))),
        (Val::Time(left), Val::Time(right)) if name == op::SUBSTRACT => {
            let nanos = left.duration_since(*right).as_nanos();
            i64::try_from(nanos).map_or_else(|_| overflow("duration"), |nanos| Ok(Val::Duration(nanos)))
        }
        (Val::Time(at), Val::Duration(nanos)) if name == op::SUBSTRACT => at
            .checked_sub(jiff::SignedDuration::from_nanos(*nanos))
            .map_or_else(|_| overflow("timestamp"), |at| Ok(Val::Time(at))),
        _ => Err(EvalError::overload()),
    }
}

fn order<'a>(left: &Val<'a>, right: &Val<'a>, holds: fn(Ordering) -> bool) -> Result<'a> {
    match left.compare(right) {
        Some(order) => Ok(Val::Bool(holds(order))),
        // A comparison with NaN holds never.
        None if matches!((left, right), (Val::Double(_), Val::Double(_))) => Ok(Val::Bool(false)),
        None => Err(EvalError::overload()),
    }
}

fn contains<'a>(item: &Val<'a>, container: &Val<'a>) -> Result<'a> {
    match container.items() {
        Some(items) => Ok(Val::Bool(items.iter().any(|own| own.equals(item)))),
        None if container.is_map() => Ok(Val::Bool(container.get(item).is_some())),
        None => Err(EvalError::overload()),
    }
}

fn index<'a>(container: &Val<'a>, key: &Val<'a>) -> Result<'a> {
    if let Val::Optional(inner) = container {
        return Ok(match inner {
            Some(inner) => optional_index(inner, key),
            None => Val::Optional(None),
        });
    }
    if let Some(items) = container.items() {
        let at = whole(key).ok_or_else(EvalError::overload)?;
        let item = usize::try_from(at).ok().and_then(|at| items.get(at).cloned());
        return item.ok_or_else(|| EvalError::new(format!("index out of bounds: {at}")));
    }
    if container.is_map() {
        let shown = || match key {
            Val::Str(text) => text.to_string(),
            other => other.to_json().map(|value| value.to_string()).unwrap_or_default(),
        };
        return container.get(key).ok_or_else(|| EvalError::new(format!("no such key: {}", shown())));
    }
    Err(EvalError::overload())
}

fn optional_index<'a>(container: &Val<'a>, key: &Val<'a>) -> Val<'a> {
    match container {
        Val::Optional(None) => Val::Optional(None),
        Val::Optional(Some(inner)) => optional_index(inner, key),
        value => match value.items() {
            Some(items) => {
                let at = whole(key).and_then(|at| usize::try_from(at).ok());
                Val::optional(at.and_then(|at| items.get(at).cloned()))
            }
            None => Val::Optional(value.get(key).map(Rc::new)),
        },
    }
}

fn whole(value: &Val<'_>) -> Option<i64> {
    match value {
        Val::Int(value) => Some(*value),
        Val::Uint(value) => i64::try_from(*value).ok(),
        Val::Double(value) if value.fract() == 0.0 => Some(*value as i64),
        _ => None,
    }
}

impl<'a> Val<'a> {
    /// Equality across number types, by content otherwise.
    pub(crate) fn equals(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => a == b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Time(a), Val::Time(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Quantity(a), Val::Quantity(b)) => a == b,
            (Val::Ip(a), Val::Ip(b)) => a == b,
            (Val::Cidr(a), Val::Cidr(b)) => a == b,
            (Val::Url(a), Val::Url(b)) => a == b,
            (Val::Semver(a), Val::Semver(b)) => a.cmp(b).is_eq(),
            (Val::Format(a), Val::Format(b)) => a == b,
            (Val::Decision(a), Val::Decision(b)) => a == b,
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            _ if self.is_list() && other.is_list() => {
                let (a, b) = (self.items().unwrap_or_default(), other.items().unwrap_or_default());
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.equals(b))
            }
            _ if self.is_map() && other.is_map() => {
                let a = self.entries().unwrap_or_default();
                other.size() == Some(a.len())
                    && a.iter().all(|(key, value)| other.get(key).is_some_and(|other| value.equals(&other)))
            }
            _ => self.number_order(other).is_some_and(Ordering::is_eq),
        }
    }

    fn number_order(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
            (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Val::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Val::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            (Val::Double(a), Val::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Val::Uint(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            _ => None,
        }
    }

    /// Order of values of one type, and of numbers.
    pub(crate) fn compare(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Str(a), Val::Str(b)) => Some(a.cmp(b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            _ => self.number_order(other),
        }
    }
}
