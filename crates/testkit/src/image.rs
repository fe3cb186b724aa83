//! Container images made of this machine's own programs, so that no test needs a registry.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest, Sha256};

/// Writes a docker-archive of an image called `reference` that holds busybox (with a link for each of its applets) and
/// `programs` with the libraries that they load.
pub fn write(archive: &Path, reference: &str, programs: &[&str]) -> io::Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut have = BTreeSet::new();
    for directory in ["bin", "etc", "tmp", "root", "dev", "proc", "sys", "var", "var/www"] {
        let mut header = header(tar::EntryType::Directory, if directory == "tmp" { 0o1777 } else { 0o755 });
        layer.append_data(&mut header, format!("{directory}/"), io::empty())?;
    }
    let files: [(&str, &str); 3] = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "hosts: files dns\n"),
    ];
    for (path, text) in files {
        append(&mut layer, path, text.as_bytes(), 0o644)?;
    }
    let busybox = locate("busybox")?;
    append(&mut layer, "bin/busybox", &std::fs::read(&busybox)?, 0o755)?;
    let applets = Command::new(&busybox).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
        if !programs.contains(&applet) {
            let mut header = header(tar::EntryType::Symlink, 0o777);
            layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
    }
    for program in programs {
        let path = locate(program)?;
        append(&mut layer, &format!("bin/{program}"), &std::fs::read(&path)?, 0o755)?;
        for library in libraries(&path)? {
            if have.insert(library.clone()) {
                let inside = library.strip_prefix("/").unwrap_or(&library).display().to_string();
                append(&mut layer, &inside, &std::fs::read(&library)?, 0o755)?;
            }
        }
    }
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    })
    .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest = json!([{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).to_string();
    let mut out = tar::Builder::new(std::fs::File::create(archive)?);
    append(&mut out, "layer.tar", &layer, 0o644)?;
    append(&mut out, &config_name, config.as_bytes(), 0o644)?;
    append(&mut out, "manifest.json", manifest.as_bytes(), 0o644)?;
    out.into_inner()?.sync_all()
}

fn append<W: io::Write>(archive: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

/// A header of an empty entry that root owns.
fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn locate(program: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {program} on the path")))
}

/// Absolute paths of the shared libraries that a program loads, the loader included.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}
