//! `/version`.

use serde_json::{Value, json};

use crate::{
    discovery,
    pipeline::{answer::Answer, call::Call},
};

/// The API's version; clients parse the part before the plus sign.
pub const GIT_VERSION: &str = concat!("v1.36.2+navarch.", env!("CARGO_PKG_VERSION"));

/// `version.Info`.
pub(crate) fn info() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The architecture by the name that Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn handle(call: &Call) -> Answer {
    discovery::json_document(call, &info())
}
