//! Writes that the cache has not shown yet.
//!
//! A loop that counts Pods in a cache would create them twice if it ran between its own write and the echo of it.
//! Creations are counted (their names are not known before), deletions are remembered by uid. An expectation that is
//! never met is dropped after five minutes, because an event may be lost and a loop must not hang for ever.
//! Lost on restart, which is fine: a fresh cache has seen everything.

use std::collections::{HashMap, HashSet};

use client::Key;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
struct Pending {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

/// Outstanding writes by owner.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    owners: Mutex<HashMap<Key, Pending>>,
}

impl Expectations {
    /// Whether everything written for the owner has been seen.
    pub(crate) fn satisfied(&self, owner: &Key) -> bool {
        let mut owners = self.owners.lock();
        let done = owners
            .get(owner)
            .is_none_or(|p| (p.creations <= 0 && p.deletions.is_empty()) || p.since.elapsed() > PATIENCE);
        if done {
            owners.remove(owner);
        }
        done
    }

    /// Announces `count` creations. To be called before the first of them.
    pub(crate) fn expect_creations(&self, owner: &Key, count: usize) {
        self.change(owner, |p| p.creations += i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Announces deletions by uid. To be called before the first of them.
    pub(crate) fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        self.change(owner, |p| p.deletions.extend(uids));
    }

    /// A creation was seen, or will never happen.
    pub(crate) fn creation_settled(&self, owner: &Key) {
        if let Some(pending) = self.owners.lock().get_mut(owner) {
            pending.creations -= 1;
        }
    }

    /// A deletion was seen, or will never happen.
    pub(crate) fn deletion_settled(&self, owner: &Key, uid: &str) {
        if let Some(pending) = self.owners.lock().get_mut(owner) {
            pending.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.owners.lock().remove(owner);
    }

    fn change(&self, owner: &Key, apply: impl FnOnce(&mut Pending)) {
        let mut owners = self.owners.lock();
        let fresh = || Pending { creations: 0, deletions: HashSet::new(), since: Instant::now() };
        let pending = owners.entry(owner.clone()).or_insert_with(fresh);
        pending.since = Instant::now();
        apply(pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_echo_but_not_for_ever() {
        let owner = Key::new("ns", "web");
        let seen = Expectations::default();
        assert!(seen.satisfied(&owner));
        seen.expect_creations(&owner, 2);
        seen.creation_settled(&owner);
        assert!(!seen.satisfied(&owner));
        seen.creation_settled(&owner);
        assert!(seen.satisfied(&owner));
        seen.expect_deletions(&owner, ["u1".to_owned()]);
        seen.deletion_settled(&owner, "other");
        assert!(!seen.satisfied(&owner));
        tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
        assert!(seen.satisfied(&owner));
    }
}
