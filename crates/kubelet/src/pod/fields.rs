//! `fieldRef` and `resourceFieldRef`: a pod's own fields as text, for environment variables and downward API files.

use std::collections::BTreeMap;

use api::pod_resources::Resources;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::PodExt;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("invalid divisor {0:?} of a resourceFieldRef")]
    Divisor(String),
}

/// What of the node a pod may ask about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    /// Stand-ins for limits that a container does not have.
    pub(crate) allocatable: Resources,
}

/// The text of a field of the pod. `addresses` are the pod's own.
pub(crate) fn field(pod: &core::Pod, path: &str, node: &Node, addresses: &[String]) -> Result<String, Error> {
    let unsupported = || Error::Path(path.to_owned());
    let metadata = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.annotations" => metadata.annotations.as_ref(),
            "metadata.labels" => metadata.labels.as_ref(),
            _ => return Err(unsupported()),
        };
        return Ok(entries.and_then(|entries| entries.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.specification();
    let own = |addresses: &[String], separator: &str| addresses.join(separator);
    let addresses = if pod.is_host_network() { &node.addresses } else { addresses };
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => node.addresses.first().cloned().unwrap_or_default(),
        "status.hostIPs" => own(&node.addresses, ","),
        "status.podIP" => addresses.first().cloned().unwrap_or_default(),
        "status.podIPs" => own(addresses, ","),
        _ => return Err(unsupported()),
    })
}

/// `metadata.labels['key']` to its map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// `key="escaped value"` for each entry, in order of the keys.
fn lines(entries: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        entries.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// A Go string literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(character))),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

/// The amount of a container's resource in units of the divisor, rounded up.
///
/// `default_container` is the one that asks, for environment variables; downward API files must name one.
pub(crate) fn resource(
    pod: &core::Pod,
    selector: &core::ResourceFieldSelector,
    default_container: &str,
    node: &Node,
) -> Result<String, Error> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(default_container);
    let (_, container) = pod.container(name).ok_or_else(|| Error::Container(name.to_owned()))?;
    let unsupported = || Error::Resource(selector.resource.clone());
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let requested = resources.and_then(|resources| resources.requests.as_ref());
    let limited = resources.and_then(|resources| resources.limits.as_ref());
    let known = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    if !known || !matches!(list, "limits" | "requests") {
        return Err(unsupported());
    }
    let amount = |list: Option<&BTreeMap<String, Text>>| -> Option<i64> {
        let resources = Resources::from_list(list?);
        list?.contains_key(resource).then(|| pick(&resources, resource))
    };
    let value = if list == "limits" {
        amount(limited).unwrap_or_else(|| pick(&node.allocatable, resource))
    } else {
        amount(requested).unwrap_or(0)
    };
    let divisor = selector.divisor.as_ref().map_or("", |text| text.0.as_str());
    let divisor = match divisor {
        "" | "0" => None,
        text => Some(text.parse::<Quantity>().map_err(|_| Error::Divisor(text.to_owned()))?),
    };
    let unit = match (resource, &divisor) {
        ("cpu", Some(divisor)) => divisor.milli_value(),
        ("cpu", None) => 1000,
        (_, Some(divisor)) => divisor.value(),
        (_, None) => 1,
    };
    if unit <= 0 {
        return Err(Error::Divisor(selector.divisor.as_ref().map_or_else(String::new, |text| text.0.clone())));
    }
    let rounded_up = value / unit + i64::from(value % unit > 0);
    Ok(rounded_up.to_string())
}

/// Millicores for `cpu`, whole units for everything else.
fn pick(resources: &Resources, name: &str) -> i64 {
    match name {
        "cpu" => resources.cpu_millis,
        "memory" => resources.memory_bytes,
        "ephemeral-storage" => resources.ephemeral_bytes,
        other => resources.other.get(other).copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b/c": "x\"\ny"}},
            "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m"}, "requests": {"cpu": "250m", "memory": "64Mi"}}}]},
        }))
        .unwrap()
    }

    fn node() -> Node {
        Node {
            name: "node".into(),
            addresses: vec!["192.0.2.1".into()],
            allocatable: Resources { cpu_millis: 4000, memory_bytes: 1 << 30, ..Resources::default() },
        }
    }

    #[test]
    fn fields() {
        let addresses = ["10.0.0.9".to_owned(), "fd00::9".to_owned()];
        for (path, expect) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"1\"\nb/c=\"x\\\"\\ny\"")),
            ("metadata.labels['b/c']", Ok("x\"\ny")),
            ("metadata.annotations['none']", Ok("")),
            ("spec.nodeName", Ok("node")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.hostIP", Ok("192.0.2.1")),
            ("status.podIP", Ok("10.0.0.9")),
            ("status.podIPs", Ok("10.0.0.9,fd00::9")),
            ("spec.hostname", Err(Error::Path("spec.hostname".into()))),
        ] {
            assert_eq!(field(&pod(), path, &node(), &addresses), expect.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources() {
        for (resource_name, divisor, expect) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("limits.memory", Some("1Mi"), "1024"),
            ("requests.memory", None, "67108864"),
            ("requests.memory", Some("0"), "67108864"),
            ("requests.ephemeral-storage", None, "0"),
        ] {
            let selector = core::ResourceFieldSelector {
                resource: resource_name.into(),
                divisor: divisor.map(|text| Text(text.into())),
                container_name: None,
            };
            assert_eq!(resource(&pod(), &selector, "c", &node()).as_deref(), Ok(expect), "{resource_name} {divisor:?}");
        }
        let selector = core::ResourceFieldSelector { resource: "limits.gpu".into(), ..Default::default() };
        assert_eq!(resource(&pod(), &selector, "c", &node()), Err(Error::Resource("limits.gpu".into())));
    }
}
