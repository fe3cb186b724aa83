//! Keeps the node alive when memory, disk or process ids run out: reports pressure, frees what is unused, evicts pods.
//!
//! The signals are read every ten seconds and, where the kernel has pressure stall information, as soon as tasks stall
//! on memory. One pod is evicted at a time, the one that uses most beyond what it asked for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::pod_resources;
use k8s_openapi::api::core::v1 as core;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::config::Eviction;
use crate::images::gc::{self, Thresholds};
use crate::node::machine::{self, Space};
use crate::pod::PodExt;
use crate::pod::status::Failure;
use crate::pods::{Pods, Seen};
use crate::refer;
use crate::shared::Shared;

const PERIOD: Duration = Duration::from_secs(10);

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pid: bool,
}

/// One reading of the node.
#[derive(Clone, Copy, Debug, Default)]
struct Signals {
    memory_available: u64,
    nodefs: Space,
    imagefs: Space,
    pids: u64,
    pids_max: u64,
}

/// Which thresholds are crossed.
fn pressure(signals: &Signals, limits: &Eviction) -> Pressure {
    let short = |available: u64, capacity: u64, percent: u64| capacity > 0 && available * 100 < capacity * percent;
    let free_pids = signals.pids_max.saturating_sub(signals.pids);
    Pressure {
        memory: signals.memory_available < limits.memory_available_bytes,
        disk: short(signals.nodefs.available, signals.nodefs.capacity, limits.nodefs_available_percent)
            || short(signals.nodefs.inodes_free, signals.nodefs.inodes, limits.nodefs_inodes_free_percent)
            || short(signals.imagefs.available, signals.imagefs.capacity, limits.imagefs_available_percent),
        pid: short(free_pids, signals.pids_max, limits.pid_available_percent),
    }
}

fn read(data_dir: &Path, image_dir: &Path) -> Signals {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    // The fourth field of loadavg: runnable/all.
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = loadavg.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1));
    let available = machine::kilobytes(&meminfo, "MemAvailable:").and_then(|bytes| u64::try_from(bytes).ok());
    Signals {
        // A kernel that does not say is not short of memory.
        memory_available: available.unwrap_or(u64::MAX),
        nodefs: machine::space(data_dir).unwrap_or_default(),
        imagefs: machine::space(image_dir).unwrap_or_default(),
        pids: tasks.and_then(|tasks| tasks.parse().ok()).unwrap_or(0),
        pids_max: number("/proc/sys/kernel/pid_max"),
    }
}

