//! The Node authorizer: a kubelet may read what its own pods need, and write about itself.
//!
//! Secrets, config maps, claims and volumes are readable by a node while a pod that is bound to the node refers to them.
//! The references of all bound pods are kept by object; a pod's removal takes its references with it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::RwLock;
use serde_json::Value;

use super::{Attributes, Decision};
use crate::{
    mirror,
    registry::{meta, read},
    server::Server,
    user::UserInfo,
};

pub(crate) const NODES_GROUP: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// The node that a user is.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty() && user.in_group(NODES_GROUP))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

/// Kind, namespace, name.
type Object = (Kind, String, String);

#[derive(Default)]
pub(crate) struct NodeAuthorizer {
    graph: RwLock<Graph>,
}

#[derive(Default)]
struct Graph {
    /// By pod key: its node and what it refers to.
    pods: HashMap<Arc<str>, (String, Vec<Object>)>,
    /// How many pods of a node refer to an object.
    uses: HashMap<Object, HashMap<String, usize>>,
}

impl Graph {
    fn set(&mut self, key: Arc<str>, pod: Option<&Value>) {
        if let Some((node, objects)) = self.pods.remove(&key) {
            for object in objects {
                self.release(&node, object);
            }
        }
        let Some((node, objects)) = pod.and_then(references) else { return };
        for object in &objects {
            *self.uses.entry(object.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(key, (node, objects));
    }

    fn release(&mut self, node: &str, object: Object) {
        let Some(nodes) = self.uses.get_mut(&object) else { return };
        if let Some(count) = nodes.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.uses.remove(&object);
        }
    }

    fn uses(&self, node: &str, object: &Object) -> bool {
        self.uses.get(object).is_some_and(|nodes| nodes.contains_key(node))
    }
}

/// The node of a pod and the objects that it refers to; `None`: it is not bound.
fn references(pod: &Value) -> Option<(String, Vec<Object>)> {
    let spec = &pod["spec"];
    let node = spec["nodeName"].as_str().filter(|node| !node.is_empty())?.to_string();
    let namespace = meta::namespace(pod).to_string();
    let mut found: HashSet<Object> = HashSet::new();
    let mut add = |kind: Kind, name: &Value| {
        if let Some(name) = name.as_str() {
            found.insert((kind, namespace.clone(), name.to_string()));
        }
    };
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for secret in list(&spec["imagePullSecrets"]) {
        add(Kind::Secret, &secret["name"]);
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[containers]) {
            for variable in list(&container["env"]) {
                add(Kind::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
                add(Kind::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for source in list(&container["envFrom"]) {
                add(Kind::Secret, &source["secretRef"]["name"]);
                add(Kind::ConfigMap, &source["configMapRef"]["name"]);
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        add(Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]);
        if !volume["ephemeral"].is_null() {
            let claim = format!("{}-{}", meta::name(pod), volume["name"].as_str().unwrap_or_default());
            add(Kind::Claim, &claim.into());
        }
        for secret in ["csi", "azureFile", "cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            add(Kind::Secret, &volume[secret]["nodePublishSecretRef"]["name"]);
            add(Kind::Secret, &volume[secret]["secretRef"]["name"]);
        }
        for source in list(&volume["projected"]["sources"]) {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
    }
    for claim in list(&pod["status"]["resourceClaimStatuses"]) {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
    }
    for claim in list(&spec["resourceClaims"]) {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
    }
    Some((node, found.into_iter().collect()))
}

impl NodeAuthorizer {
    /// Follows the stored pods.
    pub(crate) async fn start(server: &Arc<Server>) {
        let own = server.clone();
        mirror::follow(server, "", "pods", move |changes| {
            let mut graph = own.authorizer().nodes.graph.write();
            for change in changes {
                graph.set(change.key, change.object.as_deref());
            }
        })
        .await;
    }

    /// `None`: the user is no node, or the rights that all nodes share (RBAC) are asked for.
    pub(crate) async fn decide(&self, server: &Arc<Server>, wanted: &Attributes) -> Option<Decision> {
        let node = node_of(&wanted.user)?;
        if !wanted.is_resource {
            return shared(wanted);
        }
        let object = |kind| (kind, wanted.namespace.clone(), wanted.name.clone());
        let kind = match (wanted.group.as_str(), wanted.resource.as_str()) {
            ("", "secrets") => Some(Kind::Secret),
            ("", "configmaps") => Some(Kind::ConfigMap),
            ("", "persistentvolumeclaims") if wanted.subresource.is_empty() => Some(Kind::Claim),
            ("resource.k8s.io", "resourceclaims") => Some(Kind::ResourceClaim),
            ("", "serviceaccounts") => Some(Kind::ServiceAccount),
            _ => None,
        };
        if let Some(kind) = kind {
            let reads = matches!(wanted.verb.as_str(), "get" | "list" | "watch");
            let asks_token = kind == Kind::ServiceAccount && wanted.verb == "create" && wanted.subresource == "token";
            if !reads && !asks_token {
                return Some(no("can only read resources of this type"));
            }
            if wanted.name.is_empty() {
                return Some(no("No Object name found"));
            }
            if !asks_token && !wanted.subresource.is_empty() {
                return Some(no("cannot read subresource"));
            }
            // A pod that was bound a moment ago may not have been heard of yet: look once more at the pods themselves.
            if self.graph.read().uses(node, &object(kind)) || looked_up(server, node, &object(kind)).await {
                return Some(Decision::Allowed(String::new()));
            }
            return Some(no(format!("no relationship found between node '{node}' and this object")));
        }
        match (wanted.group.as_str(), wanted.resource.as_str()) {
            ("coordination.k8s.io", "leases") => Some(lease(wanted, node)),
            ("storage.k8s.io", "csinodes") => {
                Some(own_name(wanted, node, &["get", "create", "update", "patch", "delete"]))
            }
            ("resource.k8s.io", "resourceslices") => shared(wanted),
            ("", "persistentvolumes") if wanted.verb == "get" => {
                let bound = read::by_name(server, "", "persistentvolumes", "", &wanted.name).await.ok().flatten();
                let claim = bound.map(|volume| volume["spec"]["claimRef"].clone()).unwrap_or_default();
                let name = |member: &str| claim[member].as_str().unwrap_or_default().to_string();
                let claim = (Kind::Claim, name("namespace"), name("name"));
                match self.graph.read().uses(node, &claim) {
                    true => Some(Decision::Allowed(String::new())),
                    false => Some(no(format!("no relationship found between node '{node}' and this object"))),
                }
            }
            _ => shared(wanted),
        }
    }
}

/// Rights that every node has, whatever runs on it; NodeRestriction narrows the writes.
const SHARED: &[(&str, &[&str], &[&str])] = &[
    ("", &["nodes"], &["create", "get", "list", "watch", "update", "patch", "delete"]),
    ("", &["nodes/status"], &["patch", "update"]),
    ("", &["pods"], &["get", "list", "watch", "create", "delete"]),
    ("", &["pods/status"], &["patch", "update"]),
    ("", &["pods/eviction"], &["create"]),
    ("", &["services"], &["get", "list", "watch"]),
    ("", &["events"], &["create", "patch", "update"]),
    ("events.k8s.io", &["events"], &["create", "patch", "update"]),
    ("", &["persistentvolumes", "persistentvolumeclaims"], &["get"]),
    ("", &["persistentvolumeclaims/status"], &["get", "patch", "update"]),
    ("storage.k8s.io", &["volumeattachments"], &["get"]),
    ("storage.k8s.io", &["csidrivers"], &["get", "list", "watch"]),
    ("node.k8s.io", &["runtimeclasses"], &["get", "list", "watch"]),
    ("authentication.k8s.io", &["tokenreviews"], &["create"]),
    ("authorization.k8s.io", &["subjectaccessreviews", "localsubjectaccessreviews"], &["create"]),
    ("certificates.k8s.io", &["certificatesigningrequests"], &["create", "get", "list", "watch"]),
    ("certificates.k8s.io", &["certificatesigningrequests/selfnodeclient"], &["create"]),
    (
        "resource.k8s.io",
        &["resourceslices"],
        &["create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"],
    ),
];

fn shared(wanted: &Attributes) -> Option<Decision> {
    let resource = wanted.full_resource();
    let allowed = SHARED.iter().any(|(group, resources, verbs)| {
        *group == wanted.group && resources.contains(&&*resource) && verbs.contains(&&*wanted.verb)
    });
    (wanted.is_resource && allowed).then(|| Decision::Allowed(String::new()))
}

/// Kubelets renew the lease of their own node.
fn lease(wanted: &Attributes, node: &str) -> Decision {
    if wanted.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if wanted.verb == "create" {
        return Decision::Allowed(String::new());
    }
    own_name(wanted, node, &["get", "update", "patch", "delete"])
}

fn own_name(wanted: &Attributes, node: &str, verbs: &[&str]) -> Decision {
    if !verbs.contains(&&*wanted.verb) {
        return no(format!("can only {} objects of this type", verbs.join(", ")));
    }
    if wanted.verb != "create" && wanted.name != node {
        return no("can only access the object with the same name as the requesting node");
    }
    Decision::Allowed(String::new())
}

fn no(why: impl Into<String>) -> Decision {
    Decision::Denied(why.into())
}

/// The relationship in the store itself.
async fn looked_up(server: &Arc<Server>, node: &str, object: &Object) -> bool {
    let Ok(pods) = read::all(server, "", "pods", &object.1).await else { return false };
    pods.iter().filter_map(references).any(|(of, objects)| of == node && objects.contains(object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_lends_its_references_while_it_is_bound() {
        let pod = json!({
            "metadata": {"namespace": "a", "name": "p"},
            "spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "s"}}], "containers": []},
        });
        let mut graph = Graph::default();
        let secret = (Kind::Secret, "a".to_string(), "s".to_string());
        graph.set("k".into(), Some(&pod));
        assert!(graph.uses("n1", &secret));
        assert!(!graph.uses("n2", &secret));
        graph.set("k".into(), None);
        assert!(!graph.uses("n1", &secret));
        assert!(graph.uses.is_empty());
    }
}
