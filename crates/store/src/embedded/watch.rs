//! Store watches: one task each, woken only for changes under its prefix, reading from shared history.
//!
//! A watch keeps a position, not a queue: a slow reader holds nothing but its bounded channel, and when history has
//! moved past it, it ends with [`Error::Compacted`].

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};

use super::state::State;
use crate::{Error, Event, Revision, Watch, WatchItem};

/// Items that may wait in a watch's channel.
const CHANNEL: usize = 16;
/// Events in one item, about.
const BATCH: usize = 512;

/// What the commit thread knows of one watch.
#[derive(Debug)]
struct Slot {
    prefix: String,
    /// The newest revision that changed something under the prefix.
    changed: AtomicU64,
    /// The first such revision since the task last looked; 0: none.
    pending: AtomicU64,
    wake: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Watchers {
    slots: Vec<Weak<Slot>>,
    closed: bool,
}

impl Watchers {
    /// Notes what changed. Called under the state's lock; the tasks wake up and wait for it.
    pub(super) fn mark(&mut self, events: &[Event]) {
        self.slots.retain(|slot| {
            let Some(slot) = slot.upgrade() else { return false };
            if let Some(event) = events.iter().find(|event| event.key.starts_with(&slot.prefix)) {
                slot.changed.store(event.revision, Ordering::Release);
                // Only the task sets it back, and never at the same time: it holds the state's lock then.
                if slot.pending.load(Ordering::Acquire) == 0 {
                    slot.pending.store(event.revision, Ordering::Release);
                }
                slot.wake.notify_one();
            }
            true
        });
    }

    /// The newest change under exactly this prefix, when a watch on it keeps track.
    pub(super) fn changed(&self, prefix: &str) -> Option<Revision> {
        let tracked = self.slots.iter().filter_map(Weak::upgrade).filter(|slot| slot.prefix == prefix);
        tracked.map(|slot| slot.changed.load(Ordering::Acquire)).max()
    }

    /// Ends all watches.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.slots.drain(..).filter_map(|slot| slot.upgrade()).for_each(|slot| slot.wake.notify_one());
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// Starts a watch on `prefix` behind `after`.
pub(super) fn start(state: &Arc<RwLock<State>>, prefix: &str, after: Revision) -> Result<Watch, Error> {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let slot = {
        let mut state = state.write();
        if state.watchers.closed {
            return Err(Error::Closed);
        }
        if after < state.oldest {
            return Err(Error::Compacted { requested: after, oldest: state.oldest });
        }
        let changed = AtomicU64::new(state.last_change(prefix, after));
        let slot =
            Arc::new(Slot { prefix: prefix.to_string(), changed, pending: AtomicU64::new(0), wake: Notify::new() });
        state.watchers.slots.push(Arc::downgrade(&slot));
        slot
    };
    let state = Arc::downgrade(state);
    tokio::spawn(async move { run(&state, &slot, after, &sender).await });
    Ok(receiver)
}

/// How far a watch has come.
#[derive(Clone, Copy)]
struct Position {
    after: Revision,
    /// It had reached the store's revision when it last looked.
    caught_up: bool,
}

async fn run(
    state: &Weak<RwLock<State>>,
    slot: &Slot,
    after: Revision,
    sender: &mpsc::Sender<Result<WatchItem, Error>>,
) {
    let mut position = Position { after, caught_up: false };
    loop {
        let step = match state.upgrade() {
            None => Err(Error::Closed),
            Some(state) => step(&state.read(), slot, &mut position),
        };
        let sent = match step {
            Ok(events) if events.is_empty() => {
                tokio::select! {
                    () = slot.wake.notified() => Ok(()),
                    () = sender.closed() => return,
                }
            }
            Ok(events) => sender.send(Ok(WatchItem::Events(events.into()))).await,
            Err(error) => {
                // The reader may be gone already: there is nobody else to tell.
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The next events, moving the position behind them. None: the watch has caught up.
///
/// A watch that had caught up goes on right before the first change since then: history in between, which may have been
/// forgotten, holds nothing for it.
fn step(state: &State, slot: &Slot, position: &mut Position) -> Result<Vec<Event>, Error> {
    if state.watchers.closed {
        return Err(Error::Closed);
    }
    let pending = slot.pending.swap(0, Ordering::AcqRel);
    if slot.changed.load(Ordering::Acquire) <= position.after {
        *position = Position { after: position.after.max(state.revision), caught_up: true };
        return Ok(Vec::new());
    }
    if position.caught_up && pending > 0 {
        position.after = position.after.max(pending - 1);
    }
    let (events, reached) = state.events(&slot.prefix, position.after, BATCH)?;
    *position = Position { after: reached, caught_up: reached >= state.revision };
    Ok(events)
}
