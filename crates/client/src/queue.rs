//! Work queues: keys to look at, each by one worker at a time.
//!
//! ```text
//! add ------------> waiting --next--> in hand --drop--> gone, or waiting again if added meanwhile
//! add_after -> timer --^
//! ```
//!
//! Invariants: a key waits once however often it is added; a key in hand is given to nobody else; a key added while in
//! hand is not lost. Back-off: 5 ms doubling to 1,000 s for each failure since [`Queue::forget`].

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt,
    hash::Hash,
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::metrics::{QUEUES, QueueLabels};

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);

struct State<T> {
    waiting: VecDeque<(T, Instant)>,
    queued: HashSet<T>,
    in_hand: HashSet<T>,
    /// Added while in hand.
    again: HashSet<T>,
    timers: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    closed: bool,
}

struct Inner<T> {
    name: &'static str,
    state: Mutex<State<T>>,
    changed: Notify,
}

/// A queue of keys; clones share it.
pub struct Queue<T>(Arc<Inner<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + Eq + Hash + Send + 'static> Queue<T> {
    /// `name` labels the queue's metrics.
    pub fn new(name: &'static str) -> Self {
        Self(Arc::new(Inner {
            name,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                queued: HashSet::new(),
                in_hand: HashSet::new(),
                again: HashSet::new(),
                timers: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
                closed: false,
            }),
            changed: Notify::new(),
        }))
    }

    fn labels(&self) -> QueueLabels {
        QueueLabels { name: self.0.name }
    }

    /// Adds a key that is to be looked at now.
    pub fn add(&self, key: T) {
        let mut state = self.0.state.lock();
        self.put(&mut state, key);
        drop(state);
        self.0.changed.notify_one();
    }

    fn put(&self, state: &mut State<T>, key: T) {
        if state.closed || state.queued.contains(&key) {
            return;
        }
        QUEUES.adds.get_or_create(&self.labels()).inc();
        if state.in_hand.contains(&key) {
            state.again.insert(key);
            return;
        }
        state.queued.insert(key.clone());
        state.waiting.push_back((key, Instant::now()));
        QUEUES.depth.get_or_create(&self.labels()).set(state.waiting.len() as i64);
    }

    /// Adds a key later; the earliest of several times counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.0.state.lock();
        if state.closed {
            return;
        }
        let at = Instant::now() + delay;
        if let Some(&(known, sequence)) = state.due.get(&key) {
            if known <= at {
                return;
            }
            state.timers.remove(&(known, sequence));
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.timers.insert(slot, key.clone());
        state.due.insert(key, slot);
        drop(state);
        self.0.changed.notify_one();
    }

    /// Adds a key that failed, after a delay that doubles with each failure.
    pub fn add_backoff(&self, key: T) {
        let failures = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        QUEUES.retries.get_or_create(&self.labels()).inc();
        self.add_after(key, BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(20)).min(BACKOFF_MAX));
    }

    /// The key succeeded: its next failure starts with the shortest delay.
    pub fn forget(&self, key: &T) {
        self.0.state.lock().failures.remove(key);
    }

    /// Failures since the last success.
    pub fn failures(&self, key: &T) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key; `None` once the queue is shut down and empty.
    pub async fn next(&self) -> Option<Item<T>> {
        loop {
            let timer = {
                let mut state = self.0.state.lock();
                let now = Instant::now();
                while let Some(entry) = state.timers.first_entry().filter(|entry| entry.key().0 <= now) {
                    let key = entry.remove();
                    state.due.remove(&key);
                    self.put(&mut state, key);
                }
                if let Some((key, since)) = state.waiting.pop_front() {
                    state.queued.remove(&key);
                    state.in_hand.insert(key.clone());
                    // Somebody else must take the next one, or wait for the next timer in this one's place.
                    let more = !state.waiting.is_empty() || !state.timers.is_empty();
                    QUEUES.depth.get_or_create(&self.labels()).set(state.waiting.len() as i64);
                    drop(state);
                    QUEUES.waited.get_or_create(&self.labels()).observe(since.elapsed().as_secs_f64());
                    if more {
                        self.0.changed.notify_one();
                    }
                    return Some(Item { key, queue: self.clone(), since: now });
                }
                if state.closed {
                    drop(state);
                    self.0.changed.notify_one();
                    return None;
                }
                state.timers.first_key_value().map(|((at, _), _)| *at)
            };
            let changed = self.0.changed.notified();
            match timer {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// No more keys are taken in; waiting ones are still given out.
    pub fn shut_down(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.timers.clear();
        state.due.clear();
        drop(state);
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }

    /// Keys that wait now, those with a timer not counted.
    pub fn len(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn done(&self, key: &T, since: Instant) {
        QUEUES.worked.get_or_create(&self.labels()).observe(since.elapsed().as_secs_f64());
        let mut state = self.0.state.lock();
        state.in_hand.remove(key);
        if state.again.remove(key) {
            self.put(&mut state, key.clone());
            drop(state);
            self.0.changed.notify_one();
        }
    }
}

/// A key in hand; dropping it says that the work is done.
pub struct Item<T: Clone + Eq + Hash + Send + 'static> {
    key: T,
    queue: Queue<T>,
    since: Instant,
}

impl<T: Clone + Eq + Hash + Send + 'static> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.key
    }
}

impl<T: Clone + Eq + Hash + Send + 'static> Drop for Item<T> {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.since);
    }
}

impl<T: Clone + Eq + Hash + Send + fmt::Debug + 'static> fmt::Debug for Item<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_given_once_and_not_lost_while_in_hand() {
        let queue = Queue::new("test");
        queue.add("a");
        queue.add("a");
        let item = queue.next().await.unwrap();
        assert!(queue.is_empty());
        queue.add("a");
        assert!(queue.is_empty(), "nobody else gets it");
        drop(item);
        assert_eq!(*queue.next().await.unwrap(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_timer_counts() {
        let queue = Queue::new("test");
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(5));
        queue.next().await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        queue.shut_down();
        assert!(queue.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_until_forgotten() {
        let queue = Queue::new("test");
        let mut waits = Vec::new();
        for round in 0..5 {
            if round == 3 {
                queue.forget(&"a");
            }
            let start = Instant::now();
            queue.add_backoff("a");
            queue.next().await.unwrap();
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 5, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_worker_does_not_hold_up_the_next_timer() {
        let queue = Queue::new("test");
        let start = Instant::now();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let item = queue.next().await.unwrap();
                    let at = start.elapsed().as_secs();
                    tokio::time::sleep(Duration::from_secs(100)).await;
                    (*item, at)
                })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("b", Duration::from_secs(2));
        let mut seen = Vec::new();
        for worker in workers {
            seen.push(worker.await.unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, [("a", 1), ("b", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_workers_share_many_keys_and_none_is_lost() {
        let queue = Queue::new("test");
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    while let Some(item) = queue.next().await {
                        tokio::task::yield_now().await;
                        mine.push(*item);
                    }
                    mine
                })
            })
            .collect();
        for key in 0..100 {
            queue.add(key);
            queue.add_after(1000 + key, Duration::from_millis(key));
            if key % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.shut_down();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).chain(1000..1100).collect::<Vec<u64>>());
    }
}
