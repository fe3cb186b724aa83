//! The task behind each cache: follows the store's watch.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Attributes, Item, Shared};
use crate::{Error, Event, Revision, Watch, WatchItem};

/// Pause before a failed backend is read again.
const RETRY: Duration = Duration::from_millis(500);
/// Old changes are forgotten at most this often while nothing else happens.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// Reads the present objects and goes on following in a task.
pub(super) async fn start<A: Attributes>(shared: &Arc<Shared<A>>) -> Result<(), Error> {
    let (items, revision) = shared.load().await?;
    let watch = shared.store.watch(&shared.prefix, revision).await?;
    reset(shared, items, revision);
    let (weak, stop) = (Arc::downgrade(shared), shared.stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = run(&weak, watch) => {}
        }
    });
    Ok(())
}

async fn run<A: Attributes>(weak: &Weak<Shared<A>>, mut watch: Watch) {
    loop {
        let error = follow(weak, &mut watch).await;
        let Some(shared) = weak.upgrade() else { return };
        if matches!(error, Error::Closed) {
            shared.state.write().stop(error);
            shared.reached.send_replace(Revision::MAX);
            return;
        }
        tracing::warn!(prefix = shared.prefix, %error, "the watch behind a cache has ended, reading again");
        drop(shared);
        watch = loop {
            let Some(shared) = weak.upgrade() else { return };
            match restart(&shared).await {
                Ok(watch) => break watch,
                Err(error) => tracing::warn!(prefix = shared.prefix, %error, "cannot read again, trying on"),
            }
            drop(shared);
            sleep(RETRY).await;
        };
    }
}

async fn restart<A: Attributes>(shared: &Shared<A>) -> Result<Watch, Error> {
    let (items, revision) = shared.load().await?;
    let watch = shared.store.watch(&shared.prefix, revision).await?;
    reset(shared, items, revision);
    Ok(watch)
}

fn reset<A: Attributes>(shared: &Shared<A>, items: Vec<Arc<Item<A>>>, revision: Revision) {
    shared.metrics.cache_items.get_or_create(&shared.label()).set(items.len() as i64);
    shared.state.write().reset(items, revision);
    shared.reached.send_replace(revision);
}

/// Takes in what the watch yields until it ends.
async fn follow<A: Attributes>(weak: &Weak<Shared<A>>, watch: &mut Watch) -> Error {
    let mut trim_at = None;
    loop {
        let item = tokio::select! {
            item = watch.recv() => item,
            () = sleep_until(trim_at.unwrap_or_else(Instant::now)), if trim_at.is_some() => None,
        };
        let trimming = item.is_none() && !watch.is_closed();
        let Some(shared) = weak.upgrade() else { return Error::Closed };
        match item {
            Some(Ok(WatchItem::Events(events))) => shared.take(&events),
            Some(Ok(WatchItem::Progress(revision))) => {
                shared.lift(revision);
                shared.reached.send_if_modified(|reached| advance(reached, revision));
            }
            Some(Err(error)) => return error,
            None if trimming => shared.state.write().trim(Instant::now(), &shared.limits),
            None => return Error::Closed,
        }
        let due = shared.state.read().ring().trim_due(&shared.limits);
        trim_at = due.map(|due| due.max(Instant::now() + TRIM_EVERY));
    }
}

fn advance(reached: &mut Revision, revision: Revision) -> bool {
    let more = revision > *reached;
    *reached = revision.max(*reached);
    more
}

impl<A: Attributes> Shared<A> {
    fn take(&self, events: &[Event]) {
        // Values are parsed before the lock is taken.
        let with_attrs = |event: &Event| {
            let attrs = event.value.as_ref().map(|value| A::of(&event.key, value));
            (event.clone(), attrs)
        };
        let changes: Vec<(Event, Option<A>)> = events.iter().map(with_attrs).collect();
        let (cut, len, revision) = {
            let mut state = self.state.write();
            let cut = state.apply(changes, Instant::now(), &self.limits);
            (cut, state.len(), state.revision())
        };
        self.reached.send_if_modified(|reached| advance(reached, revision));
        let label = self.label();
        self.metrics.cache_events.get_or_create(&label).inc_by(events.len() as u64);
        self.metrics.cache_items.get_or_create(&label).set(len as i64);
        if cut > 0 {
            self.metrics.cache_slow_watchers.get_or_create(&label).inc_by(cut as u64);
            tracing::warn!(prefix = self.prefix, watches = cut, "cut watches that did not keep up");
        }
    }
}
