//! Control groups, version 1 and 2, behind one interface: make, limit, read, kill, remove.
//!
//! A cgroup is named by its path from the root of the hierarchy (`/kubepods/burstable/podX/ID`). With version 1 it is
//! one directory per controller, with version 2 a single one. Devices are left to libcontainer with version 1, which has files for
//! them.

mod devices;
mod settings;
mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::usage::Usage;
use crate::cri;

/// Controllers that the runtime uses.
const CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb", "blkio", "devices", "freezer"];

#[derive(Debug, thiserror::Error)]
#[error("{action} cgroup {cgroup}: {path}")]
pub(crate) struct Error {
    action: &'static str,
    cgroup: String,
    path: PathBuf,
    source: io::Error,
}

/// The hierarchies of this machine.
#[derive(Debug, Clone)]
pub(crate) enum Cgroups {
    /// Mount points by controller.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroups {
    /// Reads what is mounted; version 2 counts only where no controller is bound to version 1.
    pub(crate) fn detect() -> io::Result<Cgroups> {
        let found = Self::parse(&fs::read_to_string("/proc/thread-self/mountinfo")?);
        found.ok_or_else(|| io::Error::other("no cgroup hierarchy is mounted; mount one on /sys/fs/cgroup"))
    }

    fn parse(mountinfo: &str) -> Option<Cgroups> {
        let (mut v1, mut v2) = (BTreeMap::new(), None);
        for line in mountinfo.lines() {
            let Some((mount, source)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut source = source.split(' ');
            match source.next() {
                Some("cgroup") => {
                    let options = source.nth(1).unwrap_or_default();
                    for controller in options.split(',').filter(|option| CONTROLLERS.contains(option)) {
                        v1.entry(controller.to_owned()).or_insert_with(|| point.clone());
                    }
                }
                Some("cgroup2") => v2 = v2.or(Some(point)),
                _ => {}
            }
        }
        if v1.is_empty() { v2.map(Cgroups::V2) } else { Some(Cgroups::V1(v1)) }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Cgroups::V2(_))
    }

    /// The directory of `cgroup` that has `controller`'s files.
    fn dir(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        match self {
            Cgroups::V1(mounts) => mounts.get(controller).map(|mount| mount.join(relative)),
            Cgroups::V2(mount) => Some(mount.join(relative)),
        }
    }

    /// All directories of `cgroup`, each once.
    fn dirs(&self, cgroup: &str) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = match self {
            Cgroups::V1(mounts) => mounts.values().map(|mount| mount.join(cgroup.trim_start_matches('/'))).collect(),
            Cgroups::V2(_) => self.dir("", cgroup).into_iter().collect(),
        };
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// With version 1 the directories of `cgroup`, by their mount point's name: what a container sees as its
    /// /sys/fs/cgroup.
    pub(crate) fn views(&self, cgroup: &str) -> Vec<(String, PathBuf)> {
        let Cgroups::V1(mounts) = self else { return Vec::new() };
        let mut views: Vec<(String, PathBuf)> = mounts
            .values()
            .filter_map(|mount| {
                let name = mount.file_name()?.to_str()?.to_owned();
                Some((name, mount.join(cgroup.trim_start_matches('/'))))
            })
            .collect();
        views.sort();
        views.dedup();
        views
    }

    /// The files that list the processes of `cgroup`.
    pub(crate) fn procs(&self, cgroup: &str) -> Vec<PathBuf> {
        self.dir("pids", cgroup)
            .or_else(|| self.dir("memory", cgroup))
            .map(|dir| dir.join("cgroup.procs"))
            .into_iter()
            .collect()
    }

    /// The file with the line `oom_kill N`.
    pub(crate) fn oom(&self, cgroup: &str) -> Option<PathBuf> {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.dir("memory", cgroup).map(|dir| dir.join(file))
    }

