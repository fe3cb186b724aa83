//! Amounts of resources: a decimal number with a suffix (`100m`, `1.5Gi`, `12e6`).
//!
//! A [`Quantity`] is exact: `mantissa * 10^scale`. Parsing rounds away from zero to whole nanos, binary amounts are
//! capped at `i64::MAX`, and the canonical form keeps the family of suffixes that was written, as upstream's
//! `resource.Quantity` does (API reference, "Quantity").

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The finest digit that is kept: 10^-9.
const NANO: i32 = -9;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Which suffixes the canonical form uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12k`, `5m`.
    #[default]
    DecimalSi,
    /// `12Ki`.
    BinarySi,
    /// `12e3`.
    DecimalExponent,
}

/// Why a text is no quantity; the messages are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An exact amount. Equality and order go by value: `1000m` equals `1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    /// Power of ten.
    scale: i32,
    format: Format,
}

impl Quantity {
    /// `value * 10^scale`.
    pub fn new(value: i64, scale: i32, format: Format) -> Self {
        Self { mantissa: value.into(), scale, format }
    }

    /// A whole number.
    pub fn from_int(value: i64, format: Format) -> Self {
        Self::new(value, 0, format)
    }

    /// Thousandths.
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self::new(value, -3, format)
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// Whole units, rounded away from zero, saturating.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded away from zero, saturating.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The amount in units of `10^scale`, rounded away from zero, saturating.
    pub fn scaled(&self, scale: i32) -> i64 {
        let (amount, _) = self.at_scale(scale);
        i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
    }

    /// The whole number it is, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self.at_scale(0) {
            (amount, true) => i64::try_from(amount).ok(),
            _ => None,
        }
    }

    /// The nearest floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// Units of `10^scale` rounded away from zero, and whether that was exact. Saturates.
    fn at_scale(&self, scale: i32) -> (i128, bool) {
        let shift = self.scale.saturating_sub(scale);
        if shift >= 0 {
            return match scale_up(self.mantissa, shift) {
                Some(amount) => (amount, true),
                None if self.mantissa < 0 => (i128::MIN, false),
                None => (i128::MAX, false),
            };
        }
        let Some(divisor) = power(shift.unsigned_abs()) else {
            return (self.mantissa.signum(), self.mantissa == 0);
        };
        let (quotient, rest) = (self.mantissa / divisor, self.mantissa % divisor);
        if rest == 0 { (quotient, true) } else { (quotient + self.mantissa.signum(), false) }
    }

    /// Adds; a zero takes over the other one's format. Saturates.
    pub fn add(&mut self, other: &Self) {
        if self.is_zero() {
            *self = *other;
            return;
        }
        let scale = self.scale.min(other.scale).max(NANO);
        self.mantissa = self.at_scale(scale).0.saturating_add(other.at_scale(scale).0);
        self.scale = scale;
    }

    /// Subtracts; a zero takes over the other one's format. Saturates.
    pub fn sub(&mut self, other: &Self) {
        let mut less = *other;
        less.neg();
        self.add(&less);
    }

    /// Changes the sign.
    pub fn neg(&mut self) {
        self.mantissa = self.mantissa.saturating_neg();
    }

    /// Multiplies by a whole number. Saturates.
    pub fn mul(&mut self, factor: i64) {
        self.mantissa = self.mantissa.saturating_mul(factor.into());
    }

    /// The text that the API gives back for `text`: what is canonical already stays as it was written.
    pub fn canonicalize(text: &str) -> Result<String, ParseError> {
        let (quantity, keep) = parse(text)?;
        Ok(if keep { text.to_string() } else { quantity.to_string() })
    }
}

fn power(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

fn scale_up(mantissa: i128, shift: i32) -> Option<i128> {
    if mantissa == 0 {
        return Some(0);
    }
    mantissa.checked_mul(power(shift.unsigned_abs())?)
}

/// What a suffix stands for.
enum Unit {
    Ten(i32, Format),
    Two(u32),
}

fn unit(suffix: &str) -> Option<Unit> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Some(Unit::Ten(*exponent, Format::DecimalSi));
    }
    if let Some(index) = BINARY.iter().position(|text| *text == suffix) {
        return Some(Unit::Two(index as u32 * 10));
    }
    let digits = suffix.strip_prefix(['e', 'E'])?;
    digits.parse().ok().map(|exponent| Unit::Ten(exponent, Format::DecimalExponent))
}

/// Parses, and tells whether the text is its own canonical form by upstream's rules.
fn parse(text: &str) -> Result<(Quantity, bool), ParseError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let negative = text.starts_with('-');
    let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_end);
    if text.is_empty() {
        return Err(ParseError::Format);
    }
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    let unit = unit(suffix).ok_or(ParseError::Suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return Err(ParseError::Format);
    }
    let whole = whole.trim_start_matches('0');
    if number.is_empty() && !suffix.is_empty() {
        return Err(ParseError::Number);
    }
    let mut quantity = match unit {
        Unit::Ten(exponent, format) => decimal(whole, fraction, exponent, format)?,
        Unit::Two(exponent) => binary(whole, fraction, exponent),
    };
    let keep = keeps(whole, fraction, &unit);
    if negative {
        quantity.neg();
    }
    Ok((quantity, keep))
}

