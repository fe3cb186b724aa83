//! Users, groups, namespaces, capabilities and profiles: security contexts as CRI carries them.

use k8s_openapi::api::core::v1 as core;

use super::PodExt;
use crate::cri::v1;

/// A security context that cannot be met.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    Root { pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RootUser { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NamedUser { user: String, pod: String, container: String },
}

/// Paths under /proc that tell or change too much for an ordinary container.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const MASKED_SYS: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Namespaces that the containers of a pod share. `target`: the container a debugger looks into.
pub(crate) fn namespaces(pod: &core::Pod, target: Option<&str>) -> v1::NamespaceOption {
    let spec = pod.specification();
    let node = |host: Option<bool>, otherwise| if host == Some(true) { v1::NamespaceMode::Node } else { otherwise };
    let own = match spec.share_process_namespace {
        Some(true) => v1::NamespaceMode::Pod,
        _ => v1::NamespaceMode::Container,
    };
    let mut options = v1::NamespaceOption::default();
    options.set_network(node(spec.host_network, v1::NamespaceMode::Pod));
    options.set_ipc(node(spec.host_ipc, v1::NamespaceMode::Pod));
    options.set_pid(node(spec.host_pid, own));
    if let Some(target) = target
        && options.pid() == v1::NamespaceMode::Container
    {
        options.set_pid(v1::NamespaceMode::Target);
        options.target_id = target.to_owned();
    }
    options
}

pub(crate) fn sandbox(pod: &core::Pod) -> v1::LinuxSandboxSecurityContext {
    let context = pod.specification().security_context.clone().unwrap_or_default();
    let int = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    let mut sandbox = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: int(context.run_as_user),
        run_as_group: int(context.run_as_group.filter(|_| context.run_as_user.is_some())),
        supplemental_groups: groups(&context),
        privileged: pod.containers().iter().any(|(_, container)| is_privileged(container)),
        seccomp: Some(seccomp(context.seccomp_profile.as_ref())),
        ..Default::default()
    };
    sandbox.set_supplemental_groups_policy(policy(&context));
    sandbox
}

/// `image_user`: uid and user name that the image was built to run as.
pub(crate) fn container(
    pod: &core::Pod,
    container: &core::Container,
    image_user: (Option<i64>, &str),
    target: Option<&str>,
) -> Result<v1::LinuxContainerSecurityContext, Error> {
    let of_pod = pod.specification().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        not_root(pod, container, user, image_user)?;
    }
    let privileged = is_privileged(container);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |all: &[&str]| -> Vec<String> {
        if unmasked { Vec::new() } else { all.iter().map(|path| (*path).to_owned()).collect() }
    };
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()).filter(|_| !privileged);
    let capabilities = own.capabilities.unwrap_or_default();
    let masked: Vec<&str> = MASKED.iter().chain(&MASKED_SYS).copied().collect();
    let mut context = v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: user.map(|value| v1::Int64Value { value }),
        // The group of a user that only the image knows is the image's to say, unless it is asked for.
        run_as_group: group.map(|value| v1::Int64Value { value }),
        run_as_username: if user.is_none() { image_user.1.to_owned() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(&of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&masked),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(profile)),
        apparmor: own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref()).map(apparmor),
        ..Default::default()
    };
    if user.is_none()
        && let (Some(value), "") = image_user
    {
        context.run_as_user = Some(v1::Int64Value { value });
    }
    context.set_supplemental_groups_policy(policy(&of_pod));
    Ok(context)
}

fn not_root(
    pod: &core::Pod,
    container: &core::Container,
    user: Option<i64>,
    image_user: (Option<i64>, &str),
) -> Result<(), Error> {
    let (pod, container) = (pod.full_name(), container.name.clone());
    match (user, image_user) {
        (Some(0), _) => Err(Error::RootUser { pod, container }),
        (Some(_), _) => Ok(()),
        (None, (Some(0), _)) => Err(Error::Root { pod, container }),
        (None, (_, name)) if !name.is_empty() => Err(Error::NamedUser { user: name.to_owned(), pod, container }),
        (None, _) => Ok(()),
    }
}

pub(crate) fn is_privileged(container: &core::Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
}

fn groups(context: &core::PodSecurityContext) -> Vec<i64> {
    let mut groups = context.supplemental_groups.clone().unwrap_or_default();
    groups.extend(context.fs_group);
    groups
}

fn policy(context: &core::PodSecurityContext) -> v1::SupplementalGroupsPolicy {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict,
        _ => v1::SupplementalGroupsPolicy::Merge,
    }
}

/// A pod without a profile runs unconfined, as the API documents.
fn seccomp(profile: Option<&core::SeccompProfile>) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let mut result = v1::SecurityProfile::default();
    result.set_profile_type(match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    });
    result.localhost_ref = profile.and_then(|profile| profile.localhost_profile.clone()).unwrap_or_default();
    result
}

fn apparmor(profile: &core::AppArmorProfile) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let mut result = v1::SecurityProfile::default();
    result.set_profile_type(match profile.type_.as_str() {
        "Localhost" => ProfileType::Localhost,
        "Unconfined" => ProfileType::Unconfined,
        _ => ProfileType::RuntimeDefault,
    });
    result.localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    result
}

fn selinux(options: &core::SELinuxOptions) -> v1::SeLinuxOption {
    let options = options.clone();
    v1::SeLinuxOption {
        user: options.user.unwrap_or_default(),
        role: options.role.unwrap_or_default(),
        r#type: options.type_.unwrap_or_default(),
        level: options.level.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(pod_context: Value, own: Value, image: (Option<i64>, &str)) -> Result<Option<i64>, String> {
        let pod: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": own}]},
        }))
        .unwrap();
        container(&pod, &pod.specification().containers[0], image, None)
            .map(|context| context.run_as_user.map(|user| user.value))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn users() {
        assert_eq!(check(json!({}), json!({}), (Some(7), "")), Ok(Some(7)));
        assert_eq!(check(json!({"runAsUser": 5}), json!({}), (Some(7), "")), Ok(Some(5)));
        assert_eq!(check(json!({"runAsUser": 5}), json!({"runAsUser": 6}), (None, "x")), Ok(Some(6)));
        assert_eq!(check(json!({"runAsNonRoot": true}), json!({}), (Some(7), "")), Ok(Some(7)));
        assert!(
            check(json!({"runAsNonRoot": true}), json!({}), (Some(0), "")).unwrap_err().contains("will run as root")
        );
        assert!(check(json!({"runAsNonRoot": true}), json!({}), (None, "web")).unwrap_err().contains("(web)"));
        assert!(
            check(json!({"runAsUser": 0}), json!({"runAsNonRoot": true}), (Some(7), ""))
                .unwrap_err()
                .contains("breaks")
        );
    }

    #[test]
    fn privileged_sees_everything() {
        let pod: core::Pod = serde_json::from_value(json!({"spec": {"hostPID": true, "containers": [
            {"name": "a", "securityContext": {"privileged": true}}, {"name": "b"}]}}))
        .unwrap();
        let all: Vec<_> =
            pod.specification().containers.iter().map(|c| container(&pod, c, (None, ""), None).unwrap()).collect();
        assert!(all[0].masked_paths.is_empty() && !all[1].masked_paths.is_empty());
        assert_eq!(namespaces(&pod, Some("t")).pid(), v1::NamespaceMode::Node);
    }
}
