//! `navarch reset`: nothing of the cluster stays on the machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;

use crate::{
    agent::{self, PREFIX},
    control_plane::Facts,
};

/// Sandboxes are taken down without their network: that goes as a whole afterwards.
struct NoNetwork;

#[async_trait::async_trait]
impl runtime::Network for NoNetwork {
    async fn setup(&self, _: &Path, _: &runtime::NetworkRequest) -> anyhow::Result<Vec<std::net::IpAddr>> {
        anyhow::bail!("this machine is being reset")
    }

    async fn teardown(&self, _: &Path, _: &runtime::NetworkRequest) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Stops all containers and removes links, rules, mounts, cgroups and files. No server may be running.
pub async fn reset(facts: &Facts, say: impl Fn(&str)) -> anyhow::Result<()> {
    let layout = &facts.layout;
    let control = layout.run().join("control.sock");
    anyhow::ensure!(
        std::os::unix::net::UnixStream::connect(&control).is_err(),
        "a server is running on {}; stop it first",
        layout.data.display()
    );
    if layout.runtime().exists() {
        say("stopping containers");
        let runtime = agent::open_runtime(facts, Arc::new(NoNetwork)).await?;
        runtime.remove_all().await?;
    }
    if nix::unistd::geteuid().is_root() {
        say("removing links, rules, mounts and cgroups");
        network::pod::remove_all(PREFIX, &layout.network()).await?;
        network::proxy::remove_all(PREFIX).await?;
        unmount_below(&layout.data)?;
        unmount_below(&layout.run())?;
        remove_cgroups(&facts.flags.cgroup_root)?;
    }
    say("removing files");
    for path in [layout.run(), layout.pod_logs(), layout.data.clone()] {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Mount points below a directory, the deepest first.
fn mounts_below(directory: &Path, mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(directory))
        .collect();
    found.sort();
    found.reverse();
    found
}

fn unmount_below(directory: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    for path in mounts_below(directory, &mounts) {
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", path.display()))?;
    }
    Ok(())
}

/// Removes the node's cgroup in every hierarchy, children first.
fn remove_cgroups(root: &str) -> anyhow::Result<()> {
    let name = root.trim_matches('/');
    if name.is_empty() {
        return Ok(());
    }
    let mount = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([mount.to_path_buf()]) {
        remove_cgroup(&hierarchy.join(name))?;
    }
    Ok(())
}

fn remove_cgroup(path: &Path) -> anyhow::Result<()> {
    if !path.join("cgroup.procs").exists() {
        return Ok(());
    }
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.path().is_dir() {
            remove_cgroup(&child.path())?;
        }
    }
    fs::remove_dir(path)
        .with_context(|| format!("cannot remove the cgroup {}; something still runs in it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_mounts_come_first_and_others_are_left_alone() {
        let mounts = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /data/a rw - tmpfs x rw\n3 2 0:3 / /data/a/b rw - tmpfs x rw\n4 1 0:4 / /database rw - tmpfs x rw\n";
        let found = mounts_below(Path::new("/data"), mounts);
        assert_eq!(found, [PathBuf::from("/data/a/b"), PathBuf::from("/data/a")]);
    }
}
