//! What the store tells Prometheus.

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// One resource's cache, by its key prefix.
pub type Prefix = [(&'static str, String); 1];

/// All metrics of store and caches. Cloning shares them; the default ones are registered nowhere.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Batches written: one write and one sync each.
    pub commits: Counter,
    /// Transactions in a batch.
    pub batch_size: Histogram,
    pub sync_seconds: Histogram,
    /// Log and snapshots.
    pub written_bytes: Counter,
    pub snapshots: Counter,
    pub failures: Counter,
    pub keys: Gauge,
    pub live_bytes: Gauge,
    pub history_bytes: Gauge,
    pub disk_bytes: Gauge,
    pub leases: Gauge,
    /// Watches on the store itself: one a cache.
    pub store_watches: Gauge,
    pub cache_items: Family<Prefix, Gauge>,
    pub cache_watchers: Family<Prefix, Gauge>,
    pub cache_events: Family<Prefix, Counter>,
    /// Watchers that were cut because they did not keep up.
    pub cache_slow_watchers: Family<Prefix, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            sync_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            written_bytes: Counter::default(),
            snapshots: Counter::default(),
            failures: Counter::default(),
            keys: Gauge::default(),
            live_bytes: Gauge::default(),
            history_bytes: Gauge::default(),
            disk_bytes: Gauge::default(),
            leases: Gauge::default(),
            store_watches: Gauge::default(),
            cache_items: Family::default(),
            cache_watchers: Family::default(),
            cache_events: Family::default(),
            cache_slow_watchers: Family::default(),
        }
    }
}

impl Metrics {
    /// Metrics that `registry` shows, with names that begin with `store_`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let registry = registry.sub_registry_with_prefix("store");
        registry.register("commits", "Batches written and synced", all.commits.clone());
        registry.register("batch_size", "Transactions in a batch", all.batch_size.clone());
        let sync = all.sync_seconds.clone();
        registry.register_with_unit("sync", "Time to write and sync a batch", Unit::Seconds, sync);
        let written = all.written_bytes.clone();
        registry.register_with_unit("written", "Bytes written to disk", Unit::Bytes, written);
        registry.register("snapshots", "Snapshots written", all.snapshots.clone());
        registry.register("write_failures", "Batches and snapshots that failed", all.failures.clone());
        registry.register("keys", "Keys that exist", all.keys.clone());
        registry.register_with_unit("live", "Keys and values that exist", Unit::Bytes, all.live_bytes.clone());
        let history = all.history_bytes.clone();
        registry.register_with_unit("history", "Superseded values kept for watches", Unit::Bytes, history);
        registry.register_with_unit("disk", "Log and snapshots on disk", Unit::Bytes, all.disk_bytes.clone());
        registry.register("leases", "Leases that exist", all.leases.clone());
        registry.register("watches", "Watches on the store itself", all.store_watches.clone());
        registry.register("cache_items", "Objects in a cache", all.cache_items.clone());
        registry.register("cache_watchers", "Watches that a cache serves", all.cache_watchers.clone());
        registry.register("cache_events", "Changes that a cache has seen", all.cache_events.clone());
        let slow = all.cache_slow_watchers.clone();
        registry.register("cache_slow_watchers", "Watches cut because they did not keep up", slow);
        all
    }
}
