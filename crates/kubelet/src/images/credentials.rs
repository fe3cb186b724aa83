//! Registry credentials from pull secrets: which of them are for an image.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;

use crate::cri::v1::AuthConfig;

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

#[derive(Debug, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// Credentials of `secrets` for `image`, the most specific registry path first. Secrets that do not parse are skipped.
pub(crate) fn for_image(image: &str, secrets: &[std::sync::Arc<core::Secret>]) -> Vec<AuthConfig> {
    let repository = repository(image);
    let mut matching: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (registry, entry) in entries(secret) {
            if matches(&registry, &repository) {
                let length = strip(&registry).len();
                matching.extend(auth(&registry, entry).map(|auth| (length, auth)));
            }
        }
    }
    matching.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    matching.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &core::Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let modern = data(".dockerconfigjson").and_then(|bytes| serde_json::from_slice::<DockerConfig>(bytes).ok());
    let modern = modern.map(|config| config.auths);
    modern.or_else(|| data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok())).unwrap_or_default()
}

fn auth(registry: &str, entry: Entry) -> Option<AuthConfig> {
    let mut auth = AuthConfig {
        username: entry.username,
        password: entry.password,
        server_address: strip(registry).to_owned(),
        identity_token: entry.identity_token,
        registry_token: entry.registry_token,
        ..Default::default()
    };
    if auth.username.is_empty() && !entry.auth.is_empty() {
        let text = String::from_utf8(STANDARD.decode(entry.auth.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        (auth.username, auth.password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    Some(auth)
}

/// Host and path of an image, without tag and digest: `docker.io/library/busybox`.
fn repository(image: &str) -> String {
    let named = image.split('@').next().unwrap_or_default();
    let slash = named.rfind('/').map_or(0, |at| at + 1);
    let named = named[slash..].find(':').map_or(named, |colon| &named[..slash + colon]);
    let first = named.split('/').next().unwrap_or_default();
    let has_host = named.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match (has_host, named.contains('/')) {
        (true, _) => named.to_owned(),
        (false, true) => format!("docker.io/{named}"),
        (false, false) => format!("docker.io/library/{named}"),
    }
}

fn strip(registry: &str) -> &str {
    let bare = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == "index.docker.io" { "docker.io" } else { bare }
}

/// A registry entry is for an image whose host it names (`*` for one label) and whose path it begins.
fn matches(registry: &str, repository: &str) -> bool {
    let registry = strip(registry);
    let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
    let (image_host, image_path) = repository.split_once('/').unwrap_or((repository, ""));
    let labels: Vec<&str> = host.split('.').collect();
    let image_labels: Vec<&str> = image_host.split('.').collect();
    let label = |(pattern, text): (&&str, &&str)| match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    };
    let below =
        image_path.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'));
    labels.len() == image_labels.len() && labels.iter().zip(&image_labels).all(label) && below
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_path_comes_first() {
        let config = json!({"auths": {
            "reg.example": {"username": "a", "password": "1"},
            "https://reg.example/team": {"auth": STANDARD.encode("b:2:3")},
            "https://index.docker.io/v1/": {"username": "hub", "password": "h"},
            "*.corp.example": {"username": "wild", "password": "w"},
        }});
        let data = json!({".dockerconfigjson": STANDARD.encode(config.to_string())});
        let secret: core::Secret = serde_json::from_value(json!({"data": data})).unwrap();
        let legacy = json!({".dockercfg": STANDARD.encode(json!({"old.example": {"username": "o", "password": "p"}}).to_string())});
        let legacy: core::Secret = serde_json::from_value(json!({"data": legacy})).unwrap();
        let secrets = [Arc::new(secret), Arc::new(legacy)];
        let users = |image: &str| -> Vec<String> {
            for_image(image, &secrets).into_iter().map(|auth| format!("{}:{}", auth.username, auth.password)).collect()
        };
        assert_eq!(users("reg.example/team/app:1"), ["b:2:3", "a:1"]);
        assert_eq!(users("reg.example/teammate/app"), ["a:1"]);
        assert_eq!(users("busybox"), ["hub:h"]);
        assert_eq!(users("x.corp.example/a"), ["wild:w"]);
        assert_eq!(users("old.example/a@sha256:00"), ["o:p"]);
        assert!(users("y.x.corp.example/a").is_empty());
    }
}
