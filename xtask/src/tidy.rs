//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that a machine can check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{output, root};

/// What each crate may depend on inside the house, directly. `testkit` may only be a dev-dependency.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("streaming", &[]),
    ("client", &["api"]),
    ("apiserver", &["api", "store", "streaming"]),
    ("controllers", &["client", "api"]),
    ("scheduler", &["client", "api"]),
    ("runtime", &["streaming"]),
    ("kubelet", &["client", "api", "streaming"]),
    ("network", &["client", "api"]),
    ("dns", &["client", "api"]),
    ("cli", &["runtime", "client", "api"]),
    (
        "node",
        &["api", "store", "apiserver", "client", "controllers", "scheduler", "runtime", "kubelet", "network", "dns"],
    ),
    ("testkit", &["api", "store", "apiserver", "client"]),
    ("navarch", &["node", "cli", "runtime"]),
    ("xtask", &[]),
];

/// Crates of the outside world that a crate must not depend on, with the invariant that says so.
const BANNED: &[(&str, &str, &str)] = &[
    ("api", "tokio", "api is pure"),
    ("api", "hyper", "api is pure"),
    ("store", "k8s-openapi", "store knows no kind"),
    ("store", "serde_json", "store knows no kind"),
    ("runtime", "k8s-openapi", "runtime knows nothing of Kubernetes"),
    ("runtime", "kube", "runtime knows nothing of Kubernetes"),
];

/// Nobody wants to open a longer file.
const LINES_MAX: usize = 800;

pub(crate) fn tidy() -> Result<()> {
    let mut complaints = arrows()?;
    complaints.extend(long_files()?);
    complaints.extend(words()?);
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{} complaints:\n  {}", complaints.len(), complaints.join("\n  "))
}

fn arrows() -> Result<Vec<String>> {
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let mut complaints = Vec::new();
    let short = |name: &str| name.strip_prefix("navarch-").unwrap_or(name).to_string();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or_default());
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            complaints.push(format!("crate {name} is not in the table of arrows (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let full = dependency["name"].as_str().unwrap_or_default();
            let dev = dependency["kind"] == "dev";
            let theirs = short(full);
            let ours = ARROWS.iter().any(|(known, _)| *known == theirs) && !dependency["path"].is_null();
            if ours && !dev && !allowed.contains(&theirs.as_str()) {
                complaints.push(format!("{name} -> {theirs} is no arrow of ARCHITECTURE.md"));
            }
            if let Some((_, _, why)) =
                BANNED.iter().find(|(crate_, banned, _)| *crate_ == name && *banned == full && !dev)
            {
                complaints.push(format!("{name} must not depend on {full}: {why}"));
            }
        }
    }
    Ok(complaints)
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn all_sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in ["crates", "xtask"] {
        sources(&root().join(directory), &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn long_files() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in all_sources()? {
        let lines = fs::read_to_string(&path)?.lines().count();
        if lines > LINES_MAX {
            complaints.push(format!("{} has {lines} lines; split it by idea", path.display()));
        }
    }
    Ok(complaints)
}

/// Things that must not be in the sources.
fn words() -> Result<Vec<String>> {
    // Written apart, so that this file does not find itself.
    let forbidden =
        [concat!("#[", "ignore"), concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME")];
    let mut complaints = BTreeSet::new();
    for path in all_sources()? {
        let text = fs::read_to_string(&path)?;
        for (number, line) in text.lines().enumerate() {
            if forbidden.iter().any(|word| line.contains(word)) {
                complaints.insert(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    Ok(complaints.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_arrows_has_no_cycle() {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        while done.len() < ARROWS.len() {
            let before = done.len();
            for (name, needs) in ARROWS {
                if needs.iter().all(|need| done.contains(need)) {
                    done.insert(name);
                }
            }
            assert!(done.len() > before, "a cycle among {:?}", ARROWS.iter().filter(|(name, _)| !done.contains(name)));
        }
    }

    #[test]
    fn the_house_is_tidy() {
        tidy().unwrap();
    }
}
