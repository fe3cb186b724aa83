//! Names of selectable fields, which hooks hand out for as long as the process lives.
//!
//! Each distinct name is kept once. Definitions come and go, but their field names repeat, so that this stays small.

use std::{collections::BTreeSet, sync::Mutex};

static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The one copy of a name.
pub(super) fn name(text: &str) -> &'static str {
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match names.get(text) {
        Some(known) => known,
        None => {
            let kept: &'static str = Box::leak(text.into());
            names.insert(kept);
            kept
        }
    }
}
