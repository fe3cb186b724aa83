//! `/stats/summary`: what the node and its pods use, as metrics servers read it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::Context;
use crate::cri::v1;
use crate::labels;
use crate::node::machine::{self, Space};
use crate::pod::PodExt;

/// One reading of the node: pods with their containers' usage.
pub(super) struct Usage {
    pub(super) node: NodeUsage,
    pub(super) pods: Vec<PodUsage>,
}

pub(super) struct NodeUsage {
    pub(super) cpu_nanos: u64,
    pub(super) working_set: u64,
    pub(super) available: u64,
    disk: Space,
}

pub(super) struct PodUsage {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    start: Option<Timestamp>,
    /// The runtime's figures for the sandbox; absent from runtimes without them.
    pub(super) sandbox: Option<v1::PodSandboxStats>,
    pub(super) containers: Vec<(String, v1::ContainerStats)>,
}

pub(super) fn value(number: &Option<v1::UInt64Value>) -> u64 {
    number.as_ref().map_or(0, |number| number.value)
}

impl PodUsage {
    pub(super) fn cpu_nanos(&self) -> u64 {
        let linux = self.sandbox.as_ref().and_then(|stats| stats.linux.as_ref());
        let whole = linux.and_then(|linux| linux.cpu.as_ref()).map(|cpu| value(&cpu.usage_core_nano_seconds));
        whole.unwrap_or_else(|| self.containers.iter().map(|(_, stats)| cpu_nanos(stats)).sum())
    }

    pub(super) fn working_set(&self) -> u64 {
        let linux = self.sandbox.as_ref().and_then(|stats| stats.linux.as_ref());
        let whole = linux.and_then(|linux| linux.memory.as_ref()).map(|memory| value(&memory.working_set_bytes));
        whole.unwrap_or_else(|| self.containers.iter().map(|(_, stats)| working_set(stats)).sum())
    }

    pub(super) fn network(&self) -> Option<&v1::NetworkInterfaceUsage> {
        self.sandbox.as_ref()?.linux.as_ref()?.network.as_ref()?.default_interface.as_ref()
    }
}

pub(super) fn cpu_nanos(stats: &v1::ContainerStats) -> u64 {
    stats.cpu.as_ref().map_or(0, |cpu| value(&cpu.usage_core_nano_seconds))
}

pub(super) fn working_set(stats: &v1::ContainerStats) -> u64 {
    stats.memory.as_ref().map_or(0, |memory| value(&memory.working_set_bytes))
}

/// Reads everything once.
pub(super) async fn read(context: &Context) -> Usage {
    let runtime = &context.shared.runtime;
    // Figures that a runtime cannot give are left out, not guessed.
    let containers = runtime.container_stats().await.unwrap_or_default();
    let mut sandboxes = runtime.sandbox_stats().await.unwrap_or_default();
    let label = |stats: &v1::ContainerStats, name: &str| {
        stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(name)).cloned().unwrap_or_default()
    };
    let pods = context.pods.all().into_iter().map(|seen| {
        let uid = seen.pod.uid().to_owned();
        let mine = containers.iter().filter(|stats| label(stats, labels::POD_UID) == uid);
        let sandbox = sandboxes.iter().position(|stats| {
            let metadata = stats.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
            metadata.is_some_and(|metadata| metadata.uid == uid)
        });
        PodUsage {
            namespace: seen.pod.namespace().to_owned(),
            name: seen.pod.name().to_owned(),
            start: seen.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            sandbox: sandbox.map(|index| sandboxes.swap_remove(index)),
            containers: newest(mine.map(|stats| (label(stats, labels::CONTAINER_NAME), stats.clone()))),
            uid,
        }
    });
    let pods = pods.collect();
    Usage { node: node(context), pods }
}