    /// Makes `cgroup` and what is above it, able to hold processes.
    pub(crate) fn create(&self, cgroup: &str) -> Result<(), Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error { action: "making", cgroup: cgroup.to_owned(), path, source }
        };
        for dir in self.dirs(cgroup) {
            fs::create_dir_all(&dir).map_err(failed(&dir))?;
        }
        match self {
            Cgroups::V1(mounts) => {
                if let Some(mount) = mounts.get("cpuset") {
                    inherit_cpuset(mount, cgroup).map_err(failed(mount))?;
                }
            }
            Cgroups::V2(mount) => delegate(mount, cgroup).map_err(failed(mount))?,
        }
        Ok(())
    }

    /// Applies limits; zero and empty values mean "leave as it is", as CRI has it.
    pub(crate) fn apply(&self, cgroup: &str, resources: &cri::LinuxContainerResources) -> Result<(), Error> {
        for setting in settings::settings(self.is_v2(), resources) {
            let Some(dir) = self.dir(setting.controller, cgroup) else { continue };
            let path = dir.join(&setting.file);
            if setting.optional && !path.exists() {
                continue;
            }
            if let Err(source) = fs::write(&path, &setting.value) {
                return Err(Error { action: "limiting", cgroup: cgroup.to_owned(), path, source });
            }
        }
        Ok(())
    }

    /// Restricts devices where that takes a program (version 2); `rules` as in the OCI specification.
    pub(crate) fn restrict_devices(&self, cgroup: &str, rules: &[serde_json::Value]) -> Result<(), Error> {
        let Cgroups::V2(mount) = self else { return Ok(()) };
        let path = mount.join(cgroup.trim_start_matches('/'));
        devices::restrict(&path, rules).map_err(|source| Error {
            action: "restricting the devices of",
            cgroup: cgroup.to_owned(),
            path,
            source,
        })
    }

    pub(crate) fn usage(&self, cgroup: &str) -> Usage {
        Usage::read(self, cgroup)
    }

    /// Processes in `cgroup` itself.
    pub(crate) fn pids(&self, cgroup: &str) -> Vec<i32> {
        let lists = self.procs(cgroup).into_iter().filter_map(|path| fs::read_to_string(path).ok());
        lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>()).collect()
    }

    /// Removes `cgroup` and all below it. What still runs there is killed; false while some of it has not gone yet.
    pub(crate) fn remove(&self, cgroup: &str) -> bool {
        self.dirs(cgroup).iter().all(|dir| remove_tree(dir))
    }
}

fn remove_tree(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse::<i32>()
            && pid > 1
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A new cpuset has no CPUs and no memory nodes and takes no process: copy them down from the parent.
fn inherit_cpuset(mount: &Path, cgroup: &str) -> io::Result<()> {
    let mut parent = mount.to_owned();
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(child.join(file))?.trim().is_empty() {
                fs::write(child.join(file), fs::read_to_string(parent.join(file))?)?;
            }
        }
        parent = child;
    }
    Ok(())
}

/// Every cgroup above `cgroup` must hand the controllers down.
fn delegate(mount: &Path, cgroup: &str) -> io::Result<()> {
    let available = fs::read_to_string(mount.join("cgroup.controllers"))?;
    let wanted: Vec<String> = available
        .split_whitespace()
        .filter(|controller| CONTROLLERS.contains(controller) || *controller == "io")
        .map(|controller| format!("+{controller}"))
        .collect();
    let parts: Vec<&str> = cgroup.split('/').filter(|part| !part.is_empty()).collect();
    let mut dir = mount.to_owned();
    for part in &parts {
        let control = dir.join("cgroup.subtree_control");
        // One by one: a controller that cannot be had must not cost the others.
        for controller in &wanted {
            if let Err(error) = fs::write(&control, controller) {
                tracing::debug!(path = %control.display(), controller, %error, "cannot hand a controller down");
            }
        }
        dir.push(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_is_mounted() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let Some(Cgroups::V1(mounts)) = Cgroups::parse(hybrid) else { panic!("hybrid counts as version 1") };
        assert_eq!(mounts["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        let unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert!(matches!(Cgroups::parse(unified), Some(Cgroups::V2(mount)) if mount == Path::new("/sys/fs/cgroup")));
        assert!(Cgroups::parse("1 2 0:1 / / rw - ext4 /dev/sda rw\n").is_none());
    }

    #[test]
    fn version_2_on_a_fake_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory pids misc\n").unwrap();
        let cgroups = Cgroups::V2(root.to_owned());
        cgroups.create("/kubepods/pod1/c1").unwrap();
        // A plain directory keeps the last controller that was written; the kernel would keep all.
        assert_eq!(fs::read_to_string(root.join("kubepods/cgroup.subtree_control")).unwrap(), "+pids");
        assert!(!root.join("kubepods/pod1/c1/cgroup.subtree_control").exists(), "processes live in leaves only");

        let resources = cri::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 1024,
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        };
        cgroups.apply("/kubepods/pod1/c1", &resources).unwrap();
        let leaf = root.join("kubepods/pod1/c1");
        for (file, expect) in [("cpu.max", "50000 100000"), ("cpu.weight", "39"), ("memory.max", "67108864")] {
            assert_eq!(fs::read_to_string(leaf.join(file)).unwrap(), expect, "{file}");
        }

        for (file, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "1000000\n"),
            ("memory.stat", "anon 600000\nfile 400000\ninactive_file 300000\npgfault 5\npgmajfault 1\n"),
            ("pids.current", "3\n"),
            ("cgroup.procs", "41\n42\n"),
        ] {
            fs::write(leaf.join(file), text).unwrap();
        }
        let usage = cgroups.usage("/kubepods/pod1/c1");
        assert_eq!(
            (usage.cpu_ns, usage.memory, usage.working_set, usage.rss),
            (1_500_000, 1_000_000, 700_000, 600_000)
        );
        assert_eq!((usage.page_faults, usage.major_page_faults, usage.pids), (5, 1, 3));
        assert_eq!(cgroups.pids("/kubepods/pod1/c1"), [41, 42]);
    }
}
