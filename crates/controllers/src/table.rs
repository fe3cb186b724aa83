//! All controllers in one table, and how they are started.

use tokio::task::JoinHandle;

use crate::{
    certificates, clusterroleaggregation,
    context::{Context, Scope},
    cronjob, daemonset, deployment, disruption, endpoints, endpointslice, endpointslicemirroring, ephemeral, garbage,
    job, namespace, nodeipam, nodelifecycle, podgc, pvbinder, pvcprotection, pvprotection, replicaset, replication,
    resourcequota, rootca, serviceaccount, servicecidr, statefulset, tainteviction, token, tokencleaner, ttl,
    ttlafterfinished,
};

/// One controller.
pub struct Descriptor {
    /// The name by which it is enabled, disabled, logged and counted.
    pub name: &'static str,
    /// Its ServiceAccount in `kube-system`, with the rights of `system:controller:ACCOUNT`; empty for those that act as
    /// the controller manager itself, `system:kube-controller-manager`.
    pub account: &'static str,
    /// The source that its events name.
    pub component: &'static str,
    /// What it watches.
    pub watches: &'static [&'static str],
    /// Whether it runs unless told otherwise.
    pub default_on: bool,
    start: fn(Scope) -> Vec<JoinHandle<()>>,
}

macro_rules! controllers {
    ($($name:literal, $account:literal, $component:literal, $on:literal, [$($watch:literal)*], $start:path;)*) => {
        &[$(Descriptor {
            name: $name,
            account: $account,
            component: $component,
            watches: &[$($watch),*],
            default_on: $on,
            start: $start,
        }),*]
    };
}

/// Name, account, event source, on by default, what is watched, start.
#[rustfmt::skip]
pub const CONTROLLERS: &[Descriptor] = controllers![
    "replicaset", "replicaset-controller", "replicaset-controller", true, ["replicasets" "pods"], replicaset::start;
    "replicationcontroller", "replication-controller", "replication-controller", true, ["replicationcontrollers" "pods"], replication::start;
    "deployment", "deployment-controller", "deployment-controller", true, ["deployments" "replicasets" "pods"], deployment::start;
    "daemonset", "daemon-set-controller", "daemonset-controller", true, ["daemonsets" "pods" "nodes" "controllerrevisions"], daemonset::start;
    "statefulset", "statefulset-controller", "statefulset-controller", true, ["statefulsets" "pods" "persistentvolumeclaims" "controllerrevisions"], statefulset::start;
    "job", "job-controller", "job-controller", true, ["jobs" "pods"], job::start;
    "cronjob", "cronjob-controller", "cronjob-controller", true, ["cronjobs" "jobs"], cronjob::start;
    "ttl-after-finished", "ttl-after-finished-controller", "ttl-after-finished-controller", true, ["jobs"], ttlafterfinished::start;
    "endpoints", "endpoint-controller", "endpoint-controller", true, ["services" "pods" "endpoints"], endpoints::start;
    "endpointslice", "endpointslice-controller", "endpoint-slice-controller", true, ["services" "pods" "nodes" "endpointslices"], endpointslice::start;
    "endpointslicemirroring", "endpointslicemirroring-controller", "endpoint-slice-mirroring-controller", true, ["endpoints" "services" "endpointslices"], endpointslicemirroring::start;
    "node-lifecycle", "node-controller", "node-controller", true, ["nodes" "leases" "pods"], nodelifecycle::start;
    "taint-eviction", "node-controller", "taint-eviction-controller", true, ["nodes" "pods"], tainteviction::start;
    "node-ipam", "node-controller", "cidrAllocator", true, ["nodes"], nodeipam::start;
    "pod-garbage-collector", "pod-garbage-collector", "pod-garbage-collector", true, ["pods" "nodes"], podgc::start;
    "ttl", "ttl-controller", "ttl-controller", true, ["nodes"], ttl::start;
    "clusterrole-aggregation", "clusterrole-aggregation-controller", "clusterrole-aggregation-controller", true, ["clusterroles"], clusterroleaggregation::start;
    "disruption", "disruption-controller", "controllermanager", true, ["poddisruptionbudgets" "pods" "deployments" "replicasets" "statefulsets" "replicationcontrollers"], disruption::start;
    "resourcequota", "resourcequota-controller", "resourcequota-controller", true, ["resourcequotas" "pods" "services" "persistentvolumeclaims"], resourcequota::start;
    "persistentvolume-binder", "persistent-volume-binder", "persistentvolume-controller", true, ["persistentvolumeclaims" "persistentvolumes" "storageclasses"], pvbinder::start;
    "persistentvolumeclaim-protection", "pvc-protection-controller", "pvc-protection-controller", true, ["persistentvolumeclaims" "pods"], pvcprotection::start;
    "persistentvolume-protection", "pv-protection-controller", "pv-protection-controller", true, ["persistentvolumes"], pvprotection::start;
    "ephemeral-volume", "ephemeral-volume-controller", "ephemeral_volume", true, ["pods" "persistentvolumeclaims"], ephemeral::start;
    "certificatesigningrequest-approving", "certificate-controller", "certificate-controller", true, ["certificatesigningrequests"], certificates::approve::start;
    "certificatesigningrequest-signing", "certificate-controller", "certificate-controller", true, ["certificatesigningrequests"], certificates::sign::start;
    "certificatesigningrequest-cleaner", "certificate-controller", "certificate-controller", true, ["certificatesigningrequests"], certificates::clean::start;
    "service-cidr", "service-cidrs-controller", "service-cidrs-controller", true, ["servicecidrs" "ipaddresses"], servicecidr::start;
    "token-cleaner", "token-cleaner", "token-cleaner", false, ["secrets"], tokencleaner::start;
    "serviceaccount-token", "", "serviceaccount-token-controller", true, ["secrets" "serviceaccounts"], token::start;
    "serviceaccount", "service-account-controller", "service-account-controller", true, ["namespaces" "serviceaccounts"], serviceaccount::start;
    "root-ca-certificate-publisher", "root-ca-cert-publisher", "root-ca-cert-publisher", true, ["namespaces" "configmaps"], rootca::start;
    "namespace", "namespace-controller", "namespace-controller", true, ["namespaces" "pods"], namespace::start;
    "garbage-collector", "generic-garbage-collector", "garbage-collector-controller", true, ["*"], garbage::start;
];

/// Starts the named controllers; an empty list starts those that run by default. The handles end after the context
/// is cancelled and every pass under way is over. Unknown names are returned as an error text.
pub fn start(context: &Context, enabled: &[&str]) -> Result<Vec<JoinHandle<()>>, String> {
    if let Some(unknown) = enabled.iter().find(|n| !CONTROLLERS.iter().any(|c| c.name == **n)) {
        let known: Vec<_> = CONTROLLERS.iter().map(|c| c.name).collect();
        return Err(format!("there is no controller named {unknown}; choose from {}", known.join(", ")));
    }
    let chosen = |c: &&Descriptor| if enabled.is_empty() { c.default_on } else { enabled.contains(&c.name) };
    let handles = CONTROLLERS.iter().filter(chosen).flat_map(|c| (c.start)(Scope::new(context, c)));
    Ok(handles.collect())
}
