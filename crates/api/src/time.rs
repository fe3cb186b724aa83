//! Timestamps as the API writes them, and the short texts of durations that tables show.
//!
//! No clock here: `now` is an argument everywhere.

use jiff::{SignedDuration, Timestamp};

/// A timestamp that is not in the form its field wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {text:?} as {layout:?}: cannot parse")]
pub struct ParseError {
    text: String,
    layout: &'static str,
}

/// `meta/v1.Time`: whole seconds, `Z`.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `meta/v1.MicroTime`: six digits of a second, `Z`.
pub fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads a `meta/v1.Time` in any offset and with any fraction.
pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
    let error = || ParseError { text: text.into(), layout: "2006-01-02T15:04:05Z07:00" };
    if !has_layout(text) { Err(error()) } else { text.parse().map_err(|_| error()) }
}

/// Reads a `meta/v1.MicroTime`: exactly six digits of a second.
pub fn parse_micro(text: &str) -> Result<Timestamp, ParseError> {
    let error = || ParseError { text: text.into(), layout: "2006-01-02T15:04:05.000000Z07:00" };
    let digits = text.get(20..).unwrap_or_default().bytes().take_while(u8::is_ascii_digit).count();
    if !has_layout(text) || digits != 6 || text.as_bytes().get(19) != Some(&b'.') {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}

/// Date, `T`, time and an offset: what RFC 3339 asks beyond what a lenient parser takes.
fn has_layout(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes[..19].iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        })
        && (bytes.ends_with(b"Z") || matches!(bytes[bytes.len() - 6], b'+' | b'-'))
}

/// How long before `now` the timestamp `text` was: `5m30s`; `<unknown>` when either is no timestamp.
pub fn age(text: &str, now: &str) -> String {
    match (text.parse::<Timestamp>(), now.parse::<Timestamp>()) {
        (Ok(then), Ok(now)) => human(now.duration_since(then)),
        _ => "<unknown>".into(),
    }
}

/// A duration in one or two units, as `kubectl get` shows it.
pub fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (100_000, "27h"),
            (180_000, "2d2h"),
            (86_400 * 400, "400d"),
            (86_400 * 800, "2y70d"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn timestamps_normalize_to_utc() {
        assert_eq!(seconds(parse("2026-01-02T03:04:05.9+01:00").unwrap()), "2026-01-02T02:04:05Z");
        assert_eq!(micros(parse_micro("2026-01-02T03:04:05.000009Z").unwrap()), "2026-01-02T03:04:05.000009Z");
        assert!(parse_micro("2026-01-02T03:04:05Z").is_err());
        assert!(parse("2026-01-02").is_err());
    }
}
