//! Parts of timestamps and durations.

use jiff::{Timestamp, tz::TimeZone};

use super::{
    super::{EvalError, value::Val},
    Result,
};

pub(super) fn of_timestamp<'a>(name: &str, at: Timestamp, args: &[Val<'a>]) -> Result<'a> {
    let zone = match args {
        [] => TimeZone::UTC,
        [Val::Str(zone)] => self::zone(zone)?,
        _ => return Err(EvalError::overload()),
    };
    let local = at.to_zoned(zone);
    let value = match name {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.millisecond()),
        _ => return Err(EvalError::overload()),
    };
    Ok(Val::Int(value))
}

/// A zone by its name, or an offset such as `-08:00`.
fn zone(text: &str) -> std::result::Result<TimeZone, EvalError> {
    let unknown = || EvalError::new(format!("unknown time zone {text}"));
    if let Some((hours, minutes)) = text.split_once(':') {
        let sign = if hours.starts_with('-') { -1 } else { 1 };
        let hours: i32 = hours.trim_start_matches(['-', '+']).parse().map_err(|_| unknown())?;
        let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
        let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| unknown())?;
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(text).map_err(|_| unknown())
}

pub(super) fn of_duration<'a>(name: &str, nanos: i64) -> Result<'a> {
    let unit = match name {
        "getHours" => 3_600_000_000_000,
        "getMinutes" => 60_000_000_000,
        "getSeconds" => 1_000_000_000,
        "getMilliseconds" => 1_000_000,
        _ => return Err(EvalError::overload()),
    };
    Ok(Val::Int(nanos / unit))
}
