//! Five-field cron schedules: minute, hour, day of month, month, day of week.
//!
//! Fields take `*`, `?`, numbers, names of months and days, ranges, lists and steps; `@hourly`, `@daily` and their
//! like stand for whole schedules and `@every 1h30m` for an interval. If both days are restricted, either suffices.
//! Time moves by the wall clock of a zone: a local time that is skipped in spring does not fire that day, one that
//! comes twice in autumn fires twice.

use jiff::{SignedDuration, Timestamp, Zoned, civil::Date, tz::TimeZone};

/// A parsed schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    Fields(Fields),
    Every(SignedDuration),
}

/// Allowed values as bit sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The field is `*`, so the other kind of day decides alone.
    any_day: bool,
    any_weekday: bool,
    zone: Option<TimeZone>,
}

struct Bounds {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds { name: "minute", min: 0, max: 59, names: &[] },
    Bounds { name: "hour", min: 0, max: 23, names: &[] },
    Bounds { name: "day of month", min: 1, max: 31, names: &[] },
    Bounds { name: "month", min: 1, max: 12, names: &MONTHS },
    Bounds { name: "day of week", min: 0, max: 6, names: &WEEKDAYS },
];
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A schedule that has not fired for this long never will.
const YEARS_AHEAD: i16 = 5;

impl Schedule {
    /// Reads a schedule; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (zone, rest) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            None => (None, text),
            Some(zoned) => {
                let (name, rest) = zoned.split_once(' ').ok_or("a time zone without a schedule")?;
                (Some(zone(name)?), rest.trim())
            }
        };
        if let Some(interval) = rest.strip_prefix("@every ") {
            let interval = go_duration(interval).ok_or_else(|| format!("failed to parse duration {rest}"))?;
            return Ok(Self::Every(interval.max(SignedDuration::from_secs(1))));
        }
        let rest = match NAMED.iter().find(|(name, _)| *name == rest) {
            Some((_, fields)) => fields,
            None if rest.starts_with('@') => return Err(format!("unrecognized descriptor: {rest}")),
            None => rest,
        };
        let parts: Vec<&str> = rest.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            return Err(format!("expected exactly 5 fields, found {}: {parts:?}", parts.len()));
        };
        let read = |index: usize, part: &str| field(&FIELDS[index], part);
        let (days, any_day) = read(2, days)?;
        let (weekdays, any_weekday) = read(4, weekdays)?;
        Ok(Self::Fields(Fields {
            minutes: read(0, minutes)?.0,
            hours: read(1, hours)?.0,
            months: read(3, months)?.0,
            days,
            weekdays,
            any_day,
            any_weekday,
            zone,
        }))
    }

    /// The first time after `after`, by the clock of `zone` unless the schedule names its own. `None` if there is none
    /// within five years.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(interval) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*interval).ok(),
            Self::Fields(fields) => fields.next(after, fields.zone.as_ref().unwrap_or(zone)),
        }
    }

    /// The last time in `(after, now]`, and whether more than 100 were passed over.
    pub(crate) fn latest(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, bool)> {
        let mut first = self.next(after, zone).filter(|t| *t <= now)?;
        let mut many = 0;
        let mut at = first;
        while many <= 100 {
            match self.next(at, zone).filter(|t| *t <= now) {
                Some(next) => at = next,
                None => return Some((at, false)),
            }
            many += 1;
        }
        // A long way: look back from now in growing steps, which are counted from `first` if the schedule is an
        // interval and from the calendar otherwise.
        if let Self::Every(interval) = self {
            let passed = now.duration_since(first).as_secs() / interval.as_secs().max(1);
            first += SignedDuration::from_secs(passed * interval.as_secs().max(1));
            return Some((first, true));
        }
        for back in [3600, 86_400, 32 * 86_400, 366 * 86_400] {
            let start = now - SignedDuration::from_secs(back);
            let mut found = self.next(start.max(at), zone).filter(|t| *t <= now);
            while let Some(time) = found {
                match self.next(time, zone).filter(|t| *t <= now) {
                    Some(next) => found = Some(next),
                    None => return Some((time, true)),
                }
            }
        }
        Some((at, true))
    }
}

/// A time zone by its name in the database.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("unknown time zone {name}"))
}

/// A duration such as `1h30m` or `90s`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        seconds += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    SignedDuration::try_from_secs_f64(seconds).ok().filter(|d| d.is_positive())
}

/// The set of a field, and whether it is unrestricted.
fn field(bounds: &Bounds, text: &str) -> Result<(u64, bool), String> {
    let (mut set, mut any) = (0, false);
    for part in text.split(',') {
        let (bits, star) = part_of(bounds, part)?;
        set |= bits;
        any |= star;
    }
    Ok((set, any))
}

