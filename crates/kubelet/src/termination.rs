//! The message that a container leaves behind: its termination file, or the end of its log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Longest message taken from the termination file.
const FILE_BYTES: u64 = 4096;
/// Longest message taken from the log, and the most lines of it.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

/// What the container wrote to `file`; with `fall_back`, the end of `log` when it wrote nothing.
///
/// `None` when there is neither: the runtime's own message then stands.
pub(crate) fn message(file: Option<&Path>, fall_back: bool, log: &Path) -> Option<String> {
    let own = file.and_then(|path| head(path).ok()).filter(|text| !text.is_empty());
    own.or_else(|| if fall_back { log_tail(log).ok().filter(|text| !text.is_empty()) } else { None })
}

fn head(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a CRI log, without their time, stream and tag.
fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // Each line carries a prefix of about 45 bytes that is not shown.
    let window = (LOG_BYTES + LOG_LINES * 64) as u64;
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().skip(usize::from(length > window)).collect();
    let start = lines.len().saturating_sub(LOG_LINES);
    let mut tail = String::new();
    for line in &lines[start..] {
        let mut parts = line.splitn(4, ' ');
        let (tag, content) = (parts.nth(2), parts.next().unwrap_or_default());
        tail.push_str(content);
        if tag != Some("P") {
            tail.push('\n');
        }
    }
    let mut cut = tail.len().saturating_sub(LOG_BYTES);
    while !tail.is_char_boundary(cut) {
        cut += 1;
    }
    Ok(tail.split_off(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_first_then_the_log_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("message"), dir.path().join("0.log"));
        std::fs::write(&log, "2026-01-02T03:04:05.6Z stdout P a\n2026-01-02T03:04:05.6Z stderr F b\n").unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(message(Some(&file), false, &log), None);
        assert_eq!(message(Some(&file), true, &log).as_deref(), Some("ab\n"));
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(message(Some(&file), true, &log).map(|text| text.len()), Some(4096));
        assert_eq!(message(None, true, &dir.path().join("none")), None);
    }

    #[test]
    fn long_logs_are_cut_at_a_character() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let line = format!("2026-01-02T03:04:05.6Z stdout F {}\n", "ä".repeat(40));
        std::fs::write(&log, line.repeat(200)).unwrap();
        let tail = message(None, true, &log).unwrap();
        assert!(tail.len() <= 2048 && tail.len() > 1900, "{}", tail.len());
    }
}
