//! The cgroups above a container's own: one per QoS class, one per pod.
//!
//! ```text
//! PARENT/kubepods                       everything of pods
//! PARENT/kubepods/podUID                Guaranteed
//! PARENT/kubepods/burstable/podUID      shares of all burstable requests together
//! PARENT/kubepods/besteffort/podUID     two shares
//! ```
//!
//! Both versions: under v1 the same path exists in each controller's hierarchy, under v2 in one tree. The runtime is
//! told the pod's path as `cgroup_parent` and makes the containers' cgroups below it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use tracing::debug;

use crate::pod::PodExt;
use crate::pod::resources::{self, PodLimits, Qos};

/// Controllers of v1 that a pod gets a cgroup in, where the kernel has them.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];
/// Controllers of v2 that are handed down to pods.
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "memory", "io", "pids"];

#[derive(Debug, thiserror::Error)]
#[error("failed to {what} cgroup {path}")]
pub(crate) struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The hierarchy below one parent.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    /// `/sys/fs/cgroup`, or a directory that stands for it in tests.
    mount: PathBuf,
    version: Version,
    /// Absolute within the hierarchy, without a trailing slash; empty for the root.
    parent: String,
}

impl Cgroups {
    pub(crate) fn new(mount: &Path, parent: &str) -> Self {
        let version = if mount.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        let parent = parent.trim_matches('/');
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        Self { mount: mount.to_owned(), version, parent }
    }

    /// The path of a class: where its pods are.
    fn class(&self, qos: Qos) -> String {
        let below = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{below}", self.parent)
    }

    /// What CRI gets as `cgroup_parent`.
    pub(crate) fn pod_path(&self, pod: &core::Pod) -> String {
        format!("{}/pod{}", self.class(resources::qos(pod)), pod.uid())
    }

