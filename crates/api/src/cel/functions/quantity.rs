//! Quantities: `quantity('1Gi').isLessThan(quantity('2Gi'))`.

use super::{
    super::{EvalError, value::Val},
    Result,
};
use crate::quantity::Quantity;

pub(super) fn make<'a>(name: &str, arg: &Val<'a>) -> Result<'a> {
    let Val::Str(text) = arg else { return Err(EvalError::overload()) };
    match (name, text.parse::<Quantity>()) {
        ("isQuantity", parsed) => Ok(Val::Bool(parsed.is_ok())),
        (_, Ok(quantity)) => Ok(Val::Quantity(quantity)),
        (_, Err(error)) => Err(EvalError::new(error.to_string())),
    }
}

pub(super) fn method<'a>(name: &str, own: &Quantity, args: &[Val<'a>]) -> Result<'a> {
    let mut changed = *own;
    match (name, args) {
        ("isInteger", []) => Ok(Val::Bool(own.as_int().is_some())),
        ("asInteger", []) => {
            own.as_int().map(Val::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
        }
        ("asApproximateFloat", []) => Ok(Val::Double(own.as_f64())),
        ("sign", []) => Ok(Val::Int(own.sign().into())),
        ("isLessThan", [Val::Quantity(other)]) => Ok(Val::Bool(own < other)),
        ("isGreaterThan", [Val::Quantity(other)]) => Ok(Val::Bool(own > other)),
        ("compareTo", [Val::Quantity(other)]) => Ok(Val::Int(own.cmp(other) as i64)),
        ("add" | "sub", [other]) => {
            let other = match other {
                Val::Quantity(other) => *other,
                Val::Int(other) => Quantity::from_int(*other, own.format()),
                _ => return Err(EvalError::overload()),
            };
            if name == "add" {
                changed.add(&other)
            } else {
                changed.sub(&other)
            }
            Ok(Val::Quantity(changed))
        }
        _ => Err(EvalError::overload()),
    }
}
