//! What a pod may use, as the kernel wants it said: shares, quota, limits, and who dies first.
//!
//! The numbers are those every kubelet uses (1024 shares a CPU, a period of 100 ms, `oom_score_adj` by QoS class), so
//! a pod behaves here as elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use api::pod_resources::{self, Resources};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::observed::{Instance, State};
use super::{Kind, PodExt};
use crate::cri::v1;

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Microseconds.
const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1_000;

/// How much a pod was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// The class in the pod's status; computed for pods that the API has not classified (static ones).
pub(crate) fn qos(pod: &core::Pod) -> Qos {
    match pod.reported().qos_class.as_deref() {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let spec = pod.specification();
    let pod_level = spec.resources.as_ref().map(|requirements| vec![Some(requirements)]);
    let each = || pod.containers().into_iter().filter(|(kind, _)| *kind != Kind::Ephemeral);
    let containers: Vec<_> = each().map(|(_, container)| container.into_owned()).collect();
    let all = pod_level.unwrap_or_else(|| containers.iter().map(|container| container.resources.as_ref()).collect());
    let amount = |list: Option<&BTreeMap<String, Text>>, name: &str| -> i64 {
        let resources = list.map(Resources::from_list).unwrap_or_default();
        if name == "cpu" { resources.cpu_millis } else { resources.memory_bytes }
    };
    let (mut any, mut guaranteed) = (false, true);
    for requirements in all {
        for name in ["cpu", "memory"] {
            let limit = amount(requirements.and_then(|r| r.limits.as_ref()), name);
            let request = amount(requirements.and_then(|r| r.requests.as_ref()), name);
            any |= limit > 0 || request > 0;
            guaranteed &= limit > 0 && (request == 0 || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

pub(crate) fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { MIN_SHARES } else { (milli_cpu * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// Microseconds per period; zero means no limit.
pub(crate) fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { 0 } else { (milli_cpu * PERIOD / 1000).max(MIN_QUOTA) }
}

fn listed(list: Option<&BTreeMap<String, Text>>) -> Resources {
    list.map(Resources::from_list).unwrap_or_default()
}

fn requests_of(container: &core::Container) -> Resources {
    listed(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn limits_of(container: &core::Container) -> Resources {
    listed(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()))
}

/// Limits of one container. `capacity`: bytes of memory of the node.
pub(crate) fn for_container(
    pod: &core::Pod,
    container: &core::Container,
    capacity: i64,
) -> v1::LinuxContainerResources {
    let (requests, limits) = (requests_of(container), limits_of(container));
    let has_request =
        container.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|list| list.contains_key("cpu"));
    let wanted = if has_request { requests.cpu_millis } else { limits.cpu_millis };
    v1::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(limits.cpu_millis),
        cpu_shares: shares(wanted),
        memory_limit_in_bytes: limits.memory_bytes,
        oom_score_adj: oom_score(pod, container, capacity),
        hugepage_limits: hugepages(&limits),
        ..Default::default()
    }
}

/// Limits of the pod's own cgroup, where the sum of the containers is not enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    pub(crate) shares: i64,
    /// `None`: some container has no limit, so the pod has none.
    pub(crate) quota: Option<i64>,
    pub(crate) period: i64,
    pub(crate) memory: Option<i64>,
    pub(crate) hugepages: Vec<v1::HugepageLimit>,
}

pub(crate) fn for_pod(pod: &core::Pod) -> PodLimits {
    let (requests, limits) = (pod_resources::requests(pod), pod_resources::limits(pod));
    if qos(pod) == Qos::BestEffort {
        return PodLimits { shares: MIN_SHARES, period: PERIOD, ..PodLimits::default() };
    }
    let own = listed(pod.specification().resources.as_ref().and_then(|resources| resources.limits.as_ref()));
    let all = |amount: fn(&Resources) -> i64| {
        let counted = pod.containers().into_iter().filter(|(kind, _)| *kind != Kind::Ephemeral);
        amount(&own) > 0 || counted.into_iter().all(|(_, container)| amount(&limits_of(&container)) > 0)
    };
    PodLimits {
        shares: shares(requests.cpu_millis),
        quota: all(|resources| resources.cpu_millis).then(|| quota(limits.cpu_millis)),
        period: PERIOD,
        memory: all(|resources| resources.memory_bytes).then_some(limits.memory_bytes),
        hugepages: hugepages(&limits),
    }
}

/// The pod's sums as the sandbox configuration carries them.
pub(crate) fn for_sandbox(pod: &core::Pod) -> v1::LinuxContainerResources {
    let limits = for_pod(pod);
    v1::LinuxContainerResources {
        cpu_period: limits.period,
        cpu_quota: limits.quota.unwrap_or(0),
        cpu_shares: limits.shares,
        memory_limit_in_bytes: limits.memory.unwrap_or(0),
        hugepage_limits: limits.hugepages,
        ..Default::default()
    }
}

/// `hugepages-2Mi` as the kernel names the size: `2MB`.
fn hugepages(limits: &Resources) -> Vec<v1::HugepageLimit> {
    let sizes = limits.other.iter().filter_map(|(name, amount)| {
        let size = name.strip_prefix("hugepages-")?.parse::<Quantity>().ok()?.value();
        let page_size = match size {
            size if size >= 1 << 30 => format!("{}GB", size >> 30),
            size if size >= 1 << 20 => format!("{}MB", size >> 20),
            size => format!("{}KB", size >> 10),
        };
        Some(v1::HugepageLimit { page_size, limit: u64::try_from(*amount).unwrap_or(0) })
    });
    sizes.collect()
}

/// From -997 (last to die) to 1000. A burstable container is judged by the share of memory that it asked for.
pub(crate) fn oom_score(pod: &core::Pod, container: &core::Container, capacity: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    let critical = pod.specification().priority_class_name.as_deref() == Some("system-node-critical");
    match qos(pod) {
        _ if critical => return GUARANTEED,
        Qos::Guaranteed => return GUARANTEED,
        Qos::BestEffort => return BEST_EFFORT,
        Qos::Burstable => {}
    }
    let score = |bytes: i64| 1000 - 1000 * bytes / capacity.max(1);
    let mut adjusted = score(requests_of(container).memory_bytes);
    if super::is_sidecar(container) {
        let regular = pod.specification().containers.iter().map(|other| requests_of(other).memory_bytes);
        adjusted = adjusted.min(score(regular.min().unwrap_or(0)));
    }
    adjusted.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

/// The `resources` of a container's status: what is enforced where the runtime says so, what was asked for otherwise.
pub(crate) fn reported(container: &core::Container, instance: &Instance) -> Option<core::ResourceRequirements> {
    let mut resources = container.resources.clone()?;
    let enforced = instance.resources.as_ref().filter(|_| instance.state == State::Running);
    if let (Some(enforced), Some(limits)) = (enforced, resources.limits.as_mut()) {
        let asked = Resources::from_list(limits);
        if enforced.memory_limit_in_bytes > 0 && asked.memory_bytes != enforced.memory_limit_in_bytes {
            limits.insert("memory".into(), Text(enforced.memory_limit_in_bytes.to_string()));
        }
        let differs = enforced.cpu_quota > 0 && quota(asked.cpu_millis) != enforced.cpu_quota;
        if differs && enforced.cpu_period > 0 {
            limits.insert("cpu".into(), Text(format!("{}m", enforced.cpu_quota * 1000 / enforced.cpu_period)));
        }
    }
    Some(resources)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value) -> core::Pod {
        serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes_and_scores() {
        let both = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let cases = [
            (json!([{"name": "a"}]), Qos::BestEffort, 1000),
            (json!([{"name": "a", "resources": {"limits": both("1", "1Gi")}}]), Qos::Guaranteed, -997),
            (
                json!([{"name": "a", "resources": {"limits": both("1", "1Gi"), "requests": both("1", "1Gi")}}]),
                Qos::Guaranteed,
                -997,
            ),
            (json!([{"name": "a", "resources": {"limits": {"cpu": "1"}}}]), Qos::Burstable, 999),
            (json!([{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]), Qos::Burstable, 900),
            (json!([{"name": "a", "resources": {"requests": {"memory": "10Gi"}}}]), Qos::Burstable, 3),
            (json!([{"name": "a", "resources": {"limits": both("1", "1Gi")}}, {"name": "b"}]), Qos::Burstable, 999),
        ];
        for (containers, expect, score) in cases {
            let pod = pod(containers);
            assert_eq!(qos(&pod), expect, "{pod:?}");
            let capacity = 10 << 30;
            let mut container = pod.specification().containers[0].clone();
            if expect == Qos::Burstable && container.resources.as_ref().is_some_and(|r| r.limits.is_some()) {
                container.resources = None;
            }
            assert_eq!(oom_score(&pod, &container, capacity), score, "{pod:?}");
        }
    }

    #[test]
    fn kernel_numbers() {
        let pod = pod(json!([{"name": "a", "resources": {
            "limits": {"cpu": "500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "250m"}}}]));
        let resources = for_container(&pod, &pod.specification().containers[0], 1 << 30);
        assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.cpu_period), (256, 50_000, 100_000));
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
        assert_eq!(
            (resources.hugepage_limits[0].page_size.as_str(), resources.hugepage_limits[0].limit),
            ("2MB", 4 << 20)
        );
        assert_eq!((shares(0), shares(1), quota(0), quota(1)), (2, 2, 0, 1000));
    }

    #[test]
    fn a_pod_is_limited_only_when_all_its_containers_are() {
        let limited = json!({"limits": {"cpu": "1", "memory": "1Mi"}});
        let one = for_pod(&pod(json!([{"name": "a", "resources": limited}, {"name": "b"}])));
        assert_eq!((one.quota, one.memory), (None, None));
        let both = for_pod(&pod(json!([{"name": "a", "resources": limited}, {"name": "b", "resources": limited}])));
        assert_eq!((both.quota, both.memory), (Some(200_000), Some(2 << 20)));
    }
}