fn part_of(bounds: &Bounds, text: &str) -> Result<(u64, bool), String> {
    let bad = |why: &str| format!("{} {text:?} {why}", bounds.name);
    let (range, step) = text.split_once('/').map_or((text, None), |(range, step)| (range, Some(step)));
    let number = |text: &str| -> Result<u32, String> {
        let named = bounds.names.iter().position(|n| text.eq_ignore_ascii_case(n));
        match named.and_then(|index| u32::try_from(index).ok()) {
            Some(index) => Ok(index + bounds.min),
            None => text.parse().map_err(|_| bad("is not a number")),
        }
    };
    let every = matches!(range, "*" | "?");
    let (first, mut last) = match range.split_once('-') {
        _ if every => (bounds.min, bounds.max),
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    let step: u32 = match step {
        None => 1,
        Some(step) => {
            if !every && !range.contains('-') {
                last = bounds.max;
            }
            step.parse().ok().filter(|s| *s > 0).ok_or_else(|| bad("has a step that is not a positive number"))?
        }
    };
    if first < bounds.min || last > bounds.max || first > last {
        return Err(bad(&format!("is not within {}-{}", bounds.min, bounds.max)));
    }
    let mut set = 0;
    let mut value = first;
    while value <= last {
        set |= 1 << value;
        value += step;
    }
    Ok((set, every && step == 1))
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|v| set >> v & 1 == 1)
}

impl Fields {
    fn day_fits(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = Timestamp::from_second(after.as_second() + 1).ok()?.to_zoned(zone.clone());
        // The next full minute.
        let past = i64::from(start.second());
        let mut at = if past == 0 { start } else { start.checked_add(SignedDuration::from_secs(60 - past)).ok()? };
        let limit = at.year() + YEARS_AHEAD;
        while at.year() <= limit {
            let date = at.date();
            if !has(self.months, date.month()) {
                at = midnight(date.last_of_month().tomorrow().ok()?, zone)?;
            } else if !self.day_fits(date) {
                at = midnight(date.tomorrow().ok()?, zone)?;
            } else if !has(self.hours, at.hour()) {
                let left = 3600 - i64::from(at.minute()) * 60;
                at = at.checked_add(SignedDuration::from_secs(left)).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(SignedDuration::from_secs(60)).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }
}

fn midnight(date: Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_zoned(zone.clone()).ok()?.start_of_day().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone_name: &str) -> String {
        let schedule = Schedule::parse(schedule).expect("schedule");
        let zone = zone(zone_name).expect("zone");
        let after: Timestamp = after.parse().expect("time");
        schedule.next(after, &zone).map_or_else(|| "never".to_owned(), |t| t.to_string())
    }

    #[test]
    fn next_times() {
        let cases = [
            ("* * * * *", "2026-07-09T14:45:00Z", "2026-07-09T14:46:00Z"),
            ("* * * * *", "2026-07-09T14:45:59Z", "2026-07-09T14:46:00Z"),
            ("0/15 * * * *", "2026-07-09T14:45:00Z", "2026-07-09T15:00:00Z"),
            ("20-35/15 * * * *", "2026-07-09T14:35:01Z", "2026-07-09T15:20:00Z"),
            ("0 0 9 * *", "2026-07-09T00:00:00Z", "2026-08-09T00:00:00Z"),
            ("0 0 29 feb *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("30 8 1 * mon", "2026-07-02T00:00:00Z", "2026-07-06T08:30:00Z"),
            ("30 8 * * Mon-Fri", "2026-07-03T09:00:00Z", "2026-07-06T08:30:00Z"),
            ("30 8 */2 * 1", "2026-07-01T00:00:00Z", "2026-07-01T08:30:00Z"),
            ("@weekly", "2026-07-09T00:00:00Z", "2026-07-12T00:00:00Z"),
            ("@every 1h30m", "2026-07-09T00:00:00Z", "2026-07-09T01:30:00Z"),
            ("TZ=Asia/Tokyo 0 9 * * *", "2026-07-09T00:00:00Z", "2026-07-10T00:00:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn daylight_saving() {
        // In New York clocks went from 2:00 to 3:00 on 2026-03-08 and go from 2:00 to 1:00 on 2026-11-01.
        let cases = [
            ("30 2 * * *", "2026-03-08T05:00:00Z", "2026-03-09T06:30:00Z"),
            ("0 * * * *", "2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z"),
            ("0 3 * * *", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z"),
            ("30 1 * * *", "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z"),
            ("30 1 * * *", "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"),
            ("30 1 * * *", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after, "America/New_York"), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn malformed() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "@sometimes",
            "@every x",
            "TZ=Nowhere/Land 0 0 * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn catches_up() {
        let latest = |schedule: &str, after: &str, now: &str| {
            let schedule = Schedule::parse(schedule).expect("schedule");
            let (after, now): (Timestamp, Timestamp) = (after.parse().expect("time"), now.parse().expect("time"));
            schedule.latest(after, now, &TimeZone::UTC).map(|(t, many)| (t.to_string(), many))
        };
        let cases = [
            ("0 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z", None),
            ("0 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z", Some(("2026-01-01T03:00:00Z", false))),
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-06-01T03:30:30Z", Some(("2026-06-01T03:30:00Z", true))),
            ("@every 10m", "2026-01-01T00:00:00Z", "2026-02-01T00:05:00Z", Some(("2026-02-01T00:00:00Z", true))),
        ];
        for (schedule, after, now, expected) in cases {
            let expected = expected.map(|(t, many): (&str, bool)| (t.to_owned(), many));
            assert_eq!(latest(schedule, after, now), expected, "{schedule} from {after} to {now}");
        }
    }
}
