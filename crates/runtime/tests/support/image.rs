//! A busybox image made on the fly from Debian's static busybox.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "ls", "sleep", "id", "env", "head", "tail", "dd", "grep", "hostname", "nc", "kill", "mount",
    "ps", "true", "false", "stat", "touch", "mkdir", "ip", "test", "stty", "wc", "sed", "readlink", "tty", "unshare",
    "seq", "chmod",
];

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The layer: busybox with links, /etc/passwd and /etc/group.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        match link {
            Some(target) => tar.append_link(&mut header, path, target).unwrap(),
            None => tar.append_data(&mut header, path, content).unwrap(),
        }
    };
    for dir in ["bin", "etc", "tmp", "home/web"] {
        add(dir, tar::EntryType::Directory, if dir == "tmp" { 0o1777 } else { 0o755 }, &[], None);
    }
    let busybox = std::fs::read("/bin/busybox").expect("Debian's busybox-static is installed");
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, None);
    for applet in APPLETS {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"));
    }
    let passwd = b"root:x:0:0:root:/:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n";
    add("etc/passwd", tar::EntryType::Regular, 0o644, passwd, None);
    add("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nweb:x:34:\nlog:x:50:web\n", None);
    tar.into_inner().unwrap()
}

/// Writes what `docker save` would.
pub(crate) fn docker_archive(path: &Path, tag: &str) {
    let layer = layer();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    })
    .to_string();
    let name = format!("{}.json", hex(config.as_bytes()));
    let manifest = serde_json::json!([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).to_string();
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for (name, content) in
        [("layer.tar", layer.as_slice()), (&name, config.as_bytes()), ("manifest.json", manifest.as_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap().flush().unwrap();
}

/// The loopback of a new network namespace is down.
pub(crate) fn loopback_up() {
    let done = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(done.success(), "ip link set lo up");
}