/// Whether upstream's fast path takes the number and finds it canonical, so that it never rewrites it.
fn keeps(whole: &str, fraction: &str, unit: &Unit) -> bool {
    let whole = if whole.is_empty() { "0" } else { whole };
    let digits = format!("{whole}{fraction}");
    let length = digits.len() as i64;
    let Ok(value) = digits.parse::<i64>() else { return false };
    match *unit {
        Unit::Ten(exponent, _) => {
            let scale = exponent.saturating_sub(fraction.len() as i32);
            length <= 18 && scale >= NANO && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
        }
        Unit::Two(exponent) => {
            let room = 15 - length - i64::from(exponent) * 3 / 10 - 1;
            fraction.is_empty() && room >= 0 && value & 7 != 0
        }
    }
}

fn decimal(whole: &str, fraction: &str, exponent: i32, format: Format) -> Result<Quantity, ParseError> {
    let fraction = fraction.trim_end_matches('0');
    // Digits beyond the nano only tell whether to round up.
    let kept = (i64::from(exponent) - i64::from(NANO)).clamp(0, 60) as usize;
    let (fraction, lost) = fraction.split_at(kept.min(fraction.len()));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    let zeros = (digits.len() - trimmed.len()) as i32;
    let mut mantissa: i128 = match trimmed {
        "" => 0,
        text => text.parse().map_err(|_| ParseError::Number)?,
    };
    let mut scale = exponent.saturating_sub(fraction.len() as i32).saturating_add(zeros);
    if mantissa == 0 {
        scale = exponent.saturating_sub(fraction.len() as i32).max(NANO);
    }
    let mut quantity = Quantity { mantissa, scale, format };
    if scale < NANO {
        mantissa = quantity.at_scale(NANO).0;
        quantity = Quantity { mantissa, scale: NANO, format };
    }
    if lost.bytes().any(|digit| digit != b'0') {
        let unit = Quantity { mantissa: 1, scale: NANO, format };
        quantity = Quantity { mantissa: quantity.at_scale(NANO).0, scale: NANO, format };
        quantity.add(&unit);
        quantity.format = format;
    }
    Ok(quantity)
}

fn binary(whole: &str, fraction: &str, exponent: u32) -> Quantity {
    /// Fraction digits that fit beside a capped whole part.
    const DIGITS: usize = 18;
    let cap = Quantity::from_int(i64::MAX, Format::BinarySi);
    let factor = 1i128 << exponent;
    let integer = if whole.is_empty() { Some(0) } else { whole.parse::<i128>().ok() };
    let Some(integer) = integer.and_then(|integer| integer.checked_mul(factor)).filter(|n| *n <= i64::MAX.into())
    else {
        return cap;
    };
    let fraction = fraction.trim_end_matches('0');
    let (kept, lost) = fraction.split_at(DIGITS.min(fraction.len()));
    // At most eighteen digits times 2^60: below 10^37.
    let part = kept.parse::<i128>().unwrap_or(0) * factor;
    let mut exact = Quantity { mantissa: part, scale: -(kept.len() as i32), format: Format::BinarySi };
    if !lost.is_empty() {
        exact.mantissa += 1;
    }
    let nanos = exact.at_scale(NANO).0;
    let mut quantity = Quantity::from_int(integer as i64, Format::BinarySi);
    if nanos != 0 {
        let all = scale_up(integer, -NANO).unwrap_or(i128::MAX).saturating_add(nanos);
        quantity = Quantity { mantissa: all, scale: NANO, format: Format::BinarySi };
        if quantity > cap {
            return cap;
        }
        if integer == 0 && nanos < 1_000_000_000 {
            quantity.format = Format::DecimalSi;
        }
    }
    quantity
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map(|(quantity, _)| quantity)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        let mut format = self.format;
        if format == Format::BinarySi {
            match self.at_scale(0) {
                (whole, true) if whole.abs() >= 1024 => {
                    let (mut whole, mut index) = (whole, 0);
                    while whole % 1024 == 0 && index + 1 < BINARY.len() {
                        (whole, index) = (whole / 1024, index + 1);
                    }
                    return write!(f, "{whole}{}", BINARY[index]);
                }
                _ => format = Format::DecimalSi,
            }
        }
        let (mut mantissa, mut scale) = (self.mantissa, self.scale);
        while mantissa % 10 == 0 {
            (mantissa, scale) = (mantissa / 10, scale.saturating_add(1));
        }
        let largest = if format == Format::DecimalSi { 18 } else { i32::MAX };
        while scale.rem_euclid(3) != 0 || scale > largest {
            (mantissa, scale) = (mantissa.saturating_mul(10), scale - 1);
            if mantissa == i128::MAX || mantissa == i128::MIN {
                break;
            }
        }
        match DECIMAL.iter().find(|(_, exponent)| *exponent == scale) {
            Some((suffix, _)) if format == Format::DecimalSi => write!(f, "{mantissa}{suffix}"),
            _ if scale == 0 => write!(f, "{mantissa}"),
            _ => write!(f, "{mantissa}e{scale}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.sign().cmp(&other.sign());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let shift = |from: &Self, to: i32| scale_up(from.mantissa, from.scale.saturating_sub(to));
        let scale = self.scale.min(other.scale);
        match (shift(self, scale), shift(other, scale)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // Only the coarser one can overflow, and then its magnitude is the larger.
            (None, _) => {
                if self.sign() > 0 {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (_, None) => {
                if self.sign() > 0 {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// From a text or a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Null => return Ok(Self::default()),
            other => return Err(de::Error::custom(format_args!("{other} is not a quantity"))),
        };
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
