//! Numbers that are counts, or shares of a count.

use serde_json::Value;

use super::{
    field::{Errors, Field},
    names,
};

/// A count that is not negative, or a percentage.
pub fn count_or_percent(errors: &mut Errors, field: &Field<'_>) {
    match field.value() {
        Value::String(text) => field.judge(errors, names::percent(text)),
        _ => field.not_negative(errors),
    }
}

/// A percentage that is not above a hundred.
pub fn at_most_all(errors: &mut Errors, field: &Field<'_>) {
    if percent(field.value()).is_some_and(|percent| percent > 100) {
        errors.push(field.invalid("must not be greater than 100%"));
    }
}

/// The number before the `%`; none for counts and for what is no percentage.
pub fn percent(value: &Value) -> Option<u64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// A count or percentage that is zero.
pub fn is_zero(value: &Value) -> bool {
    percent(value).map_or(value.as_i64() == Some(0), |percent| percent == 0)
}
