//! The cluster as the scheduler sees it: nodes with what is placed on them, kept up to date by events.
//!
//! A snapshot is a vector of shared [`NodeInfo`]s; an update copies only a node that a snapshot still holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use api::pod_resources::{self, Resources};
use client::Key;
use k8s_openapi::api::core::v1::{Affinity, Node, Pod, Taint};

use crate::selectors::Term;

/// A pod with everything that plugins ask of it, computed once.
#[derive(Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) priority: i32,
    pub(crate) requests: Resources,
    /// Host ports: (address, protocol, port); an empty address is all of them.
    pub(crate) host_ports: Vec<(String, String, i32)>,
    pub(crate) affinity: Terms,
    pub(crate) anti_affinity: Terms,
}

/// Pod (anti-)affinity terms.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub(crate) required: Vec<Term>,
    /// With their weights.
    pub(crate) preferred: Vec<(i64, Term)>,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let key = Key::of(&*pod);
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.affinity.as_ref());
        let host_ports = spec
            .into_iter()
            .flat_map(|spec| {
                let sidecars = spec
                    .init_containers
                    .iter()
                    .flatten()
                    .filter(|container| container.restart_policy.as_deref() == Some("Always"));
                spec.containers.iter().chain(sidecars)
            })
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                let host_port = port.host_port.filter(|port| *port > 0)?;
                let address = port.host_ip.clone().filter(|ip| ip != "0.0.0.0" && ip != "::").unwrap_or_default();
                Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".into()), host_port))
            })
            .collect();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or_default(),
            requests: pod_resources::requests(&pod),
            host_ports,
            affinity: affinity_terms(affinity, &pod),
            anti_affinity: anti_affinity_terms(affinity, &pod),
            key,
            pod,
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub(crate) fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Ended pods hold nothing on their node.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
    }
}

fn affinity_terms(affinity: Option<&Affinity>, pod: &Pod) -> Terms {
    let Some(affinity) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) else { return Terms::default() };
    Terms {
        required: Term::all(affinity.required_during_scheduling_ignored_during_execution.as_deref(), pod),
        preferred: Term::weighted(affinity.preferred_during_scheduling_ignored_during_execution.as_deref(), pod),
    }
}

fn anti_affinity_terms(affinity: Option<&Affinity>, pod: &Pod) -> Terms {
    let Some(affinity) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) else {
        return Terms::default();
    };
    Terms {
        required: Term::all(affinity.required_during_scheduling_ignored_during_execution.as_deref(), pod),
        preferred: Term::weighted(affinity.preferred_during_scheduling_ignored_during_execution.as_deref(), pod),
    }
}

/// A node and the pods on it.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub(crate) node: Arc<Node>,
    pub(crate) name: String,
    pub(crate) allocatable: Resources,
    /// `status.allocatable.pods`.
    pub(crate) pods_max: i64,
    pub(crate) requested: Resources,
    pub(crate) pods: Vec<Arc<PodInfo>>,
}

impl NodeInfo {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            node: Arc::clone(&node),
            allocatable: Resources::default(),
            pods_max: 0,
            requested: Resources::default(),
            pods: Vec::new(),
        };
        info.set_node(node);
        info
    }

    fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let list = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.allocatable = list.map(Resources::from_list).unwrap_or_default();
        self.pods_max = self.allocatable.other.get("pods").copied().unwrap_or(0);
        self.node = node;
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.pods.push(pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let index = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.swap_remove(index);
        self.requested.subtract(&pod.requests);
        Some(pod)
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub(crate) fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }
}

/// Nodes by name, and where each placed pod is.
#[derive(Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    placed: HashMap<String, String>,
    /// Pods placed on nodes that are not known (yet).
    homeless: HashMap<String, Vec<Arc<PodInfo>>>,
    nominated: HashMap<String, (String, Arc<PodInfo>)>,
}

impl Cluster {
    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let homeless = self.homeless.remove(&name);
        let info = self.nodes.entry(name).or_insert_with(|| Arc::new(NodeInfo::new(Arc::clone(&node))));
        let info = Arc::make_mut(info);
        info.set_node(node);
        for pod in homeless.into_iter().flatten() {
            info.add(pod);
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.homeless.insert(name.to_string(), info.pods.clone());
        }
    }

    /// Places a pod, moving it if it was elsewhere. An ended pod is taken off.
    pub(crate) fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.uid);
        self.nominated.remove(&pod.uid);
        if pod.ended() {
            return;
        }
        self.placed.insert(pod.uid.clone(), node.to_string());
        match self.nodes.get_mut(node) {
            Some(info) => Arc::make_mut(info).add(pod),
            None => self.homeless.entry(node.to_string()).or_default().push(pod),
        }
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) {
        let Some(node) = self.placed.remove(uid) else { return };
        if let Some(info) = self.nodes.get_mut(&node) {
            Arc::make_mut(info).remove(uid);
        }
        if let Some(pods) = self.homeless.get_mut(&node) {
            pods.retain(|pod| pod.uid != uid);
        }
    }

    /// Where a pod is placed or assumed to be.
    pub(crate) fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }

    /// Room on `node` is being made for `pod`.
    pub(crate) fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.nominated.insert(pod.uid.clone(), (node.to_string(), pod));
    }

    pub(crate) fn forget_nomination(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// All nodes, each with the nominated pods that go before `pod` already on it.
    pub(crate) fn snapshot(&self, pod: &PodInfo) -> Vec<Arc<NodeInfo>> {
        let mut nodes: Vec<Arc<NodeInfo>> = self.nodes.values().cloned().collect();
        for (node, nominee) in self.nominated.values() {
            if nominee.uid == pod.uid || nominee.priority < pod.priority {
                continue;
            }
            if let Ok(index) = nodes.binary_search_by(|info| info.name.as_str().cmp(node)) {
                Arc::make_mut(&mut nodes[index]).add(Arc::clone(nominee));
            }
        }
        nodes
    }
}
