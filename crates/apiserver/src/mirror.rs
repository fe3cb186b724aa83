//! Following stored objects inside the server: what authorization and admission must know at once.
//!
//! A follower hears of the objects there are before [`follow`] returns, then of every change in order. After a gap
//! (compaction, a failed watch) it hears of the whole state again; objects that vanished meanwhile come as deletions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use store::{Range, Revision, WatchItem};

use crate::{catalog, server::Server};

/// Pause before a failed read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// One changed object.
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    /// `None`: deleted.
    pub(crate) object: Option<Arc<Value>>,
    /// What it was, where a change was seen and not the whole state.
    pub(crate) previous: Option<Arc<Value>>,
}

/// Tells `batch` about a resource's objects until the server drains.
pub(crate) async fn follow(
    server: &Arc<Server>,
    group: &str,
    plural: &str,
    batch: impl Fn(Vec<Change>) + Send + Sync + 'static,
) {
    let prefix = catalog::prefix(group, plural, "");
    let mut follower = Follower { server: server.clone(), prefix, known: BTreeMap::new(), batch };
    let revision = follower.read().await;
    let draining = server.draining().clone();
    tokio::spawn(async move {
        tokio::select! {
            () = draining.cancelled() => {}
            () = follower.run(revision) => {}
        }
    });
}

struct Follower<F> {
    server: Arc<Server>,
    prefix: String,
    /// Keys that the follower's listener has heard of.
    known: BTreeMap<Arc<str>, Revision>,
    batch: F,
}

impl<F: Fn(Vec<Change>) + Send + Sync + 'static> Follower<F> {
    /// Reads the whole state and tells the difference; returns its revision.
    async fn read(&mut self) -> Revision {
        let result = loop {
            match self.server.store().range(Range::prefix(self.prefix.clone())).await {
                Ok(result) => break result,
                Err(error) => {
                    tracing::warn!(prefix = self.prefix, %error, "cannot read objects to follow, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let mut gone = std::mem::take(&mut self.known);
        let mut changes = Vec::new();
        for entry in &result.entries {
            let unchanged = gone.remove(&entry.key) == Some(entry.mod_revision);
            self.known.insert(entry.key.clone(), entry.mod_revision);
            if !unchanged {
                let object = parse(&entry.key, &entry.value);
                changes.push(Change { key: entry.key.clone(), object, previous: None });
            }
        }
        changes.extend(gone.into_keys().map(|key| Change { key, object: None, previous: None }));
        (self.batch)(changes);
        result.revision
    }

    async fn run(mut self, mut revision: Revision) {
        loop {
            match self.server.store().watch(&self.prefix, revision).await {
                Ok(mut watch) => {
                    while let Some(Ok(item)) = watch.recv().await {
                        let WatchItem::Events(events) = item else { continue };
                        let changes = events.iter().map(|event| self.change(event)).collect();
                        revision = events.last().map_or(revision, |event| event.revision);
                        (self.batch)(changes);
                    }
                }
                Err(error) => {
                    tracing::debug!(prefix = self.prefix, %error, "watch failed, reading again");
                    tokio::time::sleep(RETRY).await;
                    revision = self.read().await;
                }
            }
        }
    }

    fn change(&mut self, event: &store::Event) -> Change {
        match &event.value {
            Some(_) => self.known.insert(event.key.clone(), event.revision),
            None => self.known.remove(&event.key),
        };
        let object = event.value.as_ref().and_then(|value| parse(&event.key, value));
        let previous = event.prev.as_ref().and_then(|prev| parse(&event.key, &prev.value));
        Change { key: event.key.clone(), object, previous }
    }
}

fn parse(key: &str, bytes: &[u8]) -> Option<Arc<Value>> {
    match serde_json::from_slice(bytes) {
        Ok(object) => Some(Arc::new(object)),
        Err(error) => {
            tracing::error!(key, %error, "a stored object is not JSON");
            None
        }
    }
}