/// The housekeeper: pressure, eviction, image collection, log rotation. Runs until dropped.
pub(crate) async fn keep(shared: &Arc<Shared>, pods: &Pods, sender: &watch::Sender<Pressure>) {
    let stall = Stall::open();
    let mut image_dir = shared.config.data_dir.clone();
    let mut seen: [Option<Instant>; 3] = [None; 3];
    loop {
        if let Ok(answer) = shared.runtime.image_filesystems().await {
            let place = answer.image_filesystems.into_iter().find_map(|filesystem| filesystem.fs_id);
            image_dir = place.map_or(image_dir, |id| id.mountpoint.into());
        }
        let signals = read(&shared.config.data_dir, &image_dir);
        let now = pressure(&signals, &shared.config.eviction);
        // A condition outlives its signal for a while, so that it does not flap.
        let transition = shared.config.eviction.transition;
        let mut held = [now.memory, now.disk, now.pid];
        for (current, since) in held.iter_mut().zip(&mut seen) {
            if *current {
                *since = Some(Instant::now());
            } else {
                *current = since.is_some_and(|at| at.elapsed() < transition);
            }
        }
        let [memory, disk, pid] = held;
        sender.send_if_modified(|last| {
            let fresh = Pressure { memory, disk, pid };
            std::mem::replace(last, fresh) != fresh
        });
        let freed = collect_images(shared, &signals).await;
        if now.memory {
            evict(shared, pods, "memory", "memory.available").await;
        } else if now.disk && freed == 0 {
            evict(shared, pods, "ephemeral-storage", "nodefs.available").await;
        } else if now.pid {
            evict(shared, pods, "pids", "pid.available").await;
        }
        rotate_logs(shared).await;
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stall.wait() => {
                // A stall lasts: the next look need not come within the same second.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn collect_images(shared: &Shared, signals: &Signals) -> u64 {
    let thresholds =
        Thresholds { high: shared.config.images.gc_high_percent, low: shared.config.images.gc_low_percent };
    let excess = gc::excess(signals.imagefs.capacity, signals.imagefs.available, thresholds);
    if excess == 0 {
        return 0;
    }
    match shared.images.collect(excess).await {
        Ok(freed) => freed,
        Err(error) => {
            let text = format!("failed to remove unused images: {}", error.message());
            shared.recorder.warning(&refer::node(&shared.config.node_name), "ImageGCFailed", text);
            0
        }
    }
}

async fn rotate_logs(shared: &Shared) {
    let Ok(containers) = shared.runtime.containers(Default::default()).await else { return };
    let running =
        containers.iter().filter(|container| container.state() == crate::cri::v1::ContainerState::ContainerRunning);
    for container in running {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let (uid, namespace) = (label(crate::labels::POD_UID), label(crate::labels::POD_NAMESPACE));
        let directory = format!("{namespace}_{}_{uid}", label(crate::labels::POD_NAME));
        let attempt = container.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        let path = shared
            .config
            .log_dir
            .join(directory)
            .join(label(crate::labels::CONTAINER_NAME))
            .join(format!("{attempt}.log"));
        if let Err(error) = crate::logs::rotate(&shared.runtime, &container.id, &path, &shared.config.logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(path = %path.display(), %error, "failed to rotate a log");
        }
    }
}

/// Evicts the pod that is to go first, if there is one.
async fn evict(shared: &Arc<Shared>, pods: &Pods, resource: &'static str, signal: &'static str) {
    let stats = shared.runtime.container_stats().await.unwrap_or_default();
    let used = |uid: &str| -> u64 {
        let of_pod = stats.iter().filter(|stats| {
            let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
            labels.and_then(|labels| labels.get(crate::labels::POD_UID)).is_some_and(|owner| owner == uid)
        });
        let amounts = of_pod.map(|stats| match resource {
            "memory" => {
                stats.memory.as_ref().and_then(|memory| memory.working_set_bytes).map_or(0, |bytes| bytes.value)
            }
            _ => stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes).map_or(0, |bytes| bytes.value),
        });
        amounts.sum()
    };
    let mut candidates: Vec<(Seen, u64)> = pods
        .all()
        .into_iter()
        .filter(evictable)
        .map(|seen| (used(seen.pod.uid()), seen))
        .map(|(used, seen)| (seen, used))
        .collect();
    candidates.sort_by_key(|(seen, used)| rank(&seen.pod, resource, *used));
    let Some((victim, used)) = candidates.first() else {
        debug!(signal, "the node is under pressure and has no pod to evict");
        return;
    };
    let message =
        format!("The node was low on resource: {resource}. Threshold crossed: {signal}. The pod used {used}.");
    info!(pod = victim.pod.full_name(), signal, used, "evicting a pod");
    shared.recorder.warning(&refer::pod(&victim.pod), "Evicted", &message);
    shared.metrics.evicted(signal);
    // Hard thresholds leave no time for grace.
    pods.fail(victim.pod.uid(), Failure { reason: "Evicted".into(), message }, Some(0));
}

fn evictable(seen: &Seen) -> bool {
    let phase = seen.status.as_ref().and_then(|status| status.phase.as_deref());
    let critical = seen.pod.specification().priority.unwrap_or(0) >= 2_000_000_000;
    !critical && !seen.pod.is_static() && !seen.pod.is_deleting() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Who goes first sorts first: beyond its request, then of low priority, then the most beyond.
fn rank(pod: &core::Pod, resource: &str, used: u64) -> (bool, i32, i64) {
    let requests = pod_resources::requests(pod);
    let asked = if resource == "memory" { requests.memory_bytes } else { requests.ephemeral_bytes };
    let beyond = i64::try_from(used).unwrap_or(i64::MAX).saturating_sub(asked);
    (beyond <= 0, pod.specification().priority.unwrap_or(0), beyond.saturating_neg())
}

/// The kernel's notice that tasks stall on memory.
struct Stall(Option<AsyncFd<std::fs::File>>);

impl Stall {
    /// Some tasks stalled for 300 ms within two seconds (multiples of two need no privilege). The kernel overwrites the
    /// last byte.
    const TRIGGER: &str = "some 300000 2000000\0";

    fn open() -> Self {
        let open = || -> std::io::Result<AsyncFd<std::fs::File>> {
            let mut file = std::fs::OpenOptions::new().read(true).write(true).open("/proc/pressure/memory")?;
            std::io::Write::write_all(&mut file, Self::TRIGGER.as_bytes())?;
            // SAFETY: a `File` owns its descriptor and gives out the same one until it is dropped.
            unsafe { AsyncFd::register_with_interest(file, tokio::io::Interest::PRIORITY) }.map_err(Into::into)
        };
        let opened = open();
        if let Err(error) = &opened {
            debug!(%error, "no notices of memory pressure; the clock alone decides when to look");
        }
        Self(opened.ok())
    }

    async fn wait(&self) {
        match &self.0 {
            Some(file) => match file.ready(tokio::io::Interest::PRIORITY).await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits() -> Eviction {
        Eviction {
            memory_available_bytes: 100,
            nodefs_available_percent: 10,
            nodefs_inodes_free_percent: 5,
            imagefs_available_percent: 15,
            pid_available_percent: 5,
            transition: Duration::ZERO,
        }
    }

    #[test]
    fn thresholds() {
        let disk = |available: u64, inodes_free: u64| Space { capacity: 100, available, inodes: 100, inodes_free };
        let well =
            Signals { memory_available: 100, nodefs: disk(10, 5), imagefs: disk(15, 5), pids: 95, pids_max: 100 };
        assert_eq!(pressure(&well, &limits()), Pressure::default());
        let cases = [
            (Signals { memory_available: 99, ..well }, Pressure { memory: true, ..Pressure::default() }),
            (Signals { nodefs: disk(9, 50), ..well }, Pressure { disk: true, ..Pressure::default() }),
            (Signals { nodefs: disk(50, 4), ..well }, Pressure { disk: true, ..Pressure::default() }),
            (Signals { imagefs: disk(14, 50), ..well }, Pressure { disk: true, ..Pressure::default() }),
            (Signals { pids: 96, ..well }, Pressure { pid: true, ..Pressure::default() }),
            (Signals { imagefs: Space::default(), ..well }, Pressure::default()),
        ];
        for (signals, expect) in cases {
            assert_eq!(pressure(&signals, &limits()), expect, "{signals:?}");
        }
    }

    #[test]
    fn who_goes_first() {
        let pod = |name: &str, memory: &str, priority: i32| -> core::Pod {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [
                {"name": "c", "resources": {"requests": {"memory": memory}}}]}}))
            .unwrap()
        };
        let mut all = [
            (pod("within", "2Gi", 0), 1 << 30),
            (pod("beyond", "1Mi", 0), 1 << 30),
            (pod("more-beyond", "1Mi", 0), 2 << 30),
            (pod("important", "1Mi", 9), 3 << 30),
        ];
        all.sort_by_key(|(pod, used)| rank(pod, "memory", *used));
        let names: Vec<&str> = all.iter().map(|(pod, _)| pod.name()).collect();
        assert_eq!(names, ["more-beyond", "beyond", "important", "within"]);
    }
}
