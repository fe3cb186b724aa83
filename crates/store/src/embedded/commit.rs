//! The commit thread: takes all waiting requests, writes them as one frame, syncs once, makes them visible, answers.
//!
//! Requests that arrive during a sync form the next batch, so a lone writer waits for one sync and many share one; no
//! timer is involved. Within a batch each transaction sees the ones before it through [`Batch::overlay`]; readers see
//! nothing before it is durable. When the write fails, the batch leaves no trace and every request in it gets the error.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLockReadGuard};
use tokio::sync::oneshot;

use super::{codec::FrameWriter, state::State, writer::Writer};
use crate::{Entry, Error, Event, LeaseId, Op, Outcome, Revision, Txn};

/// A batch takes requests until it holds about this much.
const BATCH_BYTES: usize = 4 << 20;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the commit thread is asked to do.
pub(super) enum Request {
    /// `sealed[i]` is what goes to disk in place of the value of `txn.ops[i]`.
    Txn {
        txn: Txn,
        sealed: Vec<Option<Vec<u8>>>,
        reply: Reply<Outcome>,
    },
    Grant {
        ttl: Duration,
        reply: Reply<LeaseId>,
    },
    KeepAlive {
        id: LeaseId,
        reply: Reply<()>,
    },
    Revoke {
        id: LeaseId,
        reply: Reply<()>,
    },
    Compact {
        revision: Revision,
        reply: Reply<()>,
    },
    /// The snapshot thread is done; the length of its file when it succeeded.
    Snapshot(Option<u64>),
}

/// Where requests wait for the commit thread.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, request: Request) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Error::Closed);
        }
        waiting.requests.push(request);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Lets the commit thread end once it has done what waits.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_one();
    }

    /// All that waits; empty when `deadline` came first. `None`: closed.
    fn take(&self, deadline: Option<Instant>) -> Option<Vec<Request>> {
        let mut waiting = self.waiting.lock();
        while waiting.requests.is_empty() && !waiting.closed {
            let timed_out = match deadline {
                Some(deadline) => self.wake.wait_until(&mut waiting, deadline).timed_out(),
                None => {
                    self.wake.wait(&mut waiting);
                    false
                }
            };
            if timed_out {
                break;
            }
        }
        if waiting.requests.is_empty() && waiting.closed {
            return None;
        }
        Some(mem::take(&mut waiting.requests))
    }
}

/// Runs until the queue is closed and empty.
pub(super) fn run(queue: &Arc<Queue>, mut writer: Writer) {
    let mut frame = FrameWriter::default();
    while let Some(requests) = queue.take(writer.deadline()) {
        let mut requests = requests.into_iter().peekable();
        loop {
            let state = writer.state.clone();
            let mut batch = Batch::new(state.read(), &mut frame);
            batch.expire(Instant::now());
            while batch.frame.len() < BATCH_BYTES
                && let Some(request) = requests.next()
            {
                batch.add(request);
            }
            let effects = batch.finish();
            commit(&mut writer, &mut frame, effects);
            if requests.peek().is_none() {
                break;
            }
        }
        writer.maintain(queue);
    }
    writer.stop_snapshot();
    writer.state.write().watchers.close();
}

fn commit(writer: &mut Writer, frame: &mut FrameWriter, effects: Effects) {
    let written = if frame.is_empty() { Ok(()) } else { writer.append(frame.finish(), effects.txns.len()) };
    if written.is_ok() {
        let now = Instant::now();
        let mut state = writer.state.write();
        for events in effects.txns {
            state.apply(events, now);
        }
        for (id, change) in effects.leases {
            match change {
                Some(ttl) => state.leases.set(id, ttl, now + ttl),
                None => state.leases.remove(id),
            }
        }
    }
    for answer in effects.answers {
        answer.send(written.as_ref().err(), writer);
    }
}

/// A reply that waits for the batch to be durable. A caller that has gone away is nobody to tell.
enum Answer {
    Txn(Reply<Outcome>, Outcome),
    Grant(Reply<LeaseId>, LeaseId),
    Done(Reply<()>),
    Compact(Reply<()>, Revision),
    Snapshot(Option<u64>),
}

impl Answer {
    fn send(self, failed: Option<&Error>, writer: &mut Writer) {
        fn reply<T>(to: Reply<T>, failed: Option<&Error>, with: T) {
            let _ = to.send(failed.map_or(Ok(with), |error| Err(error.clone())));
        }
        match self {
            Self::Txn(to, outcome) => reply(to, failed, outcome),
            Self::Grant(to, id) => reply(to, failed, id),
            Self::Done(to) => reply(to, failed, ()),
            Self::Compact(to, revision) => {
                let _ = to.send(writer.state.write().compact(revision));
            }
            Self::Snapshot(result) => writer.snapshot_done(result),
        }
    }
}

/// What a batch will do once it is durable.
#[derive(Default)]
struct Effects {
    /// One element a revision.
    txns: Vec<Arc<[Event]>>,
    /// Leases set to a time to live from now, or gone.
    leases: Vec<(LeaseId, Option<Duration>)>,
    answers: Vec<Answer>,
}

/// Requests being turned into one frame.
struct Batch<'a> {
    state: RwLockReadGuard<'a, State>,
    frame: &'a mut FrameWriter,
    /// Keys that this batch has written so far.
    overlay: HashMap<Arc<str>, Option<Entry>>,
    revision: Revision,
    last_lease: LeaseId,
    revoked: HashSet<LeaseId>,
    effects: Effects,
}

