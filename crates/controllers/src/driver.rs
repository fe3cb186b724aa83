//! Runs one controller's loop: informers feed keys to a queue, workers take them, failures come back later.
//!
//! Invariant: a key is worked on by one worker at a time, and only after every informer that the loop reads has its
//! first full list. Why a pass returns a delay and not an event: time is the only thing that informers cannot tell.

use std::{
    fmt::Display,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
    time::Duration,
};

use client::{Change, Informer, Key, Object, Queue, metrics::register};
use futures::{FutureExt, future::BoxFuture};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tracing::{Instrument, debug, error, info_span, warn};

use crate::{Error, context::Scope, error::chain, meta};

/// What a pass over a key came to: done, and if a delay is given, look again then.
pub(crate) type Outcome = Result<Option<Duration>, Error>;

/// Requirements on the key of a loop.
pub(crate) trait LoopKey: Clone + Eq + Hash + Display + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Display + Send + Sync + 'static> LoopKey for T {}

/// Queues the changed object itself.
pub(crate) fn wake<K: Object>(change: &Change<K>, queue: &Queue<Key>) {
    if let Some(object) = change.new.as_ref().or(change.old.as_ref()) {
        queue.add(Key::of(&**object));
    }
}

/// Queues the managing owner of kind `O` of the changed object, the former one too.
pub(crate) fn wake_owner<O: Object, K: Object>(change: &Change<K>, queue: &Queue<Key>) {
    for object in change.old.iter().chain(&change.new) {
        if let Some(owner) = meta::owner_key::<O>(&**object) {
            queue.add(owner);
        }
    }
}

/// A loop being put together.
pub(crate) struct Driver<T> {
    scope: Scope,
    queue: Queue<T>,
    synced: Vec<BoxFuture<'static, ()>>,
}

impl<T: LoopKey> Driver<T> {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self { scope: scope.clone(), queue: Queue::new(scope.name), synced: Vec::new() }
    }

    pub(crate) fn queue(&self) -> Queue<T> {
        self.queue.clone()
    }

    /// Reads a kind without being woken by it.
    pub(crate) fn read<K: Object>(&mut self) -> Informer<K> {
        let informer = self.scope.context.informers.of::<K>();
        self.wait_for(&informer);
        informer
    }

    /// Holds the workers back until the informer has its first full list.
    pub(crate) fn wait_for<K: Object>(&mut self, informer: &Informer<K>) {
        let informer = informer.clone();
        self.synced.push(async move { informer.synced().await }.boxed());
    }

    /// Reads a kind and puts the keys that `wake` names in the queue whenever one of its objects changes.
    pub(crate) fn watch<K: Object>(
        &mut self,
        wake: impl Fn(&Change<K>, &Queue<T>) + Send + Sync + 'static,
    ) -> Informer<K> {
        let informer = self.read::<K>();
        let queue = self.queue.clone();
        informer.on_change(move |change| wake(change, &queue));
        informer
    }

    /// Holds the workers back until the future is ready.
    pub(crate) fn wait(&mut self, ready: BoxFuture<'static, ()>) {
        self.synced.push(ready);
    }

    /// Starts the workers. The handle ends after the context is cancelled and the last pass is over.
    pub(crate) fn run<F, P>(self, workers: usize, pass: F) -> JoinHandle<()>
    where
        F: Fn(T) -> P + Send + Sync + 'static,
        P: Future<Output = Outcome> + Send + 'static,
    {
        let Self { scope, queue, synced } = self;
        let pass = Arc::new(pass);
        tokio::spawn(async move {
            let cancel = scope.context.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => return queue.shut_down(),
                _ = futures::future::join_all(synced) => {}
            }
            let mut tasks = JoinSet::new();
            for _ in 0..workers {
                tasks.spawn(work(scope.clone(), queue.clone(), pass.clone()));
            }
            cancel.cancelled().await;
            queue.shut_down();
            while tasks.join_next().await.is_some() {}
        })
    }
}

async fn work<T, F, P>(scope: Scope, queue: Queue<T>, pass: Arc<F>)
where
    T: LoopKey,
    F: Fn(T) -> P + Send + Sync + 'static,
    P: Future<Output = Outcome> + Send + 'static,
{
    while let Some(item) = queue.next().await {
        let key: T = (*item).clone();
        let span = info_span!("pass", controller = scope.name, key = %key);
        let started = Instant::now();
        let outcome = AssertUnwindSafe(pass(key.clone())).catch_unwind().instrument(span.clone()).await;
        let failed = span.in_scope(|| settle(&queue, &key, outcome));
        count(scope.name, failed, started.elapsed());
        drop(item);
    }
}

/// Decides when the key comes back; true if the pass failed.
fn settle<T: LoopKey>(queue: &Queue<T>, key: &T, outcome: std::thread::Result<Outcome>) -> bool {
    match outcome {
        Ok(Ok(again)) => {
            queue.forget(key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
            return false;
        }
        Ok(Err(error)) if error.is_transient() => debug!("will retry: {}", chain(&error)),
        Ok(Err(error)) => warn!(failures = queue.failures(key), "failed, will retry: {}", chain(&error)),
        Err(_) => error!("the pass panicked, will retry"),
    }
    queue.add_backoff(key.clone());
    true
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

/// Passes by controller and result, and how long they took.
struct Metrics {
    passes: Family<PassLabels, Counter>,
    seconds: Seconds,
}

type Seconds = Family<ControllerLabels, Histogram>;

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    passes: register("controller_passes", "Passes over a key by controller and result", Family::default()),
    seconds: register(
        "controller_pass_seconds",
        "Time of one pass over a key",
        Seconds::new_with_constructor(|| Histogram::new([0.001, 0.01, 0.1, 1.0, 10.0])),
    ),
});

fn count(controller: &'static str, failed: bool, took: Duration) {
    let result = if failed { "error" } else { "success" };
    METRICS.passes.get_or_create(&PassLabels { controller, result }).inc();
    METRICS.seconds.get_or_create(&ControllerLabels { controller }).observe(took.as_secs_f64());
}
