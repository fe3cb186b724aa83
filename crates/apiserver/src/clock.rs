//! The wall clock, in the formats of the API.

use jiff::{SignedDuration, Timestamp};

/// Now, as `meta/v1.Time`: RFC 3339, UTC, whole seconds.
pub(crate) fn now() -> String {
    time(Timestamp::now())
}

/// Now, as `meta/v1.MicroTime`.
pub(crate) fn micro_now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `text` plus `seconds`; today's time when `text` is no timestamp.
pub(crate) fn plus(text: &str, seconds: i64) -> String {
    let base: Timestamp = text.parse().unwrap_or_else(|_| Timestamp::now());
    time(base.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(base))
}

/// Seconds since 1970.
pub(crate) fn unix() -> i64 {
    Timestamp::now().as_second()
}
