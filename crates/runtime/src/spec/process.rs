//! The process part: command, environment, user, capabilities.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BORROWED, Error, Inputs};
use crate::cri;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container may without being asked: enough for ordinary software, as all runtimes have it.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every name that may be asked for.
const ALL_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The process of a container, and what it borrows.
pub(super) fn process(inputs: &Inputs<'_>) -> Result<(Value, Vec<String>), Error> {
    let (config, image) = (inputs.config, &inputs.image.config);
    let security = inputs.security();
    let user = super::user::resolve(&security, &image.user, inputs.view)?;
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
    let cwd = cwd.map_or("/", String::as_str);
    let cwd = if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") };
    let mut process = json!({
        "terminal": config.tty,
        "user": user,
        "args": command(config, image)?,
        "env": environment(inputs),
        "cwd": cwd,
    });
    if security.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    let asked = security.capabilities.unwrap_or_default();
    let bounding =
        capabilities(inputs.available, security.privileged, &asked.add_capabilities, &asked.drop_capabilities)?;
    let ambient = capability_names(&asked.add_ambient_capabilities)?;
    let borrowed: Vec<String> = match inputs.seccomp && !security.no_new_privs {
        true => BORROWED.iter().map(|name| (*name).to_owned()).filter(|name| !bounding.contains(name)).collect(),
        false => Vec::new(),
    };
    let held: BTreeSet<&String> = bounding.iter().chain(&borrowed).collect();
    // Only what the process is to hand on without a file's help is inheritable; the rest would be lent to any user.
    process["capabilities"] = json!({
        "bounding": held, "effective": held, "permitted": held, "inheritable": ambient, "ambient": ambient,
    });
    Ok((process, borrowed))
}

/// An exec's process: the container's own, with another command.
pub(crate) fn exec(container: &Value, command: &[String], tty: bool) -> Result<Value, Error> {
    if command.is_empty() {
        return Err(Error::NoCommand);
    }
    let mut process = container["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if tty
        && let Some(env) = process["env"].as_array_mut()
        && !env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    Ok(process)
}

fn command(config: &cri::ContainerConfig, image: &crate::images::manifest::Process) -> Result<Vec<String>, Error> {
    let (mut command, mut args) = (config.command.clone(), config.args.clone());
    if command.is_empty() {
        command = image.entrypoint.clone();
        if args.is_empty() {
            args = image.cmd.clone();
        }
    }
    command.append(&mut args);
    if command.first().is_none_or(String::is_empty) { Err(Error::NoCommand) } else { Ok(command) }
}

fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut env: Vec<String> = vec![PATH.to_owned(), format!("HOSTNAME={}", inputs.hostname)];
    if inputs.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    // A process can have any bytes in its environment, a specification (JSON) only text.
    let asked = inputs.config.envs.iter().map(|pair| format!("{}={}", pair.key, String::from_utf8_lossy(&pair.value)));
    for entry in inputs.image.config.env.iter().cloned().chain(asked) {
        let key = entry.split('=').next().unwrap_or_default().to_owned();
        let same = |known: &String| known.split('=').next() == Some(&key);
        match env.iter_mut().find(|known| same(known)) {
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    }
    env
}

fn capability_names(names: &[String]) -> Result<BTreeSet<String>, Error> {
    names
        .iter()
        .map(|name| {
            let plain = name.to_uppercase();
            let plain = plain.strip_prefix("CAP_").unwrap_or(&plain);
            match ALL_CAPABILITIES.contains(&plain) {
                true => Ok(format!("CAP_{plain}")),
                false => Err(Error::Invalid(format!("unknown capability {name:?}"))),
            }
        })
        .collect()
}

/// `ALL` is added first and dropped first, so single names refine it.
fn capabilities(
    available: &BTreeSet<String>,
    privileged: bool,
    add: &[String],
    drop: &[String],
) -> Result<BTreeSet<String>, Error> {
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let but_all = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !name.eq_ignore_ascii_case("all")).cloned().collect()
    };
    let prefixed = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| format!("CAP_{name}")).collect() };
    if privileged {
        return Ok(available.clone());
    }
    let mut set = if all(add) { available.clone() } else { prefixed(DEFAULT_CAPABILITIES) };
    if all(drop) {
        set.clear();
    }
    set.extend(capability_names(&but_all(add))?);
    for name in capability_names(&but_all(drop))? {
        set.remove(&name);
    }
    Ok(set)
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` and CRI's `SIGRTMINPLUS3` as a number.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = name.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name).replace("PLUS", "+").replace("MINUS", "-");
    match name.as_str() {
        "RTMIN" => return Some(34),
        "RTMAX" => return Some(64),
        "CLD" => return Some(17),
        "IOT" => return Some(6),
        "POLL" => return Some(29),
        _ => {}
    }
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset.parse::<i32>().ok().map(|offset| 34 + offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-") {
        return offset.parse::<i32>().ok().map(|offset| 64 - offset);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (name, expect) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMINPLUS3", Some(37)),
            ("SIGRTMAXMINUS1", Some(63)),
            ("SIGNOPE", None),
            ("0", None),
        ] {
            assert_eq!(signal_number(name), expect, "{name}");
        }
    }

    #[test]
    fn capability_arithmetic() {
        let set = |add: &[&str], drop: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let available = ALL_CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
            capabilities(&available, false, &own(add), &own(drop))
        };
        assert_eq!(set(&[], &[]).unwrap().len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]).unwrap(), BTreeSet::from(["CAP_NET_ADMIN".to_owned()]));
        assert_eq!(set(&["ALL"], &["KILL"]).unwrap().len(), ALL_CAPABILITIES.len() - 1);
        assert!(set(&["FLY"], &[]).is_err());
    }
}