impl<'a> Batch<'a> {
    fn new(state: RwLockReadGuard<'a, State>, frame: &'a mut FrameWriter) -> Self {
        frame.start();
        let (revision, last_lease) = (state.revision, state.leases.last_id);
        Self {
            state,
            frame,
            overlay: HashMap::new(),
            revision,
            last_lease,
            revoked: HashSet::new(),
            effects: Effects::default(),
        }
    }

    /// Lets go of the state, which the commit is about to change.
    fn finish(self) -> Effects {
        self.effects
    }

    fn add(&mut self, request: Request) {
        match request {
            Request::Txn { txn, sealed, reply } => match self.txn(txn, &sealed) {
                Ok(outcome) => self.effects.answers.push(Answer::Txn(reply, outcome)),
                Err(error) => _ = reply.send(Err(error)),
            },
            Request::Grant { ttl, reply } => {
                self.last_lease += 1;
                self.set_lease(self.last_lease, ttl);
                self.effects.answers.push(Answer::Grant(reply, self.last_lease));
            }
            Request::KeepAlive { id, reply } => match self.lease(id) {
                Ok(ttl) => {
                    self.set_lease(id, ttl);
                    self.effects.answers.push(Answer::Done(reply));
                }
                Err(error) => _ = reply.send(Err(error)),
            },
            Request::Revoke { id, reply } => match self.lease(id) {
                Ok(_) => {
                    self.revoke(id);
                    self.effects.answers.push(Answer::Done(reply));
                }
                Err(error) => _ = reply.send(Err(error)),
            },
            Request::Compact { revision, reply } => self.effects.answers.push(Answer::Compact(reply, revision)),
            Request::Snapshot(result) => self.effects.answers.push(Answer::Snapshot(result)),
        }
    }

    /// Deletes the keys of leases that have ended.
    fn expire(&mut self, now: Instant) {
        for id in self.state.leases.expired(now) {
            self.revoke(id);
        }
    }

    fn set_lease(&mut self, id: LeaseId, ttl: Duration) {
        let ms = ttl.as_millis() as u64;
        self.frame.lease(id, ms, ms);
        self.effects.leases.push((id, Some(ttl)));
    }

    fn lease(&self, id: LeaseId) -> Result<Duration, Error> {
        let known = self.state.leases.get(id).filter(|_| !self.revoked.contains(&id));
        known.map(|lease| lease.ttl).ok_or(Error::NoSuchLease(id))
    }

    fn revoke(&mut self, id: LeaseId) {
        let mut keys = self.state.leases.keys(id);
        keys.extend(self.overlay.keys().cloned());
        keys.retain(|key| self.current(key).is_some_and(|entry| entry.lease == Some(id)));
        keys.sort_unstable();
        keys.dedup();
        let ops: Vec<Op> = keys.into_iter().map(|key| Op::Delete { key: key.to_string() }).collect();
        self.write(ops, &[]);
        self.frame.revoked(id);
        self.revoked.insert(id);
        self.effects.leases.push((id, None));
    }

    fn current(&self, key: &str) -> Option<Entry> {
        match self.overlay.get(key) {
            Some(entry) => entry.clone(),
            None => self.state.get(key),
        }
    }

    fn txn(&mut self, txn: Txn, sealed: &[Option<Vec<u8>>]) -> Result<Outcome, Error> {
        let mut keys = HashSet::new();
        for op in &txn.ops {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            if !keys.insert(key) {
                return Err(Error::Invalid(format!("a transaction writes {key} twice")));
            }
            if let Op::Put { lease: Some(lease), .. } = op {
                self.lease(*lease)?;
            }
        }
        let current: Vec<Option<Entry>> = txn.compare.iter().map(|compare| self.current(&compare.key)).collect();
        let holds = txn.compare.iter().zip(&current).all(|(compare, entry)| {
            let actual = entry.as_ref().map_or(0, |entry| entry.mod_revision);
            actual == compare.mod_revision
        });
        if !holds {
            return Ok(Outcome::Failed { current, revision: self.revision });
        }
        self.write(txn.ops, sealed);
        Ok(Outcome::Committed(self.revision))
    }

    /// Adds one transaction's writes. Deletes of keys that do not exist are nothing, and no change is no revision.
    fn write(&mut self, ops: Vec<Op>, sealed: &[Option<Vec<u8>>]) {
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(ops.len());
        let mut on_disk = Vec::with_capacity(ops.len());
        for (index, op) in ops.into_iter().enumerate() {
            let (Op::Put { key, .. } | Op::Delete { key }) = &op;
            let prev = self.current(key);
            let create_revision = prev.as_ref().map_or(revision, |prev| prev.create_revision);
            let key: Arc<str> = prev.as_ref().map_or_else(|| key.as_str().into(), |prev| prev.key.clone());
            let (value, lease) = match op {
                Op::Put { value, lease, .. } => (Some(value), lease),
                Op::Delete { .. } if prev.is_none() => continue,
                Op::Delete { .. } => (None, None),
            };
            events.push(Event { key, revision, value, prev, create_revision, lease });
            on_disk.push(sealed.get(index).and_then(Option::as_deref));
        }
        if events.is_empty() {
            return;
        }
        self.frame.txn(revision, events.len());
        for (event, sealed) in events.iter().zip(on_disk) {
            match &event.value {
                None => self.frame.delete(&event.key),
                Some(value) => {
                    self.frame.put(&event.key, event.lease.unwrap_or_default(), sealed.unwrap_or(value));
                }
            }
            self.overlay.insert(event.key.clone(), event.entry());
        }
        self.effects.txns.push(events.into());
        self.revision = revision;
    }
}
