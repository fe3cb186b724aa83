//! The metrics endpoints: the kubelet's own, and what containers use in the two shapes that scrapers know.

use std::fmt::Write;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::stats::{self, Usage};
use super::{Context, say};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// This process's registry.
pub(super) async fn own() -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &client::metrics::REGISTRY.lock()) {
        Ok(()) => ([("content-type", OPEN_METRICS)], text).into_response(),
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to encode the metrics: {error}")),
    }
}

/// A family in the classic text format.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn begin(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { text, name }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// What autoscalers read: CPU and memory of node, pods and containers.
pub(super) async fn resource(State(context): State<Context>) -> Response {
    let usage = stats::read(&context).await;
    let all = context.pods.all();
    let status = |namespace: &str, name: &str| {
        use crate::pod::PodExt;
        let seen = all.iter().find(|seen| seen.pod.namespace() == namespace && seen.pod.name() == name);
        seen.and_then(|seen| seen.status.as_ref())
    };
    let mut text = String::new();
    let out = &mut text;
    let mut family = Family::begin(
        out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time of the container in core-seconds",
    );
    each(&usage, |labels, stats| family.sample(labels, seconds(stats::cpu_nanos(stats))));
    let mut family = Family::begin(
        out,
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    each(&usage, |labels, stats| family.sample(labels, stats::working_set(stats) as f64));
    let mut family = Family::begin(
        out,
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    each(&usage, |labels, _| {
        if let Some(started) = stats::started(status(labels[1].1, labels[2].1), labels[0].1) {
            family.sample(labels, started as f64);
        }
    });
    Family::begin(out, "node_cpu_usage_seconds_total", "counter", "Cumulative cpu time of the node in core-seconds")
        .sample(&[], seconds(usage.node.cpu_nanos));
    Family::begin(out, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
        .sample(&[], usage.node.working_set as f64);
    let mut family =
        Family::begin(out, "pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time of the pod in core-seconds");
    for pod in &usage.pods {
        family.sample(&[("namespace", &pod.namespace), ("pod", &pod.name)], seconds(pod.cpu_nanos()));
    }
    let mut family =
        Family::begin(out, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for pod in &usage.pods {
        family.sample(&[("namespace", &pod.namespace), ("pod", &pod.name)], pod.working_set() as f64);
    }
    Family::begin(
        out,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    )
    .sample(&[], 0.0);
    ([("content-type", TEXT)], text).into_response()
}

/// The families of cAdvisor that dashboards use.
pub(super) async fn cadvisor(State(context): State<Context>) -> Response {
    let usage = stats::read(&context).await;
    let mut text = String::new();
    let out = &mut text;
    let machine = &context.shared.machine;
    Family::begin(out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.").sample(&[], machine.cpus as f64);
    Family::begin(out, "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.")
        .sample(&[], machine.memory as f64);
    type Amount = fn(&crate::cri::v1::ContainerStats) -> f64;
    let families: [(&str, &str, &str, Amount); 5] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |stats| {
            seconds(stats::cpu_nanos(stats))
        }),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |stats| {
            stats::working_set(stats) as f64
        }),
        ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.", |stats| {
            stats.memory.as_ref().map_or(0, |memory| stats::value(&memory.usage_bytes)) as f64
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |stats| {
            stats.memory.as_ref().map_or(0, |memory| stats::value(&memory.rss_bytes)) as f64
        }),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |stats| stats.writable_layer.as_ref().map_or(0, |layer| stats::value(&layer.used_bytes)) as f64,
        ),
    ];
    for (name, kind, help, amount) in families {
        let mut family = Family::begin(out, name, kind, help);
        each(&usage, |labels, stats| {
            let id = stats.attributes.as_ref().map_or("", |attributes| attributes.id.as_str());
            let labels = [labels, &[("id", id)]].concat();
            family.sample(&labels, amount(stats));
        });
    }
    for (name, help, received) in [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", true),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", false),
    ] {
        let mut family = Family::begin(out, name, "counter", help);
        for pod in &usage.pods {
            let Some(network) = pod.network() else { continue };
            let bytes = stats::value(if received { &network.rx_bytes } else { &network.tx_bytes });
            let labels = [("interface", network.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)];
            family.sample(&labels, bytes as f64);
        }
    }
    ([("content-type", TEXT)], text).into_response()
}

/// Calls `f` for every container with its labels.
fn each(usage: &Usage, mut f: impl FnMut(&[(&str, &str)], &crate::cri::v1::ContainerStats)) {
    for pod in &usage.pods {
        for (container, stats) in &pod.containers {
            f(&[("container", container), ("namespace", &pod.namespace), ("pod", &pod.name)], stats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_text() {
        let mut text = String::new();
        Family::begin(&mut text, "x_total", "counter", "An x").sample(&[("a", "q\"b\n"), ("c", "d")], 1.5);
        assert_eq!(text, "# HELP x_total An x\n# TYPE x_total counter\nx_total{a=\"q\\\"b\\n\",c=\"d\"} 1.5\n");
    }
}
