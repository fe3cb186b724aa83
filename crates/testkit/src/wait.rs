//! Waiting on levels: bounded, and with the last state in the failure.

use std::time::{Duration, Instant};

/// Asks `probe` until it gives a value. `Err` is what it saw instead, shown when the time is over.
///
/// Panics when `bound` is over: this is for tests.
#[expect(clippy::disallowed_methods, reason = "the one place where tests wait for another process")]
pub fn until<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > bound => {
                panic!("waited {bound:?} for {what}; last seen:\n{seen}");
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Lets a time of measurement pass.
#[expect(clippy::disallowed_methods, reason = "a measurement over a time takes that time")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
