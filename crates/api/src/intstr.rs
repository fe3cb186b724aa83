//! `IntOrString`: a number, or a text such as a percentage or a port's name.

use std::fmt;

use serde_json::Value;

/// What an `IntOrString` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrString<'a> {
    Int(i64),
    Text(&'a str),
}

/// Why an `IntOrString` is no share of a total.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("nil value for IntOrString")]
    Missing,
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercent,
    #[error("invalid value for IntOrString: invalid value \"{0}\": not a whole number of percent")]
    NotNumber(String),
}

impl<'a> IntOrString<'a> {
    /// Reads JSON: a whole number or a text.
    pub fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Int),
            Value::String(text) => Some(Self::Text(text)),
            _ => None,
        }
    }

    /// The number that a percentage of `total` (or a plain number) means; `up` chooses the direction of rounding.
    pub fn scaled(self, total: i64, up: bool) -> Result<i64, ScaleError> {
        let text = match self {
            Self::Int(number) => return Ok(number),
            Self::Text(text) => text.strip_suffix('%').ok_or(ScaleError::NotPercent)?,
        };
        let percent: i32 = text.parse().map_err(|_| ScaleError::NotNumber(text.into()))?;
        let product = i128::from(percent) * i128::from(total);
        let whole = product.div_euclid(100) + i128::from(up && product.rem_euclid(100) != 0);
        Ok(i64::try_from(whole).unwrap_or(i64::MAX))
    }

    /// The percentage, when it is one.
    pub fn percent(self) -> Option<i32> {
        match self {
            Self::Text(text) => text.strip_suffix('%')?.parse().ok(),
            Self::Int(_) => None,
        }
    }

    /// The number, or the number that the text is; zero when it is none.
    pub fn int_value(self) -> i64 {
        match self {
            Self::Int(number) => number,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

impl fmt::Display for IntOrString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_scale_and_round_as_asked() {
        assert_eq!(IntOrString::Text("25%").scaled(10, true), Ok(3));
        assert_eq!(IntOrString::Text("25%").scaled(10, false), Ok(2));
        assert_eq!(IntOrString::Int(7).scaled(10, false), Ok(7));
        assert_eq!(IntOrString::Text("7").scaled(10, false), Err(ScaleError::NotPercent));
    }
}
