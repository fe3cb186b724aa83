//! Sets of completion indexes, written as in `1,3-5,7`.

use std::collections::BTreeSet;

use crate::{kinds::core::Pod, meta::Meta};

pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) type Indexes = BTreeSet<i32>;

/// Reads a set; what is malformed or not below `completions` is left out.
pub(super) fn parse(text: &str, completions: i32) -> Indexes {
    let mut all = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
            all.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    all
}

/// Writes a set: runs of three or more as a range, runs of two as a range too, as clients expect.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let show = |(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(show).collect::<Vec<_>>().join(",")
}

/// The Pod's completion index, if it has one below `completions`.
pub(super) fn of(pod: &Pod, completions: i32) -> Option<i32> {
    let index = pod.annotation(INDEX)?.parse().ok()?;
    (0..completions).contains(&index).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "0-9"] {
            assert_eq!(format(&parse(text, 10)), text);
        }
        assert_eq!(format(&parse("3-20,x,1-", 5)), "3,4");
    }
}
