//! What this machine is and whether it can run a node: asked by `navarch check`, and at every start.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
    process::Command,
};

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    pub subject: &'static str,
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty when it is fine.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Fine,
    /// A node runs, with less.
    Lacking,
    /// A node cannot run.
    Missing,
}

fn fine(subject: &'static str, detail: impl Into<String>) -> Finding {
    Finding { subject, level: Level::Fine, detail: detail.into(), remedy: String::new() }
}

fn lacking(subject: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { subject, level: Level::Lacking, detail: detail.into(), remedy: remedy.into() }
}

fn missing(subject: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { subject, level: Level::Missing, detail: detail.into(), remedy: remedy.into() }
}

/// Looks at everything a node needs.
pub fn check() -> Vec<Finding> {
    vec![root(), cgroups(), overlay(), namespaces(), nftables(), conntrack(), priority(), inotify()]
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        fine("root", "running as root")
    } else {
        missing("root", "not root", "run as root, or `navarch server --disable-agent` for an API without a node")
    }
}

fn cgroups() -> Finding {
    const WANTED: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let lacks = |has: &dyn Fn(&str) -> bool| -> Vec<&str> { WANTED.into_iter().filter(|name| !has(name)).collect() };
    if !unified.is_empty() {
        let lacks = lacks(&|name| unified.split_whitespace().any(|known| known == name));
        return if lacks.is_empty() {
            fine("cgroups", "version 2")
        } else {
            missing(
                "cgroups",
                format!("version 2 without {}", lacks.join(", ")),
                "enable them: cgroup_enable=memory cgroup_enable=cpuset on the kernel's command line",
            )
        };
    }
    let lacks = lacks(&|name| Path::new("/sys/fs/cgroup").join(name).join("cgroup.procs").exists());
    if lacks.is_empty() {
        fine("cgroups", "version 1")
    } else {
        missing(
            "cgroups",
            format!("version 1 without {}", lacks.join(", ")),
            "mount the controllers under /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    }
}

fn overlay() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.ends_with("\toverlay")) {
        fine("overlayfs", "in the kernel")
    } else {
        missing("overlayfs", "not known to the kernel", "modprobe overlay")
    }
}

fn namespaces() -> Finding {
    let lacks: Vec<&str> = ["net", "mnt", "pid", "uts", "ipc"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if lacks.is_empty() {
        fine("namespaces", "net, mnt, pid, uts, ipc")
    } else {
        missing("namespaces", format!("no {}", lacks.join(", ")), "use a kernel with these namespaces")
    }
}

/// Runs a program; its output, or what went wrong in words.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn nftables() -> Finding {
    match run("nft", &["list", "tables"]) {
        Ok(_) => fine("nftables", run("nft", &["--version"]).unwrap_or_default()),
        Err(why) => missing("nftables", why, "install the package nftables; if the kernel refuses, modprobe nf_tables"),
    }
}

fn conntrack() -> Finding {
    match run("conntrack", &["--version"]) {
        Ok(version) => fine("conntrack", version.split('(').next().unwrap_or_default().trim().to_string()),
        Err(why) => lacking(
            "conntrack",
            why,
            "install the package conntrack; without it UDP clients keep talking to endpoints that are gone",
        ),
    }
}

fn priority() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    if bits & CAP_SYS_RESOURCE != 0 {
        fine("CAP_SYS_RESOURCE", "held")
    } else {
        lacking(
            "CAP_SYS_RESOURCE",
            "not held",
            "give the capability; without it no process can be protected from the OOM killer by its QoS class",
        )
    }
}

fn inotify() -> Finding {
    const LEAST: u64 = 128;
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let instances = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    if instances >= LEAST {
        fine("inotify", format!("{instances} instances"))
    } else {
        lacking("inotify", format!("{instances} instances"), format!("sysctl fs.inotify.max_user_instances={LEAST}"))
    }
}

/// The machine's name as a Node is called: lower case.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
        .to_lowercase()
}

/// The address from which this machine reaches others, or loopback when it reaches none.
pub fn address() -> IpAddr {
    // Connecting a datagram socket sends nothing; it asks the routing table.
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    routed.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_fine_comes_with_a_remedy() {
        for finding in check() {
            assert_eq!(finding.level == Level::Fine, finding.remedy.is_empty(), "{finding:?}");
        }
    }
}
