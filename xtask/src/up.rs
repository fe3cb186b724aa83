//! `cargo xtask up`: from a clone to a running cluster.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

use crate::{
    packages,
    run::{run, target},
};

/// Builds the release binary, installs what it calls, and becomes `navarch server`.
pub(crate) fn up(flags: &[String]) -> Result<()> {
    if !flags.iter().any(|flag| flag == "--disable-agent") {
        packages::ensure(packages::RUNTIME)?;
    }
    run("cargo", &["build", "--release", "--package", "navarch"])?;
    let binary = target().join("release/navarch");
    let error = Command::new(&binary).arg("server").args(flags).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}
