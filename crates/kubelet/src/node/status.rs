//! The status of the node: what it has, how it fares. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::pod_resources::Resources;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::Machine;
use crate::config::Config;
use crate::cri::v1;
use crate::eviction::Pressure;

/// Most images listed in a status.
const MAX_IMAGES: usize = 50;

type List = BTreeMap<String, Text>;

/// What the machine has, and what of it pods may use.
pub(crate) fn resources(config: &Config, machine: &Machine, disk: u64) -> (List, List) {
    let kib = |bytes: i64| Text(format!("{}Ki", bytes / 1024));
    let mut capacity = List::from([
        ("cpu".to_owned(), Text(machine.cpus.to_string())),
        ("memory".to_owned(), kib(machine.memory)),
        ("pods".to_owned(), Text(config.max_pods.to_string())),
        ("ephemeral-storage".to_owned(), kib(i64::try_from(disk).unwrap_or(i64::MAX))),
    ]);
    let mut huge = 0;
    for (size, total) in &machine.hugepages {
        let name = if *size >= 1 << 30 { format!("{}Gi", size >> 30) } else { format!("{}Mi", size >> 20) };
        capacity.insert(format!("hugepages-{name}"), Text(total.to_string()));
        huge += total;
    }
    let mut allocatable = capacity.clone();
    let millis = machine.cpus * 1000 - config.reserved_cpu_millis;
    if config.reserved_cpu_millis > 0 {
        allocatable.insert("cpu".to_owned(), Text(format!("{millis}m")));
    }
    let kept = i64::try_from(config.eviction.memory_available_bytes).unwrap_or(0) + config.reserved_memory_bytes;
    allocatable.insert("memory".to_owned(), kib((machine.memory - kept - huge).max(0)));
    let usable = disk / 100 * (100 - config.eviction.nodefs_available_percent.min(100));
    allocatable.insert("ephemeral-storage".to_owned(), Text(usable.to_string()));
    (capacity, allocatable)
}

/// The allocatable amounts as numbers.
pub(crate) fn allocatable(config: &Config, machine: &Machine, disk: u64) -> Resources {
    Resources::from_list(&resources(config, machine, disk).1)
}

pub(crate) fn addresses(ips: &[IpAddr], hostname: &str) -> Vec<core::NodeAddress> {
    let internal = ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    let all = internal.chain([("Hostname", hostname.to_owned())]);
    all.map(|(type_, address)| core::NodeAddress { type_: type_.to_owned(), address }).collect()
}

pub(crate) fn info(config: &Config, machine: &Machine, runtime: &str) -> core::NodeSystemInfo {
    core::NodeSystemInfo {
        architecture: machine.architecture.to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime.to_owned(),
        kernel_version: machine.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: machine.swap.map(|capacity| core::NodeSwapStatus { capacity: Some(capacity) }),
        system_uuid: machine.system_uuid.clone(),
    }
}

/// Why the node is not ready, if it is not. `runtime`: what the runtime says of itself, or why it says nothing.
pub(crate) fn unready(runtime: Result<&[v1::RuntimeCondition], &str>) -> Option<String> {
    let conditions = match runtime {
        Err(why) => return Some(format!("container runtime is down: {why}")),
        Ok(conditions) => conditions,
    };
    let wanted =
        [("RuntimeReady", "container runtime not ready"), ("NetworkReady", "container runtime network not ready")];
    wanted.iter().find_map(|(name, text)| match conditions.iter().find(|condition| condition.r#type == *name) {
        Some(condition) if condition.status => None,
        Some(condition) => {
            Some(format!("{text}: {name}=false reason:{} message:{}", condition.reason, condition.message))
        }
        None => Some(format!("{text}: the runtime does not report {name}")),
    })
}

/// The four conditions, each with the transition time of `old` unless its status changed.
pub(crate) fn conditions(
    old: &[core::NodeCondition],
    unready: Option<&str>,
    pressure: Pressure,
    now: Timestamp,
) -> Vec<core::NodeCondition> {
    let pressed = |holds: bool, yes: (&'static str, &str), no: (&'static str, &str)| {
        let (reason, message) = if holds { yes } else { no };
        (holds, reason, message.to_owned())
    };
    let memory = pressed(
        pressure.memory,
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    );
    let disk = pressed(
        pressure.disk,
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    );
    let pid = pressed(
        pressure.pid,
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    );
    let ready = match unready {
        Some(why) => (false, "KubeletNotReady", why.to_owned()),
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
    };
    let all = [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pid), ("Ready", ready)];
    let all = all.into_iter().map(|(name, (holds, reason, message))| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == name && condition.status == status);
        core::NodeCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    all.collect()
}

/// The largest images, as many as a status may name.
pub(crate) fn images(mut images: Vec<v1::Image>) -> Vec<core::ContainerImage> {
    images.sort_by_key(|image| (std::cmp::Reverse(image.size), image.id.clone()));
    let listed = images.into_iter().take(MAX_IMAGES).map(|image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect();
        core::ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    listed.collect()
}

pub(crate) fn handlers(handlers: &[v1::RuntimeHandler]) -> Vec<core::NodeRuntimeHandler> {
    let handlers = handlers.iter().map(|handler| core::NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|features| core::NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            // This kubelet gives no pod a user namespace, whatever the runtime could do.
            user_namespaces: Some(false),
        }),
    });
    handlers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: &str, status: bool) -> v1::RuntimeCondition {
        v1::RuntimeCondition { r#type: name.into(), status, reason: "R".into(), message: "m".into() }
    }

    #[test]
    fn ready_needs_runtime_and_network() {
        let both = [condition("RuntimeReady", true), condition("NetworkReady", true)];
        assert_eq!(unready(Ok(&both)), None);
        let no_network = [condition("RuntimeReady", true), condition("NetworkReady", false)];
        let why = unready(Ok(&no_network)).unwrap();
        assert_eq!(why, "container runtime network not ready: NetworkReady=false reason:R message:m");
        assert_eq!(unready(Err("gone")).unwrap(), "container runtime is down: gone");
        assert!(unready(Ok(&[])).is_some());
    }

    #[test]
    fn transitions_are_kept() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = conditions(&[], None, Pressure::default(), at(1));
        let second = conditions(&first, None, Pressure { memory: true, ..Pressure::default() }, at(2));
        let show: Vec<_> = second
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.last_transition_time.as_ref().unwrap().0.as_second()))
            .collect();
        assert_eq!(
            show,
            [
                ("MemoryPressure", "True", 2),
                ("DiskPressure", "False", 1),
                ("PIDPressure", "False", 1),
                ("Ready", "True", 1)
            ]
        );
    }
}
