//! The process's metrics registry, and those of this crate: names as client-go gives them.

use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Everything in this process registers here; the server's `/metrics` encodes it.
pub static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// Registers a metric under `name` and gives it back.
pub fn register<M: Clone + prometheus_client::registry::Metric>(name: &str, help: &str, metric: M) -> M {
    REGISTRY.lock().register(name, help, metric.clone());
    metric
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QueueLabels {
    pub(crate) name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabels {
    pub(crate) kind: String,
}

type Seconds = Family<QueueLabels, Histogram>;

pub(crate) struct Queues {
    pub(crate) depth: Family<QueueLabels, Gauge>,
    pub(crate) adds: Family<QueueLabels, Counter>,
    pub(crate) retries: Family<QueueLabels, Counter>,
    pub(crate) waited: Seconds,
    pub(crate) worked: Seconds,
}

fn seconds() -> Histogram {
    Histogram::new([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
}

pub(crate) static QUEUES: LazyLock<Queues> = LazyLock::new(|| Queues {
    depth: register("workqueue_depth", "Keys that wait", Family::default()),
    adds: register("workqueue_adds", "Keys added", Family::default()),
    retries: register("workqueue_retries", "Keys added again after a failure", Family::default()),
    waited: register(
        "workqueue_queue_duration_seconds",
        "How long keys waited",
        Seconds::new_with_constructor(seconds),
    ),
    worked: register(
        "workqueue_work_duration_seconds",
        "How long keys were worked on",
        Seconds::new_with_constructor(seconds),
    ),
});

pub(crate) static RELISTS: LazyLock<Family<KindLabels, Counter>> =
    LazyLock::new(|| register("reflector_lists", "Whole lists that informers read", Family::default()));
