//! Container output as CRI log lines: `TIME STREAM TAG CONTENT`.
//!
//! ```text
//! 2026-11-21T10:00:00.000000001Z stdout F a whole line
//! 2026-11-21T10:00:00.000000002Z stderr P the first 16 KiB of a longer one
//! ```
//!
//! Invariant: a failing disk costs lines, never the container: writing is tried once and the output is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Longest content of one log line; longer ones are cut into `P` (partial) lines.
const LINE_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The log of one container; both streams share the file.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Begun lines of stdout and stderr.
    begun: [Vec<u8>; 2],
}

impl Log {
    /// Without a path everything is dropped.
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Log> {
        let mut log = Log { path, file: None, begun: [Vec::new(), Vec::new()] };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the path anew: after a rotation that is another file.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = Some(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?);
        }
        Ok(())
    }

    /// Takes output that was read at `now` (nanoseconds since 1970).
    pub(crate) fn write(&mut self, stream: Stream, now: i64, mut output: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let begun = &mut self.begun[stream as usize];
        let mut lines = Vec::with_capacity(output.len() + 64);
        while let Some(end) = output.iter().position(|byte| *byte == b'\n') {
            let mut line = &output[..end];
            output = &output[end + 1..];
            while begun.len() + line.len() > LINE_MAX {
                let (now_cut, later) = line.split_at(LINE_MAX - begun.len());
                begun.extend_from_slice(now_cut);
                push(&mut lines, now, stream, 'P', begun, &[]);
                line = later;
            }
            push(&mut lines, now, stream, 'F', begun, line);
        }
        while begun.len() + output.len() > LINE_MAX {
            let (now_cut, later) = output.split_at(LINE_MAX - begun.len());
            push(&mut lines, now, stream, 'P', begun, now_cut);
            output = later;
        }
        begun.extend_from_slice(output);
        if !lines.is_empty() {
            let _ = file.write_all(&lines);
        }
    }

    /// Ends a stream: a begun line becomes a whole one.
    pub(crate) fn finish(&mut self, stream: Stream, now: i64) {
        if !self.begun[stream as usize].is_empty() {
            self.write(stream, now, b"\n");
        }
        self.begun[stream as usize] = Vec::new();
    }
}

fn push(lines: &mut Vec<u8>, now: i64, stream: Stream, tag: char, begun: &mut Vec<u8>, rest: &[u8]) {
    // Writing to memory does not fail.
    let _ = write!(lines, "{} {} {tag} ", Timestamp(now), stream.name());
    lines.append(begun);
    lines.extend_from_slice(rest);
    lines.push(b'\n');
}

/// RFC 3339 in UTC with nanoseconds, from nanoseconds since 1970.
struct Timestamp(i64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days to a date by eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (nanos, expect) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_255_323_123_456_789, "2026-11-21T10:02:03.123456789Z"),
            (4_102_444_799_000_000_000, "2099-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(Timestamp(nanos).to_string(), expect);
        }
    }

    fn check(writes: &[(Stream, &[u8])], expect: &[(&str, &str, usize)]) {
        let dir = std::env::temp_dir().join(format!("nvlog-{}-{:p}", std::process::id(), writes));
        let mut log = Log::open(Some(dir.clone())).unwrap();
        for (stream, bytes) in writes {
            log.write(*stream, 0, bytes);
        }
        log.finish(Stream::Stdout, 0);
        log.finish(Stream::Stderr, 0);
        let text = std::fs::read_to_string(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        let got: Vec<_> = text
            .lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ').skip(1);
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap().len())
            })
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn lines() {
        use Stream::{Stderr, Stdout};
        check(&[(Stdout, b"one\ntwo")], &[("stdout", "F", 3), ("stdout", "F", 3)]);
        check(
            &[(Stdout, b"a"), (Stderr, b"bb\n"), (Stdout, b"cc\n\n")],
            &[("stderr", "F", 2), ("stdout", "F", 3), ("stdout", "F", 0)],
        );
        let long = vec![b'x'; 40_000];
        check(
            &[(Stdout, &long), (Stdout, b"\n")],
            &[("stdout", "P", LINE_MAX), ("stdout", "P", LINE_MAX), ("stdout", "F", 40_000 - 2 * LINE_MAX)],
        );
    }
}
