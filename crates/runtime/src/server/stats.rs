//! Usage of containers, sandboxes and the image file system.

use std::fs;
use std::path::Path;

use crate::cgroup::Usage;
use crate::container::Container;
use crate::cri;
use crate::runtime::{Runtime, now};
use crate::sandbox::Sandbox;

fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

fn cpu(at: i64, usage: &Usage) -> Option<cri::CpuUsage> {
    Some(cri::CpuUsage { timestamp: at, usage_core_nano_seconds: value(usage.cpu_ns), ..Default::default() })
}

fn memory(at: i64, usage: &Usage) -> Option<cri::MemoryUsage> {
    let limit = usage.memory_limit;
    Some(cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(usage.working_set),
        available_bytes: limit.and_then(|limit| value(limit.saturating_sub(usage.working_set))),
        usage_bytes: value(usage.memory),
        rss_bytes: value(usage.rss),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        ..Default::default()
    })
}

/// Reads the cgroup's files and walks the writable layer: call it where blocking is fine.
pub(super) fn container(runtime: &Runtime, container: &Container) -> cri::ContainerStats {
    let at = now();
    let usage = runtime.inner.cgroups.usage(&container.record.cgroup);
    let (bytes, inodes) = crate::disk::usage(&container.dir.join("upper"));
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        cpu: cpu(at, &usage),
        memory: memory(at, &usage),
        writable_layer: Some(file_system(&runtime.inner.config.root, at, bytes, inodes)),
        swap: usage.swap.map(|swap| cri::SwapUsage {
            timestamp: at,
            swap_usage_bytes: value(swap),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn file_system(path: &Path, at: i64, bytes: u64, inodes: u64) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: at,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: path.display().to_string() }),
        used_bytes: value(bytes),
        inodes_used: value(inodes),
    }
}

pub(super) fn containers(runtime: &Runtime, filter: Option<cri::ContainerStatsFilter>) -> Vec<cri::ContainerStats> {
    let filter = filter.unwrap_or_default();
    let all: Vec<_> = runtime.inner.containers.read().values().cloned().collect();
    all.iter()
        .filter(|one| {
            one.is_running()
                && (filter.id.is_empty() || one.id.starts_with(&filter.id))
                && (filter.pod_sandbox_id.is_empty() || one.record.sandbox.starts_with(&filter.pod_sandbox_id))
                && filter.label_selector.iter().all(|(key, value)| one.config.labels.get(key) == Some(value))
        })
        .map(|one| container(runtime, one))
        .collect()
}

pub(super) fn sandboxes(runtime: &Runtime, filter: Option<cri::PodSandboxStatsFilter>) -> Vec<cri::PodSandboxStats> {
    let filter = filter.unwrap_or_default();
    let all: Vec<_> = runtime.inner.sandboxes.read().values().cloned().collect();
    all.iter()
        .filter(|one| {
            one.is_ready()
                && (filter.id.is_empty() || one.id.starts_with(&filter.id))
                && filter.label_selector.iter().all(|(key, value)| one.config.labels.get(key) == Some(value))
        })
        .map(|one| sandbox(runtime, one))
        .collect()
}

pub(super) fn sandbox(runtime: &Runtime, sandbox: &Sandbox) -> cri::PodSandboxStats {
    let at = now();
    let members = runtime.containers_of(&sandbox.id);
    let containers: Vec<cri::ContainerStats> =
        members.iter().filter(|one| one.is_running()).map(|one| container(runtime, one)).collect();
    let parent = sandbox.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    let parent = if parent.is_empty() { runtime.default_cgroup(&sandbox.id) } else { parent };
    let usage = runtime.inner.cgroups.usage(&parent);
    let pids: u64 = members.iter().map(|one| runtime.inner.cgroups.usage(&one.record.cgroup).pids).sum();
    let shim = sandbox.record.lock().shim;
    let linux = cri::LinuxPodSandboxStats {
        cpu: cpu(at, &usage),
        memory: memory(at, &usage),
        network: shim.filter(|_| sandbox.netns.is_some()).map(|shim| network(shim, at)),
        process: Some(cri::ProcessUsage { timestamp: at, process_count: value(pids) }),
        containers,
        ..Default::default()
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}

/// The interfaces of the shim's network namespace, which is the pod's.
fn network(shim: i32, at: i64) -> cri::NetworkUsage {
    let text = fs::read_to_string(format!("/proc/{shim}/net/dev")).unwrap_or_default();
    let mut interfaces: Vec<cri::NetworkInterfaceUsage> = text.lines().filter_map(interface).collect();
    let first = interfaces.iter().position(|interface| interface.name == "eth0");
    let default = first.map(|index| interfaces.remove(index));
    cri::NetworkUsage { timestamp: at, default_interface: default, interfaces }
}

/// A line of /proc/net/dev: eight counters received, eight sent.
fn interface(line: &str) -> Option<cri::NetworkInterfaceUsage> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let name = name.trim().to_owned();
    (name != "lo" && counters.len() >= 11).then(|| cri::NetworkInterfaceUsage {
        name,
        rx_bytes: value(counters[0]),
        rx_errors: value(counters[2]),
        tx_bytes: value(counters[8]),
        tx_errors: value(counters[10]),
    })
}

pub(super) fn image_file_systems(runtime: &Runtime) -> cri::ImageFsInfoResponse {
    let at = now();
    let (bytes, inodes) = runtime.inner.images.usage();
    let root = &runtime.inner.config.root;
    let (written, files) = runtime
        .inner
        .containers
        .read()
        .values()
        .map(|one| crate::disk::usage(&one.dir.join("upper")))
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    cri::ImageFsInfoResponse {
        image_filesystems: vec![file_system(root, at, bytes, inodes)],
        container_filesystems: vec![file_system(root, at, written, files)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces() {
        let line = "  eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0";
        let got = interface(line).unwrap();
        let read = |value: Option<cri::UInt64Value>| value.unwrap().value;
        assert_eq!(
            (read(got.rx_bytes), read(got.rx_errors), read(got.tx_bytes), read(got.tx_errors)),
            (100, 3, 200, 5)
        );
        for nothing in ["    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "Inter-|   Receive", " face |bytes"] {
            assert!(interface(nothing).is_none(), "{nothing}");
        }
    }
}
