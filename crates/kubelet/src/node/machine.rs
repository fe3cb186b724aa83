//! What the machine is and has, read once from /proc and /sys.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Hardware and system of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cpus: i64,
    /// Bytes.
    pub(crate) memory: i64,
    /// Bytes in huge pages by their size in bytes.
    pub(crate) hugepages: Vec<(i64, i64)>,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    /// As Go names it: `amd64`.
    pub(crate) architecture: &'static str,
    pub(crate) swap: Option<i64>,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let meminfo = line("/proc/meminfo");
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1)),
            memory: kilobytes(&meminfo, "MemTotal:").unwrap_or(0),
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                "powerpc64" => "ppc64le",
                other => other,
            },
            swap: kilobytes(&meminfo, "SwapTotal:").filter(|bytes| *bytes > 0),
        }
    }
}

/// Bytes of one line of /proc/meminfo.
pub(crate) fn kilobytes(meminfo: &str, name: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn hugepages(root: &Path) -> Vec<(i64, i64)> {
    let mut sizes: Vec<(i64, i64)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kilobytes: i64 = OsStr::to_str(&name)?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some((kilobytes * 1024, count * kilobytes * 1024))
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

fn os_image(release: &str) -> String {
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Space of the file system that holds a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

pub(crate) fn space(path: &Path) -> nix::Result<Space> {
    let found = statvfs(path)?;
    let unit = found.fragment_size();
    Ok(Space {
        capacity: found.blocks() * unit,
        available: found.blocks_available() * unit,
        inodes: found.files(),
        inodes_free: found.files_available(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory > 1 << 20 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(space(Path::new("/")).unwrap().capacity > 0);
    }

    #[test]
    fn names_of_systems() {
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_image(""), "Linux");
    }
}
