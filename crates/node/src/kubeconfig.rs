//! Kubeconfig files: how to reach the API, and as whom.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::pki::Pair;

/// The text of a kubeconfig with one cluster, one user and one context, all called `navarch`.
pub fn render(server: &str, authority: &str, client: &Pair) -> String {
    // JSON is YAML; clients read both.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "navarch", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": "navarch", "user": {
            "client-certificate-data": STANDARD.encode(&client.certificate),
            "client-key-data": STANDARD.encode(&client.key),
        }}],
        "contexts": [{"name": "navarch", "context": {"cluster": "navarch", "user": "navarch"}}],
        "current-context": "navarch",
    });
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}
