//! CRI resources as the files that the kernel reads.

use crate::cri::LinuxContainerResources;

/// One value for one file.
#[derive(Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// Not every kernel has the file, and containers run without.
    pub(super) optional: bool,
}

fn set(controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting { controller, file: file.to_owned(), value: value.to_string(), optional: false }
}

fn try_set(controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting { optional: true, ..set(controller, file, value) }
}

pub(super) fn settings(v2: bool, resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings = if v2 { version_2(resources) } else { version_1(resources) };
    if !resources.cpuset_cpus.is_empty() {
        settings.push(set("cpuset", "cpuset.cpus", &resources.cpuset_cpus));
    }
    if !resources.cpuset_mems.is_empty() {
        settings.push(set("cpuset", "cpuset.mems", &resources.cpuset_mems));
    }
    for limit in &resources.hugepage_limits {
        let file = if v2 { "max" } else { "limit_in_bytes" };
        settings.push(try_set("hugetlb", &format!("hugetlb.{}.{file}", limit.page_size), limit.limit));
    }
    settings
}

fn version_1(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if resources.cpu_shares > 0 {
        settings.push(set("cpu", "cpu.shares", resources.cpu_shares.max(2)));
    }
    if resources.cpu_period > 0 {
        settings.push(set("cpu", "cpu.cfs_period_us", resources.cpu_period));
    }
    if resources.cpu_quota != 0 {
        settings.push(set("cpu", "cpu.cfs_quota_us", resources.cpu_quota));
    }
    if resources.memory_limit_in_bytes != 0 {
        settings.push(set("memory", "memory.limit_in_bytes", resources.memory_limit_in_bytes));
        let swap = match resources.memory_swap_limit_in_bytes {
            0 => resources.memory_limit_in_bytes,
            limit => limit,
        };
        settings.push(try_set("memory", "memory.memsw.limit_in_bytes", swap));
    }
    settings
}

fn version_2(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if resources.cpu_shares > 0 {
        settings.push(set("cpu", "cpu.weight", weight(resources.cpu_shares)));
    }
    if resources.cpu_period > 0 || resources.cpu_quota != 0 {
        let period = if resources.cpu_period > 0 { resources.cpu_period } else { 100_000 };
        let quota = if resources.cpu_quota > 0 { resources.cpu_quota.to_string() } else { "max".to_owned() };
        settings.push(set("cpu", "cpu.max", format!("{quota} {period}")));
    }
    let max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    let limit = resources.memory_limit_in_bytes;
    if limit != 0 {
        settings.push(set("memory", "memory.max", max(limit)));
        let swap = resources.memory_swap_limit_in_bytes;
        // CRI counts memory and swap together, the kernel swap alone.
        let swap = if swap == 0 {
            0
        } else if swap < 0 {
            -1
        } else {
            (swap - limit).max(0)
        };
        settings.push(try_set("memory", "memory.swap.max", max(swap)));
        settings.push(try_set("memory", "memory.oom.group", 1));
    }
    for (file, value) in &resources.unified {
        let controller = "unified";
        if !file.contains('/') {
            settings.push(set(controller, file, value));
        }
    }
    settings
}

/// Shares (2 to 262144) to weight (1 to 10000), linearly, as all runtimes do.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (shares, expect) in [(2, 1), (102, 4), (1024, 39), (262_144, 10_000), (1, 1)] {
            assert_eq!(weight(shares), expect, "{shares}");
        }
    }

    #[test]
    fn nothing_asked_nothing_written() {
        for v2 in [false, true] {
            assert_eq!(settings(v2, &LinuxContainerResources::default()), []);
        }
    }

    #[test]
    fn limits() {
        let resources = LinuxContainerResources {
            cpu_quota: -1,
            cpu_period: 100_000,
            memory_limit_in_bytes: 100,
            memory_swap_limit_in_bytes: 150,
            ..Default::default()
        };
        let files = |v2| -> Vec<String> {
            settings(v2, &resources).into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
        };
        assert_eq!(
            files(false),
            [
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=-1",
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150"
            ]
        );
        assert_eq!(files(true), ["cpu.max=max 100000", "memory.max=100", "memory.swap.max=50", "memory.oom.group=1"]);
    }
}
