//! The environment of a container.
//!
//! Order: Services of the namespace (least wins), `envFrom`, `env`; a later entry replaces an earlier one of the same
//! name. `$(NAME)` in values, commands and arguments refers to what came before.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1 as core;

use super::PodExt;
use super::fields::{self, Node};
use crate::objects::{self, Objects};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} \"{name}\" not found")]
    NotFound { what: &'static str, name: String },
    #[error("couldn't find key {key} in {what} {namespace}/{name}")]
    NoKey { what: &'static str, namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in file {path} of volume {volume}")]
    NoFileKey { key: String, path: String, volume: String },
    #[error("volume {0} of a fileKeyRef is no emptyDir of this pod")]
    NoVolume(String),
    #[error(transparent)]
    Field(#[from] fields::Error),
    #[error(transparent)]
    Objects(#[from] objects::Error),
}

/// Where a container's variables come from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a core::Pod,
    pub(crate) container: &'a core::Container,
    pub(crate) node: &'a Node,
    /// Addresses of the pod.
    pub(crate) addresses: &'a [String],
    pub(crate) objects: &'a Objects,
    /// Variables for the Services that the pod may know.
    pub(crate) services: BTreeMap<String, String>,
    /// Host directory of each emptyDir.
    pub(crate) directories: &'a (dyn Fn(&str) -> Option<std::path::PathBuf> + Sync),
}

/// Every variable with its value, in a stable order.
pub(crate) async fn environment(from: &Sources<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut result = BTreeMap::new();
    for source in from.container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in imported(from, source).await? {
            result.insert(format!("{prefix}{key}"), value);
        }
    }
    for variable in from.container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, &|name| result.get(name).or_else(|| from.services.get(name)).cloned()))
            }
            (_, Some(source)) => referred(from, source).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            result.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in &from.services {
        result.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(result)
}

async fn imported(from: &Sources<'_>, source: &core::EnvFromSource) -> Result<BTreeMap<String, String>, Error> {
    let namespace = from.pod.namespace();
    if let Some(reference) = &source.config_map_ref {
        let Some(map) = from.objects.get::<core::ConfigMap>(namespace, &reference.name).await? else {
            return absent(reference.optional, "configmap", &reference.name).map(|()| BTreeMap::new());
        };
        return Ok(map.data.clone().unwrap_or_default());
    }
    if let Some(reference) = &source.secret_ref {
        let Some(secret) = from.objects.get::<core::Secret>(namespace, &reference.name).await? else {
            return absent(reference.optional, "secret", &reference.name).map(|()| BTreeMap::new());
        };
        let data = secret.data.iter().flatten();
        return Ok(data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect());
    }
    Ok(BTreeMap::new())
}

fn absent(optional: Option<bool>, what: &'static str, name: &str) -> Result<(), Error> {
    if optional == Some(true) { Ok(()) } else { Err(Error::NotFound { what, name: name.to_owned() }) }
}

