//! Delays that double: between restarts of a container, between pulls of an image.
//!
//! The first failure is retried at once; then 10 s, 20 s, ... up to the limit. A quiet time of twice the limit starts
//! over, as does a kubelet that restarts.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

pub(crate) const INITIAL: Duration = Duration::from_secs(10);
pub(crate) const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// Delays by key: a container's name and hash, an image.
#[derive(Debug, Default)]
pub(crate) struct Backoff(HashMap<String, Entry>);

impl Backoff {
    /// How long `key` must still wait at `now` after a failure at `since`, with the whole delay; `None`: go ahead.
    pub(crate) fn wait(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entry = self.0.get(key)?;
        if age(entry.updated, now) > MAX * 2 {
            return None;
        }
        let left = entry.delay.checked_sub(age(since, now)).filter(|left| !left.is_zero())?;
        Some((left, entry.delay))
    }

    /// Notes an attempt: the next one waits twice as long.
    pub(crate) fn next(&mut self, key: &str, now: Timestamp) {
        let entry = self.0.entry(key.to_owned()).or_insert(Entry { delay: Duration::ZERO, updated: now });
        let fresh = entry.delay.is_zero() || age(entry.updated, now) > MAX * 2;
        entry.delay = if fresh { INITIAL } else { (entry.delay * 2).min(MAX) };
        entry.updated = now;
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn doubles_to_the_limit_and_starts_over_after_quiet() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait("c", at(0), at(0)), None);
        let mut now = 0;
        for expect in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("c", at(now));
            let left = backoff.wait("c", at(now + 1), at(now + 3)).map(|(left, all)| (left.as_secs(), all.as_secs()));
            assert_eq!(left, Some((expect - 2, expect)));
            assert_eq!(backoff.wait("c", at(now), at(now + expect as i64)), None);
            now += expect as i64;
        }
        now += 601;
        assert_eq!(backoff.wait("c", at(now), at(now)), None);
        backoff.next("c", at(now));
        assert_eq!(backoff.wait("c", at(now), at(now)).map(|(_, all)| all.as_secs()), Some(10));
        backoff.forget("c");
        assert_eq!(backoff.wait("c", at(now), at(now)), None);
    }
}