/// Of several runs of a container, the last: earlier ones use nothing any more.
fn newest(all: impl Iterator<Item = (String, v1::ContainerStats)>) -> Vec<(String, v1::ContainerStats)> {
    let attempt = |stats: &v1::ContainerStats| {
        stats
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.metadata.as_ref())
            .map_or(0, |metadata| metadata.attempt)
    };
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(name, stats)| (name.clone(), std::cmp::Reverse(attempt(stats))));
    all.dedup_by(|later, first| later.0 == first.0);
    all
}

fn node(context: &Context) -> NodeUsage {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes =
        |name: &str| machine::kilobytes(&meminfo, name).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let available = bytes("MemAvailable:");
    NodeUsage {
        cpu_nanos: busy_nanos(&stat),
        working_set: bytes("MemTotal:").saturating_sub(available),
        available,
        disk: machine::space(&context.shared.config.data_dir).unwrap_or_default(),
    }
}

/// Time that all CPUs were busy, from the first line of /proc/stat, whose unit is a hundredth of a second.
fn busy_nanos(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: all but idle and iowait.
    let busy = fields.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
    busy.map(|(_, ticks)| ticks * 10_000_000).sum()
}

pub(super) async fn summary(State(context): State<Context>) -> Response {
    let usage = read(&context).await;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let disk = usage.node.disk;
    let filesystem = json!({
        "time": now, "availableBytes": disk.available, "capacityBytes": disk.capacity,
        "usedBytes": disk.capacity.saturating_sub(disk.available),
        "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    });
    let pods: Vec<Value> = usage.pods.iter().map(|pod| of_pod(pod, &now)).collect();
    let body = json!({
        "node": {
            "nodeName": context.shared.config.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": usage.node.cpu_nanos},
            "memory": {"time": now, "availableBytes": usage.node.available, "workingSetBytes": usage.node.working_set},
            "fs": filesystem,
            "runtime": {"imageFs": filesystem},
        },
        "pods": pods,
    });
    axum::Json(body).into_response()
}

fn of_pod(pod: &PodUsage, now: &str) -> Value {
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|(name, stats)| {
            let memory = stats.memory.clone().unwrap_or_default();
            let layer = stats.writable_layer.clone().unwrap_or_default();
            json!({
                "name": name,
                "cpu": {
                    "time": now, "usageCoreNanoSeconds": cpu_nanos(stats),
                    "usageNanoCores": stats.cpu.as_ref().map_or(0, |cpu| value(&cpu.usage_nano_cores)),
                },
                "memory": {
                    "time": now, "workingSetBytes": value(&memory.working_set_bytes),
                    "usageBytes": value(&memory.usage_bytes), "rssBytes": value(&memory.rss_bytes),
                    "pageFaults": value(&memory.page_faults), "majorPageFaults": value(&memory.major_page_faults),
                },
                "rootfs": {"time": now, "usedBytes": value(&layer.used_bytes), "inodesUsed": value(&layer.inodes_used)},
            })
        })
        .collect();
    let mut body = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.start.map(|start| start.to_string()),
        "containers": containers,
        "cpu": {"time": now, "usageCoreNanoSeconds": pod.cpu_nanos()},
        "memory": {"time": now, "workingSetBytes": pod.working_set()},
    });
    if let Some(network) = pod.network() {
        body["network"] = json!({
            "time": now, "name": network.name, "rxBytes": value(&network.rx_bytes), "rxErrors": value(&network.rx_errors),
            "txBytes": value(&network.tx_bytes), "txErrors": value(&network.tx_errors),
        });
    }
    body
}

/// When a container started, in seconds since the epoch, by what its pod's status says.
pub(super) fn started(status: Option<&core::PodStatus>, container: &str) -> Option<i64> {
    let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses])?;
    let one = lists.into_iter().flatten().flatten().find(|status| status.name == container)?;
    one.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle() {
        assert_eq!(busy_nanos("cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 ...\n"), 210_000_000);
        assert_eq!(busy_nanos(""), 0);
    }
}