    /// Makes the classes. Called once at start.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            self.create(&self.class(qos))?;
        }
        self.set_shares(&self.class(Qos::BestEffort), 2);
        Ok(())
    }

    /// Makes the pod's cgroup, or brings its limits up to date.
    pub(crate) fn ensure_pod(&self, pod: &core::Pod) -> Result<(), Error> {
        let path = self.pod_path(pod);
        self.create(&path)?;
        let limits = resources::for_pod(pod);
        self.set_limits(&path, &limits);
        Ok(())
    }

    /// Removes the pod's cgroup and what is left below it.
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<(), Error> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            for root in self.all_roots() {
                remove_tree(&root.join(format!("{}/pod{uid}", self.class(qos)).trim_start_matches('/')))?;
            }
        }
        Ok(())
    }

    /// UIDs of the pods that have a cgroup.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut uids = Vec::new();
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            for root in self.roots() {
                let entries = fs::read_dir(root.join(self.class(qos).trim_start_matches('/')));
                for entry in entries.into_iter().flatten().flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    uids.extend(name.strip_prefix("pod").map(str::to_owned));
                }
            }
        }
        uids.sort();
        uids.dedup();
        uids
    }

    /// Shares of the burstable class: what its pods ask for together.
    pub(crate) fn set_burstable(&self, milli_cpu: i64) {
        self.set_shares(&self.class(Qos::Burstable), resources::shares(milli_cpu));
    }

    /// Mount points that hold the hierarchy.
    fn roots(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V2 => vec![self.mount.clone()],
            Version::V1 => {
                let all = CONTROLLERS.iter().map(|controller| self.mount.join(controller));
                all.filter(|path| path.is_dir()).collect()
            }
        }
    }

    /// The same, with those that only a runtime makes cgroups in (`systemd`, `unified`, ...).
    fn all_roots(&self) -> Vec<PathBuf> {
        if self.version == Version::V2 {
            return self.roots();
        }
        let entries = fs::read_dir(&self.mount).into_iter().flatten().flatten();
        // Some controllers are links to a directory that holds two of them.
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
    }

    fn create(&self, path: &str) -> Result<(), Error> {
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error { what, path, source }
        };
        for root in self.roots() {
            let mut at = root.clone();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                if self.version == Version::V2 {
                    delegate(&at);
                }
                let above = at.clone();
                at.push(part);
                if !at.exists() {
                    fs::create_dir(&at).or_else(exists).map_err(failed("create", &at))?;
                }
                if root.ends_with("cpuset") {
                    // A v1 cpuset starts empty, and nothing can run in an empty one.
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        inherit(&above.join(file), &at.join(file)).map_err(failed("fill", &at))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn set_shares(&self, path: &str, shares: i64) {
        match self.version {
            Version::V1 => self.write("cpu", path, "cpu.shares", &shares.to_string()),
            Version::V2 => self.write("", path, "cpu.weight", &weight(shares).to_string()),
        }
    }

    fn set_limits(&self, path: &str, limits: &PodLimits) {
        self.set_shares(path, limits.shares);
        let text = |value: Option<i64>, none: &str| {
            value.filter(|value| *value > 0).map_or_else(|| none.to_owned(), |value| value.to_string())
        };
        match self.version {
            Version::V1 => {
                self.write("cpu", path, "cpu.cfs_period_us", &limits.period.to_string());
                self.write("cpu", path, "cpu.cfs_quota_us", &text(limits.quota, "-1"));
                self.write("memory", path, "memory.limit_in_bytes", &text(limits.memory, "-1"));
            }
            Version::V2 => {
                self.write("", path, "cpu.max", &format!("{} {}", text(limits.quota, "max"), limits.period));
                self.write("", path, "memory.max", &text(limits.memory, "max"));
            }
        }
        for huge in &limits.hugepages {
            let (v1, v2) =
                (format!("hugetlb.{}.limit_in_bytes", huge.page_size), format!("hugetlb.{}.max", huge.page_size));
            match self.version {
                Version::V1 => self.write("hugetlb", path, &v1, &huge.limit.to_string()),
                Version::V2 => self.write("", path, &v2, &huge.limit.to_string()),
            }
        }
    }

    /// Writes one knob. A kernel that lacks it limits less; the pod runs all the same.
    fn write(&self, controller: &str, path: &str, file: &str, value: &str) {
        let target = self.mount.join(controller).join(path.trim_start_matches('/')).join(file);
        if let Err(error) = fs::write(&target, value) {
            debug!(path = %target.display(), value, %error, "a cgroup setting was refused");
        }
    }
}

/// Shares (2 to 262144) on v2's scale of weights (1 to 10000).
fn weight(shares: i64) -> i64 {
    1 + ((shares - 2).max(0) * 9999) / 262_142
}

fn delegate(path: &Path) {
    let file = path.join("cgroup.subtree_control");
    let Ok(available) = fs::read_to_string(path.join("cgroup.controllers")) else { return };
    for controller in DELEGATED.iter().filter(|name| available.split_whitespace().any(|word| word == **name)) {
        if let Err(error) = fs::write(&file, format!("+{controller}")) {
            debug!(path = %path.display(), controller, %error, "a cgroup controller is not handed down");
        }
    }
}

fn inherit(from: &Path, to: &Path) -> io::Result<()> {
    let own = fs::read_to_string(to).unwrap_or_default();
    if own.trim().is_empty() {
        fs::write(to, fs::read_to_string(from).unwrap_or_default().trim())?;
    }
    Ok(())
}

fn exists(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// Removes cgroup directories, innermost first: their files are the kernel's and go with them.
fn remove_tree(path: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error { what: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(limits: serde_json::Value) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}, "limits": limits}}]},
        }))
        .unwrap()
    }

    #[test]
    fn v1_has_the_path_in_each_controller() {
        let mount = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory", "pids"] {
            fs::create_dir(mount.path().join(controller)).unwrap();
        }
        let cgroups = Cgroups::new(mount.path(), "/nv/");
        cgroups.prepare().unwrap();
        let pod = pod(json!({"cpu": "1", "memory": "1Mi"}));
        cgroups.ensure_pod(&pod).unwrap();
        assert_eq!(cgroups.pod_path(&pod), "/nv/kubepods/burstable/podu");
        let read = |file: &str| fs::read_to_string(mount.path().join(file)).unwrap();
        assert_eq!(read("cpu/nv/kubepods/burstable/podu/cpu.shares"), "512");
        assert_eq!(read("cpu/nv/kubepods/burstable/podu/cpu.cfs_quota_us"), "100000");
        assert_eq!(read("memory/nv/kubepods/burstable/podu/memory.limit_in_bytes"), "1048576");
        assert_eq!(cgroups.pods(), ["u"]);
    }

    #[test]
    fn v2_has_one_tree() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let cgroups = Cgroups::new(mount.path(), "");
        cgroups.prepare().unwrap();
        cgroups.ensure_pod(&pod(json!({}))).unwrap();
        let read = |file: &str| fs::read_to_string(mount.path().join("kubepods/burstable/podu").join(file)).unwrap();
        assert_eq!((read("cpu.weight").as_str(), read("cpu.max").as_str()), ("20", "max 100000"));
        assert_eq!(read("memory.max"), "max");
    }
}
