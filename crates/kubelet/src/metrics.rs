//! What a kubelet counts, under the names that dashboards know.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use client::metrics::register;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ProbeLabels {
    probe_type: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SignalLabels {
    eviction_signal: &'static str,
}

pub(crate) struct Metrics {
    probes: Family<ProbeLabels, Counter>,
    turns: Histogram,
    pub(crate) pods: Gauge,
    pub(crate) relists: Counter,
    pub(crate) events: Counter,
    pub(crate) evictions: Family<SignalLabels, Counter>,
    pub(crate) heartbeat: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            probes: register("prober_probe", "Probes by result", Family::default()),
            turns: register(
                "kubelet_pod_worker_duration_seconds",
                "How long one sync of a pod took",
                Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
            ),
            pods: register("kubelet_running_pods", "Pods that have a worker", Gauge::default()),
            relists: register("kubelet_pleg_relists", "Full readings of the runtime's state", Counter::default()),
            events: register("kubelet_pleg_events", "Events that the runtime sent", Counter::default()),
            evictions: register("kubelet_evictions", "Pods evicted by signal", Family::default()),
            heartbeat: register(
                "kubelet_lease_renewed_timestamp_seconds",
                "Last renewal of the node's lease",
                Gauge::default(),
            ),
        }
    }

    pub(crate) fn probe(&self, probe_type: &'static str, result: &'static str) {
        self.probes.get_or_create(&ProbeLabels { probe_type, result }).inc();
    }

    pub(crate) fn turn(&self, took: Duration) {
        self.turns.observe(took.as_secs_f64());
    }

    pub(crate) fn evicted(&self, eviction_signal: &'static str) {
        self.evictions.get_or_create(&SignalLabels { eviction_signal }).inc();
    }
}