/// The value that a variable refers to; `None` for an optional one that is not there.
async fn referred(from: &Sources<'_>, source: &core::EnvVarSource) -> Result<Option<String>, Error> {
    let namespace = from.pod.namespace();
    if let Some(reference) = &source.field_ref {
        return Ok(Some(fields::field(from.pod, &reference.field_path, from.node, from.addresses)?));
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(fields::resource(from.pod, reference, &from.container.name, from.node)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = from.objects.get::<core::ConfigMap>(namespace, &reference.name).await? else {
            return absent(reference.optional, "configmap", &reference.name).map(|()| None);
        };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        return keyed(value, reference.optional, "ConfigMap", namespace, &reference.name, &reference.key);
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = from.objects.get::<core::Secret>(namespace, &reference.name).await? else {
            return absent(reference.optional, "secret", &reference.name).map(|()| None);
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let value = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
        return keyed(value, reference.optional, "Secret", namespace, &reference.name, &reference.key);
    }
    if let Some(reference) = &source.file_key_ref {
        return from_file(from, reference);
    }
    Ok(Some(String::new()))
}

fn keyed(
    value: Option<String>,
    optional: Option<bool>,
    what: &'static str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, Error> {
    if value.is_none() && optional != Some(true) {
        let (namespace, name, key) = (namespace.to_owned(), name.to_owned(), key.to_owned());
        return Err(Error::NoKey { what, namespace, name, key });
    }
    Ok(value)
}

/// A variable from a file of `NAME=value` lines that an init container wrote to an emptyDir.
fn from_file(from: &Sources<'_>, reference: &core::FileKeySelector) -> Result<Option<String>, Error> {
    let root =
        (from.directories)(&reference.volume_name).ok_or_else(|| Error::NoVolume(reference.volume_name.clone()))?;
    let text = read_within(&root, &reference.path).unwrap_or_default();
    let value =
        text.lines().filter_map(|line| line.trim().split_once('=')).find(|(key, _)| key.trim() == reference.key);
    let value = value.map(|(_, value)| {
        let value = value.trim();
        let unquoted = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let unquoted = unquoted.or_else(|| value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')));
        unquoted.unwrap_or(value).to_owned()
    });
    if value.is_none() && reference.optional != Some(true) {
        return Err(Error::NoFileKey {
            key: reference.key.clone(),
            path: reference.path.clone(),
            volume: reference.volume_name.clone(),
        });
    }
    Ok(value)
}

/// Reads a file that a container wrote, never leaving `root` through a link.
fn read_within(root: &Path, relative: &str) -> std::io::Result<String> {
    let path = root.join(relative).canonicalize()?;
    if !path.starts_with(root.canonicalize()?) {
        return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    }
    std::fs::read_to_string(path)
}

/// Replaces `$(NAME)` by what `lookup` knows; unknown names stay, `$$` is one dollar.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Variables in the manner of container links for every Service with a cluster address.
///
/// `kubernetes.default` is known to all pods; the Services of the namespace only when `links` is set.
pub(crate) fn services<'a>(
    all: impl Iterator<Item = &'a core::Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: Vec<&core::Service> = all
        .filter(|service| {
            let (of, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
            let master = of == Some("default") && name == Some("kubernetes");
            master || (links && of == Some(namespace))
        })
        .collect();
    // The namespace's own `kubernetes` wins over the default one.
    chosen.sort_by_key(|service| {
        (service.metadata.namespace.as_deref() == Some(namespace), service.metadata.name.clone())
    });
    let mut result = BTreeMap::new();
    for service in chosen {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let ports: Vec<&core::ServicePort> = spec.ports.iter().flatten().collect();
        let Some(first) = ports.first() else { continue };
        let prefix = service.metadata.name.as_deref().unwrap_or_default().to_uppercase().replace('-', "_");
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut set = |name: String, value: String| result.insert(name, value);
        set(format!("{prefix}_SERVICE_HOST"), address.to_owned());
        set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in &ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let name = name.to_uppercase().replace('-', "_");
                set(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
            }
        }
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                set(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{}_{protocol}", port.port);
            set(base.clone(), url);
            set(format!("{base}_PROTO"), protocol.to_lowercase());
            set(format!("{base}_PORT"), port.port.to_string());
            set(format!("{base}_ADDR"), address.to_owned());
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expansion() {
        let known = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expect) in [
            ("x$(A)y", "x1y"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("end$", "end$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, &known), expect, "{text}");
        }
    }

    #[test]
    fn service_variables() {
        let services: Vec<core::Service> = serde_json::from_value(json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"},
             "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]}},
            {"metadata": {"name": "web-1", "namespace": "n"},
             "spec": {"clusterIP": "fd00::2", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}},
            {"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}},
            {"metadata": {"name": "other", "namespace": "m"}, "spec": {"clusterIP": "10.0.0.3", "ports": [{"port": 80}]}},
        ]))
        .unwrap();
        let all = super::services(services.iter(), "n", true);
        assert_eq!(all.get("KUBERNETES_SERVICE_PORT_HTTPS").map(String::as_str), Some("443"));
        assert_eq!(all.get("WEB_1_PORT_53_UDP").map(String::as_str), Some("udp://[fd00::2]:53"));
        assert_eq!(all.get("WEB_1_PORT").map(String::as_str), Some("tcp://[fd00::2]:80"));
        assert!(!all.keys().any(|name| name.starts_with("HEADLESS") || name.starts_with("OTHER")));
        let unlinked = super::services(services.iter(), "n", false);
        assert!(unlinked.keys().all(|name| name.starts_with("KUBERNETES")) && !unlinked.is_empty());
    }
}
