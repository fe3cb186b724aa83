//! `cargo xtask bench`: what the release binary costs and how fast it is, on a host of its own.

use anyhow::Result;

use crate::{
    packages,
    run::{run, target},
};

/// Builds the release binary and the bench, and runs it; `flags`: seconds of the idle measurement (30).
pub(crate) fn bench(flags: &[String]) -> Result<()> {
    packages::ensure(packages::RUNTIME)?;
    packages::ensure(packages::TESTS)?;
    let kubectl = packages::kubectl()?;
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("NAVARCH_TEST_KUBECTL", kubectl) };
    run("cargo", &["build", "--release", "--package", "navarch"])?;
    run("cargo", &["build", "--package", "navarch-testkit", "--example", "bench"])?;
    let out = target().join("bench.json").display().to_string();
    let binary = target().join("release/navarch").display().to_string();
    let bench = target().join("debug/examples/bench").display().to_string();
    let mut arguments = vec![out.as_str(), binary.as_str()];
    arguments.extend(flags.iter().map(String::as_str));
    run(&bench, &arguments)
}
