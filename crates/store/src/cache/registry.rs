//! Who watches what: watches by what they are registered under, so that a change finds its watches and no others.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;

use super::{
    Attributes, CacheEvent, Change, Filter, Item,
    stream::{Kind, Message, WatchEvent},
};
use crate::{Error, Revision};

/// The objects that a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// Keys directly in this directory, such as `/registry/core/pods/default/`.
    Directory(String),
    Key(String),
    /// Objects whose attributes have this value under the index of this name.
    Index(&'static str, String),
}

impl Scope {
    pub(super) fn matches<A: Attributes>(&self, item: &Item<A>) -> bool {
        match self {
            Self::All => true,
            Self::Directory(directory) => directory_of(&item.entry.key) == directory,
            Self::Key(key) => *item.entry.key == **key,
            Self::Index(name, value) => has(&item.attrs, name, value),
        }
    }
}

fn directory_of(key: &str) -> &str {
    key.rfind('/').map_or("", |at| &key[..=at])
}

fn has<A: Attributes>(attrs: &A, name: &str, value: &str) -> bool {
    let mut found = false;
    attrs.indexed(&mut |own_name, own_value| found |= own_name == name && own_value == value);
    found
}

/// A watch as the cache sees it.
pub(super) struct Slot<A> {
    pub(super) filter: Option<Filter<A>>,
    pub(super) sender: mpsc::Sender<Message<A>>,
    /// Why the watch was ended from this side.
    pub(super) ended: Arc<OnceLock<Error>>,
}

impl<A> Slot<A> {
    pub(super) fn kind(&self, was: Option<&Item<A>>, is: Option<&Item<A>>) -> Option<Kind> {
        let selects = |item: &&Item<A>| self.filter.as_ref().is_none_or(|filter| filter(&item.attrs));
        match (was.filter(selects), is.filter(selects)) {
            (None, None) => None,
            (None, Some(_)) => Some(Kind::Added),
            (Some(_), Some(_)) => Some(Kind::Modified),
            (Some(_), None) => Some(Kind::Deleted),
        }
    }
}

type Slots<A> = BTreeMap<u64, Slot<A>>;

/// All watches of a cache.
pub(super) struct Registry<A> {
    all: Slots<A>,
    directories: HashMap<String, Slots<A>>,
    keys: HashMap<String, Slots<A>>,
    indexes: HashMap<&'static str, HashMap<String, Slots<A>>>,
    len: usize,
    last_id: u64,
}

impl<A> Registry<A> {
    pub(super) fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            directories: HashMap::new(),
            keys: HashMap::new(),
            indexes: HashMap::new(),
            len: 0,
            last_id: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn add(&mut self, scope: &Scope, slot: Slot<A>) -> u64 {
        self.last_id += 1;
        self.len += 1;
        let slots = match scope {
            Scope::All => &mut self.all,
            Scope::Directory(directory) => self.directories.entry(directory.clone()).or_default(),
            Scope::Key(key) => self.keys.entry(key.clone()).or_default(),
            Scope::Index(name, value) => self.indexes.entry(name).or_default().entry(value.clone()).or_default(),
        };
        slots.insert(self.last_id, slot);
        self.last_id
    }

    pub(super) fn get(&self, scope: &Scope, id: u64) -> Option<&Slot<A>> {
        let slots = match scope {
            Scope::All => &self.all,
            Scope::Directory(directory) => self.directories.get(directory)?,
            Scope::Key(key) => self.keys.get(key)?,
            Scope::Index(name, value) => self.indexes.get(name)?.get(value)?,
        };
        slots.get(&id)
    }

    pub(super) fn remove(&mut self, scope: &Scope, id: u64) {
        let removed = match scope {
            Scope::All => self.all.remove(&id),
            Scope::Directory(directory) => remove_in(&mut self.directories, directory, id),
            Scope::Key(key) => remove_in(&mut self.keys, key, id),
            Scope::Index(name, value) => self.indexes.get_mut(name).and_then(|values| remove_in(values, value, id)),
        };
        self.len -= usize::from(removed.is_some());
    }

    /// Ends all watches with `error`.
    pub(super) fn end_all(&mut self, error: &Error) {
        let last_id = self.last_id;
        let old = mem::replace(self, Self { last_id, ..Self::new() });
        let indexed = old.indexes.into_values().flat_map(HashMap::into_values);
        let slots = old.directories.into_values().chain(old.keys.into_values()).chain(indexed);
        for slot in slots.chain([old.all]).flat_map(BTreeMap::into_values) {
            // It was in the registry, so nothing has ended it before.
            let _ = slot.ended.set(error.clone());
        }
    }
}

fn remove_in<A>(map: &mut HashMap<String, Slots<A>>, name: &str, id: u64) -> Option<Slot<A>> {
    let slots = map.get_mut(name)?;
    let removed = slots.remove(&id);
    if slots.is_empty() {
        map.remove(name);
    }
    removed
}

impl<A: Attributes> Registry<A> {
    /// Hands a change to the watches that select it; the number of those that had to be cut.
    pub(super) fn dispatch(&mut self, change: &Arc<Change<A>>) -> usize {
        if self.len == 0 {
            return 0;
        }
        let (was, is) = (change.prev.as_deref(), change.item.as_deref());
        let mut delivery = Delivery { change, event: None, cut: 0 };
        delivery.hand_to(&mut self.all, was, is);
        if let Some(slots) = self.directories.get_mut(directory_of(&change.key)) {
            delivery.hand_to(slots, was, is);
        }
        if let Some(slots) = self.keys.get_mut(&*change.key) {
            delivery.hand_to(slots, was, is);
        }
        let indexes = &mut self.indexes;
        for item in [was, is].into_iter().flatten() {
            let first = was.is_some_and(|was| std::ptr::eq(was, item));
            item.attrs.indexed(&mut |name, value| {
                let Some(slots) = indexes.get_mut(name).and_then(|values| values.get_mut(value)) else { return };
                let was = was.filter(|item| has(&item.attrs, name, value));
                let is = is.filter(|item| has(&item.attrs, name, value));
                // A value that both versions have is served on the first visit.
                if first || was.is_none() {
                    delivery.hand_to(slots, was, is);
                }
            });
        }
        self.len -= delivery.cut;
        delivery.cut
    }
}

/// One change being handed out.
struct Delivery<'a, A> {
    change: &'a Arc<Change<A>>,
    /// Made for the first watch that wants it.
    event: Option<Arc<CacheEvent<A>>>,
    cut: usize,
}

impl<A> Delivery<'_, A> {
    fn hand_to(&mut self, slots: &mut Slots<A>, was: Option<&Item<A>>, is: Option<&Item<A>>) {
        let mut cut = Vec::new();
        for (id, slot) in &*slots {
            let Some(kind) = slot.kind(was, is) else { continue };
            let event = self.event.get_or_insert_with(|| Arc::new(CacheEvent::new(self.change.clone())));
            let message = Message::Event(WatchEvent { kind, event: event.clone() });
            if let Err(mpsc::error::TrySendError::Full(_)) = slot.sender.try_send(message) {
                // Nothing has ended it before: it is still registered.
                let _ = slot.ended.set(Error::Slow);
                cut.push(*id);
            }
        }
        self.cut += cut.len();
        for id in cut {
            slots.remove(&id);
        }
    }
}

impl<A> Slot<A> {
    /// Tells the watch how far the cache is. A watch that has no room has something better to read.
    pub(super) fn bookmark(&self, revision: Revision) {
        let _ = self.sender.try_send(Message::Bookmark(revision));
    }
}
