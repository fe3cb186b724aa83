//! One watch, from the reader's side.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    vec,
};

use tokio::sync::mpsc;

use super::{
    Attributes, CacheEvent, Change, Filter, Item, Shared, Start,
    registry::{Scope, Slot},
};
use crate::{Error, Revision};

/// What happened to an object, as seen through a watch's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

/// A change as one watch sees it.
#[derive(Debug)]
pub struct WatchEvent<A> {
    pub kind: Kind,
    pub event: Arc<CacheEvent<A>>,
}

impl<A> WatchEvent<A> {
    /// The object to show: what it was last for a deletion. Its revision to show is the event's.
    pub fn object(&self) -> Option<&Arc<Item<A>>> {
        match self.kind {
            Kind::Added | Kind::Modified => self.event.item.as_ref(),
            Kind::Deleted => self.event.prev.as_ref(),
        }
    }
}

/// What a watch yields.
#[derive(Debug)]
pub enum StreamItem<A> {
    Event(WatchEvent<A>),
    /// The present objects at this revision were told; what follows is change.
    InitialEnd(Revision),
    /// Everything up to this revision was told.
    Bookmark(Revision),
}

pub(super) enum Message<A> {
    Event(WatchEvent<A>),
    Bookmark(Revision),
}

/// A running watch; dropping it ends it.
pub struct WatchStream<A> {
    shared: Arc<Shared<A>>,
    scope: Scope,
    id: u64,
    initial: vec::IntoIter<Arc<Item<A>>>,
    initial_end: Option<Revision>,
    replay: VecDeque<(Kind, Arc<Change<A>>)>,
    receiver: mpsc::Receiver<Message<A>>,
    ended: Arc<OnceLock<Error>>,
    told_end: bool,
}

impl<A: Attributes> WatchStream<A> {
    pub(super) fn open(
        shared: &Arc<Shared<A>>,
        scope: Scope,
        start: Start,
        filter: Option<Filter<A>>,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(shared.limits.pending);
        let ended = Arc::new(OnceLock::new());
        let slot = Slot { filter, sender, ended: ended.clone() };
        let mut state = shared.state.write();
        if let Some(error) = state.stopped() {
            return Err(error);
        }
        let (mut initial, mut initial_end, mut replay) = (Vec::new(), None, VecDeque::new());
        match start {
            Start::Now => {}
            Start::Present => {
                initial = state.select(&scope, |item| slot.kind(None, Some(item)).is_some());
                initial_end = Some(state.revision());
            }
            Start::After(revision) => {
                let oldest = state.ring().since();
                if revision < oldest {
                    return Err(Error::Compacted { requested: revision, oldest });
                }
                for change in state.ring().after(revision) {
                    let side = |item: &Option<Arc<Item<A>>>| item.clone().filter(|item| scope.matches(item));
                    let (was, is) = (side(&change.prev), side(&change.item));
                    if let Some(kind) = slot.kind(was.as_deref(), is.as_deref()) {
                        replay.push_back((kind, change.clone()));
                    }
                }
            }
        }
        let id = state.registry.add(&scope, slot);
        shared.metrics.cache_watchers.get_or_create(&shared.label()).set(state.registry.len() as i64);
        drop(state);
        let initial = initial.into_iter();
        let shared = shared.clone();
        Ok(Self { shared, scope, id, initial, initial_end, replay, receiver, ended, told_end: false })
    }

    /// The next item; `None` after an error, which says why the watch ended ([`Error::Slow`], [`Error::Compacted`]).
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<StreamItem<A>, Error>> {
        if let Some(item) = self.waiting() {
            return Some(Ok(item));
        }
        match self.receiver.recv().await {
            Some(message) => Some(Ok(message.into())),
            None => self.end(),
        }
    }

    /// The next item, if there is one already.
    pub fn try_next(&mut self) -> Option<Result<StreamItem<A>, Error>> {
        if let Some(item) = self.waiting() {
            return Some(Ok(item));
        }
        match self.receiver.try_recv() {
            Ok(message) => Some(Ok(message.into())),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => self.end(),
        }
    }

    /// Asks for a [`StreamItem::Bookmark`] behind everything that waits to be read.
    pub async fn request_bookmark(&self) -> Result<(), Error> {
        self.shared.catch_up().await?;
        let state = self.shared.state.read();
        if let Some(slot) = state.registry.get(&self.scope, self.id) {
            slot.bookmark(state.revision());
        }
        Ok(())
    }

    fn waiting(&mut self) -> Option<StreamItem<A>> {
        if let Some(item) = self.initial.next() {
            let (key, revision) = (item.entry.key.clone(), item.entry.mod_revision);
            return Some(event(Kind::Added, Arc::new(Change { key, revision, item: Some(item), prev: None })));
        }
        if let Some(revision) = self.initial_end.take() {
            self.initial = Vec::new().into_iter();
            return Some(StreamItem::InitialEnd(revision));
        }
        let (kind, change) = self.replay.pop_front()?;
        Some(event(kind, change))
    }

    fn end(&mut self) -> Option<Result<StreamItem<A>, Error>> {
        if std::mem::replace(&mut self.told_end, true) {
            return None;
        }
        Some(Err(self.ended.get().cloned().unwrap_or(Error::Closed)))
    }
}

fn event<A>(kind: Kind, change: Arc<Change<A>>) -> StreamItem<A> {
    StreamItem::Event(WatchEvent { kind, event: Arc::new(CacheEvent::new(change)) })
}

impl<A> From<Message<A>> for StreamItem<A> {
    fn from(message: Message<A>) -> Self {
        match message {
            Message::Event(event) => Self::Event(event),
            Message::Bookmark(revision) => Self::Bookmark(revision),
        }
    }
}

impl<A> Drop for WatchStream<A> {
    fn drop(&mut self) {
        let mut state = self.shared.state.write();
        state.registry.remove(&self.scope, self.id);
        self.shared.metrics.cache_watchers.get_or_create(&self.shared.label()).set(state.registry.len() as i64);
    }
}
