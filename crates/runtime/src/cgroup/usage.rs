//! What a cgroup uses.

use std::fs;
use std::path::{Path, PathBuf};

use super::Cgroups;

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Usage {
    /// Since the cgroup was made.
    pub(crate) cpu_ns: u64,
    /// Bytes, page cache included.
    pub(crate) memory: u64,
    /// Without the cache that can go at once: what eviction looks at.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    /// Bytes; `None` without a limit.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) pids: u64,
}

impl Usage {
    /// Zero where the cgroup is gone.
    pub(super) fn read(cgroups: &Cgroups, cgroup: &str) -> Usage {
        let dir = |controller| cgroups.dir(controller, cgroup).unwrap_or_else(|| PathBuf::from("/nonexistent"));
        let memory = dir("memory");
        let stat = fs::read_to_string(memory.join("memory.stat")).unwrap_or_default();
        let pids = number(&dir("pids").join("pids.current")).unwrap_or(0);
        let (cpu_ns, used, inactive, rss, faults, major, limit, swap) = if cgroups.is_v2() {
            let cpu = fs::read_to_string(dir("cpu").join("cpu.stat")).unwrap_or_default();
            (
                field(&cpu, "usage_usec").unwrap_or(0) * 1000,
                number(&memory.join("memory.current")),
                field(&stat, "inactive_file"),
                field(&stat, "anon"),
                field(&stat, "pgfault"),
                field(&stat, "pgmajfault"),
                number(&memory.join("memory.max")),
                number(&memory.join("memory.swap.current")),
            )
        } else {
            (
                number(&dir("cpuacct").join("cpuacct.usage")).unwrap_or(0),
                number(&memory.join("memory.usage_in_bytes")),
                field(&stat, "total_inactive_file"),
                field(&stat, "total_rss"),
                field(&stat, "total_pgfault"),
                field(&stat, "total_pgmajfault"),
                number(&memory.join("memory.limit_in_bytes")),
                field(&stat, "total_swap"),
            )
        };
        let used = used.unwrap_or(0);
        Usage {
            cpu_ns,
            memory: used,
            working_set: used.saturating_sub(inactive.unwrap_or(0)),
            rss: rss.unwrap_or(0),
            page_faults: faults.unwrap_or(0),
            major_page_faults: major.unwrap_or(0),
            // Version 1 writes "no limit" as the largest page-aligned number.
            memory_limit: limit.filter(|limit| *limit < 1 << 62),
            swap,
            pids,
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
