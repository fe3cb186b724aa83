//! Rules of security contexts.

use super::volume::descending_path;
use crate::validation::{
    field::{Errors, Field},
    names,
};

const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The pod's `securityContext`, and what excludes each other in the spec.
pub(super) fn of_pod(errors: &mut Errors, spec: &Field<'_>) {
    let context = &spec.get("securityContext");
    ids(errors, context, &["fsGroup", "runAsUser", "runAsGroup"]);
    let groups = &context.get("supplementalGroups");
    for group in groups.items() {
        group.judge(errors, names::in_range(group.int().unwrap_or(0), 0, ID_MAX));
    }
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        let share = Field::root(spec.get("shareProcessNamespace").value());
        errors.push(crate::status::FieldError::invalid(
            format!("{}.shareProcessNamespace", context.path()),
            share.value().clone(),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    sysctls(errors, &context.get("sysctls"));
    let known: [(&str, &[&str]); 3] = [
        ("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &["Recursive"]),
    ];
    for (name, known) in known {
        let policy = context.get(name);
        if policy.exists() {
            policy.one_of(errors, known);
        }
    }
    profiles(errors, context);
    if spec.get("hostUsers").value().as_bool() == Some(false) {
        for (name, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.get(name).is_true() {
                errors.push(spec.get(shown).forbidden("when `hostUsers` is false"));
            }
        }
    }
}

/// A container's `securityContext`.
pub(super) fn of_container(errors: &mut Errors, context: &Field<'_>, host_users: bool) {
    if !context.exists() {
        return;
    }
    ids(errors, context, &["runAsUser", "runAsGroup"]);
    let mount = context.get("procMount");
    if mount.exists() {
        mount.one_of(errors, &["Default", "Unmasked"]);
        if host_users && mount.str() == "Unmasked" {
            errors.push(mount.invalid("`hostUsers` must be false to use `Unmasked`"));
        }
    }
    if context.get("allowPrivilegeEscalation").value().as_bool() == Some(false) {
        if context.get("privileged").is_true() {
            errors.push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
        }
        if context.get("capabilities.add").list().iter().any(|name| name == "CAP_SYS_ADMIN") {
            errors.push(
                context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"),
            );
        }
    }
    profiles(errors, context);
}

fn ids(errors: &mut Errors, context: &Field<'_>, members: &[&str]) {
    for name in members {
        let id = context.get(name);
        if let Some(number) = id.int() {
            id.judge(errors, names::in_range(number, 0, ID_MAX));
        }
    }
}

/// Seccomp and AppArmor profiles: a known type, and a path exactly for `Localhost`.
fn profiles(errors: &mut Errors, context: &Field<'_>) {
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    let seccomp = &context.get("seccompProfile");
    if seccomp.exists() {
        let (kind, path) = (seccomp.get("type"), seccomp.get("localhostProfile"));
        if kind.is_empty() {
            errors.push(kind.required("type is required when seccompProfile is set"));
        } else {
            kind.one_of(errors, TYPES);
        }
        match (kind.str() == "Localhost", path.exists()) {
            (true, false) => errors.push(path.required("must be set when seccomp type is Localhost")),
            (true, true) => descending_path(errors, &path),
            (false, true) => errors
                .push(path.invalid_value(seccomp.value().clone(), "can only be set when seccomp type is Localhost")),
            (false, false) => {}
        }
    }
    let armor = &context.get("appArmorProfile");
    if armor.exists() {
        let (kind, path) = (armor.get("type"), armor.get("localhostProfile"));
        if kind.is_empty() {
            errors.push(kind.required("type is required when appArmorProfile is set"));
        } else {
            kind.one_of(errors, TYPES);
        }
        match (kind.str() == "Localhost", path.exists()) {
            (true, _) if path.is_empty() => {
                errors.push(path.required("must be set when AppArmor type is Localhost"));
            }
            (false, true) => errors.push(path.invalid("can only be set when AppArmor type is Localhost")),
            _ => {}
        }
    }
}

fn sysctls(errors: &mut Errors, sysctls: &Field<'_>) {
    let well_formed = |name: &str| {
        name.len() <= SYSCTL_BYTES_MAX
            && name.split(['.', '/']).all(|part| {
                let edge =
                    |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                let bytes = part.as_bytes();
                edge(bytes.first())
                    && edge(bytes.last())
                    && bytes.iter().all(|byte| edge(Some(byte)) || matches!(byte, b'-' | b'_'))
            })
    };
    for (index, sysctl) in sysctls.items().enumerate() {
        let name = sysctl.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !well_formed(name.str()) {
            errors.push(
                name.invalid(format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL}")),
            );
        } else if sysctls.list()[..index].iter().any(|other| other["name"] == *name.value()) {
            errors.push(name.duplicate());
        }
    }
}
