//! `cargo xtask test`: everything, in the order in which a failure is cheapest to find.

use anyhow::Result;

use crate::{
    packages,
    run::{run, target},
};

/// Formatting, arrows, unit tests, tests of the real binary.
pub(crate) fn test(filter: &[String]) -> Result<()> {
    packages::ensure(packages::RUNTIME)?;
    packages::ensure(packages::TESTS)?;
    packages::ensure_nextest()?;
    let kubectl = packages::kubectl()?;
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("NAVARCH_TEST_KUBECTL", kubectl) };
    // SAFETY: as above.
    unsafe { std::env::set_var("CARGO_TARGET_DIR", target()) };
    run("cargo", &["fmt", "--all", "--check"])?;
    crate::tidy::tidy()?;
    let mut arguments = vec!["nextest", "run", "--workspace", "--profile", "ci", "--no-tests", "fail"];
    arguments.extend(filter.iter().map(String::as_str));
    run("cargo", &arguments)
}
