//! `NodeRestriction`: a kubelet writes about its own node and its own pods, and nothing else.

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Ticket, service_account::MIRROR};
use crate::{
    authz::node::node_of,
    registry::{meta, read},
};

/// Labels by which nodes are set apart: a node must not give them to itself.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own domains that a kubelet may set.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
];
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io/", "node.kubernetes.io/"];

pub(crate) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        node_of(attributes.user()).is_some()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let Some(node) = node_of(attributes.user()) else { return Ok(None) };
        let resource = &attributes.served.resource;
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "pods") => pods(attributes, object, node).await?,
            ("", "nodes") => nodes(attributes, object, node)?,
            ("coordination.k8s.io", "leases") => named(attributes, node, "lease")?,
            ("storage.k8s.io", "csinodes") => named(attributes, node, "CSINode")?,
            _ => {}
        }
        Ok(None)
    }
}

async fn pods(attributes: &Attributes<'_>, object: Option<&Value>, node: &str) -> Result<(), Status> {
    let of = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_string();
    match (attributes.operation, attributes.subresource.as_str()) {
        (Operation::Create, "") => {
            let Some(pod) = object else { return Ok(()) };
            if pod["metadata"]["annotations"].get(MIRROR).is_none() {
                let name = meta::name(pod);
                return Err(attributes.forbid(format!(
                    "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods ({name})"
                )));
            }
            if of(pod) != node {
                return Err(
                    attributes.forbid(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"))
                );
            }
            owned_by_node(attributes, pod, node).await
        }
        (Operation::Delete, "") | (Operation::Update, "status") | (Operation::Create, "eviction") => {
            let own = attributes.old.is_none_or(|pod| of(pod) == node);
            match own {
                true => Ok(()),
                false => Err(attributes.forbid(format!(
                    "node \"{node}\" can only {} pods with spec.nodeName set to itself",
                    if attributes.operation == Operation::Delete { "delete" } else { "update" }
                ))),
            }
        }
        _ => Err(attributes.forbid(format!(
            "unexpected operation {:?}, node \"{node}\" can only create and delete mirror pods",
            attributes.operation.name()
        ))),
    }
}

/// A mirror pod belongs to its node, or to nobody.
async fn owned_by_node(attributes: &Attributes<'_>, pod: &Value, node: &str) -> Result<(), Status> {
    let owners = pod["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let [owner] = owners.as_slice() else {
        return match owners.len() {
            0 => Ok(()),
            _ => Err(attributes
                .forbid(format!("node \"{node}\" can only create pods with a single owner reference set to itself"))),
        };
    };
    let refers = owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
    let found = read::by_name(attributes.server(), "", "nodes", "", node).await?;
    if !refers || found.is_none_or(|found| owner["uid"] != meta::uid(&found)) {
        return Err(
            attributes.forbid(format!("node \"{node}\" can only create pods with an owner reference set to itself"))
        );
    }
    Ok(())
}

fn nodes(attributes: &Attributes<'_>, object: Option<&Value>, node: &str) -> Result<(), Status> {
    if attributes.name != node {
        return Err(attributes.forbid(format!("node \"{node}\" is not allowed to modify node \"{}\"", attributes.name)));
    }
    let Some(new) = object else { return Ok(()) };
    let labels = |node: Option<&Value>| {
        node.and_then(|node| node["metadata"]["labels"].as_object()).cloned().unwrap_or_default()
    };
    let (now, before) = (labels(Some(new)), labels(attributes.old));
    let mut refused: Vec<&String> = now
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, _)| name)
        .chain(before.keys().filter(|name| !now.contains_key(*name)))
        .filter(|name| !may_set(name))
        .collect();
    if !refused.is_empty() {
        refused.sort();
        let list: Vec<&str> = refused.into_iter().map(String::as_str).collect();
        return Err(attributes.forbid(format!("is not allowed to modify labels: {}", list.join(", "))));
    }
    let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) else { return Ok(()) };
    if new["spec"]["configSource"] != old["spec"]["configSource"] && !new["spec"]["configSource"].is_null() {
        return Err(attributes
            .forbid(format!("node \"{node}\" is not allowed to update configSource to a new non-nil configSource")));
    }
    if attributes.subresource.is_empty() && new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(attributes.forbid(format!("node \"{node}\" is not allowed to modify taints")));
    }
    if new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
        return Err(attributes.forbid(format!("node \"{node}\" is not allowed to modify ownerReferences")));
    }
    Ok(())
}

fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    if domain == RESTRICTED || domain.ends_with(&format!(".{RESTRICTED}")) {
        return false;
    }
    let of_kubernetes =
        ["kubernetes.io", "k8s.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}")));
    !of_kubernetes || OWN_LABELS.contains(&label) || OWN_PREFIXES.iter().any(|prefix| label.starts_with(prefix))
}

fn named(attributes: &Attributes<'_>, node: &str, what: &str) -> Result<(), Status> {
    match attributes.name == node || attributes.name.is_empty() {
        true => Ok(()),
        false => Err(attributes.forbid(format!("can only access {what} with the same name as the requesting node"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_labels_of_its_own_and_of_others_but_not_of_kubernetes() {
        for (label, expect) in [
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/x", true),
            ("example.com/x", true),
            ("plain", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("a.k8s.io/x", false),
        ] {
            assert_eq!(may_set(label), expect, "{label}");
        }
    }
}
