//! Every built-in resource: names from the facts table, behaviour from one file per kind.
//!
//! [`KINDS`] pairs a resource with its [`Kind`]; names, scope, verbs, short names, categories and subresources come from
//! `data/resources.json` and are written nowhere else. A line without facts, or facts of a served resource without a
//! line, fail the test below.

pub(crate) mod access;
mod admission;
mod api_service;
mod apps;
mod autoscaling;
mod batch;
mod builtin;
mod cells;
mod certificate_signing_request;
mod core;
mod custom_resource_definition;
mod devices;
mod endpoint_slice;
mod flowcontrol;
mod lease;
mod networking;
mod pod_disruption_budget;
mod pod_spec;
mod priority_class;
mod rbac;
mod runtime_class;
mod storage;
mod volume;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use serde::Deserialize;

use self::builtin::Kind;
pub(crate) use self::core::pod::qos::class as pod_qos_class;
use crate::kind::{Resource, Subresource, Version};

const RESOURCES: &str = include_str!("../data/resources.json");

const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const FLOWCONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const DEVICES: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

static VIRTUAL: Kind = Kind::VIRTUAL;

/// Group, plural, behaviour.
static KINDS: &[(&str, &str, &Kind)] = &[
    ("", "bindings", &VIRTUAL),
    ("", "componentstatuses", &core::component_status::KIND),
    ("", "configmaps", &core::config_map::KIND),
    ("", "endpoints", &core::endpoints::KIND),
    ("", "events", &core::event::KIND),
    ("", "limitranges", &core::limit_range::KIND),
    ("", "namespaces", &core::namespace::KIND),
    ("", "nodes", &core::node::KIND),
    ("", "persistentvolumeclaims", &core::persistent_volume_claim::KIND),
    ("", "persistentvolumes", &core::persistent_volume::KIND),
    ("", "pods", &core::pod::KIND),
    ("", "podtemplates", &core::pod_template::KIND),
    ("", "replicationcontrollers", &core::replication_controller::KIND),
    ("", "resourcequotas", &core::resource_quota::KIND),
    ("", "secrets", &core::secret::KIND),
    ("", "serviceaccounts", &core::service_account::KIND),
    ("", "services", &core::service::KIND),
    (ADMISSION, "mutatingadmissionpolicies", &admission::policy::MUTATING),
    (ADMISSION, "mutatingadmissionpolicybindings", &admission::binding::MUTATING),
    (ADMISSION, "mutatingwebhookconfigurations", &admission::webhooks::MUTATING),
    (ADMISSION, "validatingadmissionpolicies", &admission::policy::VALIDATING),
    (ADMISSION, "validatingadmissionpolicybindings", &admission::binding::VALIDATING),
    (ADMISSION, "validatingwebhookconfigurations", &admission::webhooks::VALIDATING),
    ("apiextensions.k8s.io", "customresourcedefinitions", &custom_resource_definition::KIND),
    ("apiregistration.k8s.io", "apiservices", &api_service::KIND),
    ("apps", "controllerrevisions", &apps::controller_revision::KIND),
    ("apps", "daemonsets", &apps::daemon_set::KIND),
    ("apps", "deployments", &apps::deployment::KIND),
    ("apps", "replicasets", &apps::replica_set::KIND),
    ("apps", "statefulsets", &apps::stateful_set::KIND),
    (AUTHENTICATION, "selfsubjectreviews", &VIRTUAL),
    (AUTHENTICATION, "tokenreviews", &VIRTUAL),
    (AUTHORIZATION, "localsubjectaccessreviews", &VIRTUAL),
    (AUTHORIZATION, "selfsubjectaccessreviews", &VIRTUAL),
    (AUTHORIZATION, "selfsubjectrulesreviews", &VIRTUAL),
    (AUTHORIZATION, "subjectaccessreviews", &VIRTUAL),
    ("autoscaling", "horizontalpodautoscalers", &autoscaling::hpa::KIND),
    ("batch", "cronjobs", &batch::cron_job::KIND),
    ("batch", "jobs", &batch::job::KIND),
    ("certificates.k8s.io", "certificatesigningrequests", &certificate_signing_request::KIND),
    ("coordination.k8s.io", "leases", &lease::KIND),
    ("discovery.k8s.io", "endpointslices", &endpoint_slice::KIND),
    ("events.k8s.io", "events", &core::event::EVENTS_KIND),
    (FLOWCONTROL, "flowschemas", &flowcontrol::flow_schema::KIND),
    (FLOWCONTROL, "prioritylevelconfigurations", &flowcontrol::priority_level::KIND),
    (NETWORKING, "ingressclasses", &networking::ingress_class::KIND),
    (NETWORKING, "ingresses", &networking::ingress::KIND),
    (NETWORKING, "ipaddresses", &networking::ip_address::KIND),
    (NETWORKING, "networkpolicies", &networking::network_policy::KIND),
    (NETWORKING, "servicecidrs", &networking::service_cidr::KIND),
    ("node.k8s.io", "runtimeclasses", &runtime_class::KIND),
    ("policy", "poddisruptionbudgets", &pod_disruption_budget::KIND),
    (RBAC, "clusterrolebindings", &rbac::binding::CLUSTER_ROLE_BINDING),
    (RBAC, "clusterroles", &rbac::role::CLUSTER_ROLE),
    (RBAC, "rolebindings", &rbac::binding::ROLE_BINDING),
    (RBAC, "roles", &rbac::role::ROLE),
    (DEVICES, "deviceclasses", &devices::class::KIND),
    (DEVICES, "resourceclaims", &devices::claim::CLAIM),
    (DEVICES, "resourceclaimtemplates", &devices::claim::TEMPLATE),
    (DEVICES, "resourceslices", &devices::slice::KIND),
    ("scheduling.k8s.io", "priorityclasses", &priority_class::KIND),
    (STORAGE, "csidrivers", &storage::csi_driver::KIND),
    (STORAGE, "csinodes", &storage::csi_node::KIND),
    (STORAGE, "csistoragecapacities", &storage::csi_storage_capacity::KIND),
    (STORAGE, "storageclasses", &storage::storage_class::KIND),
    (STORAGE, "volumeattachments", &storage::volume_attachment::KIND),
    (STORAGE, "volumeattributesclasses", &storage::volume_attributes_class::KIND),
];

/// Versions that clients are told to leave, with the words of the `Warning` header.
static DEPRECATED: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    ("", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
];

/// All built-in resources, in the order of [`KINDS`].
pub fn all() -> &'static [Arc<Resource>] {
    &REGISTRY.resources
}

/// The built-in resource of a group by its plural.
pub fn find(group: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    REGISTRY.by_plural.get(&(group, plural)).map(|index| &REGISTRY.resources[*index])
}

/// The built-in resource of a group by its kind.
pub fn by_kind(group: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    all().iter().find(|resource| resource.group == group && resource.kind == kind)
}

struct Registry {
    resources: Vec<Arc<Resource>>,
    by_plural: HashMap<(&'static str, &'static str), usize>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    // The table is part of the binary and its form is checked by the tests of this module.
    let facts: Vec<Facts> = serde_json::from_str(RESOURCES).expect("data/resources.json has the form of Facts");
    let mut registry = Registry { resources: Vec::new(), by_plural: HashMap::new() };
    for (group, plural, kind) in KINDS {
        let served: Vec<&Facts> = facts
            .iter()
            .filter(|facts| facts.served_by_default && facts.group == *group && facts.resource == *plural)
            .collect();
        if let Some(resource) = resource(&served, kind) {
            registry.by_plural.insert((group, plural), registry.resources.len());
            registry.resources.push(Arc::new(resource));
        }
    }
    registry
});

/// What `data/resources.json` says of one resource in one version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    group: String,
    version: String,
    resource: String,
    kind: String,
    singular: String,
    namespaced: bool,
    served_by_default: bool,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    verbs: Vec<String>,
    #[serde(default)]
    subresources: Vec<SubresourceFacts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceFacts {
    name: String,
    response_kind: ResponseKind,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    kind: String,
}

/// One resource from the facts of its versions, preferred version first.
fn resource(versions: &[&Facts], kind: &'static Kind) -> Option<Resource> {
    let first = versions.first()?;
    Some(Resource {
        group: first.group.clone(),
        plural: first.resource.clone(),
        singular: first.singular.clone(),
        kind: first.kind.clone(),
        list_kind: format!("{}List", first.kind),
        short_names: first.short_names.clone(),
        categories: first.categories.clone(),
        namespaced: first.namespaced,
        verbs: first.verbs.clone(),
        versions: versions.iter().enumerate().map(|(index, facts)| version(facts, index == 0)).collect(),
        hooks: Arc::new(kind),
    })
}

fn version(facts: &Facts, storage: bool) -> Version {
    let deprecation_warning = DEPRECATED
        .iter()
        .find(|(group, version, plural, _)| {
            (*group, *version, *plural) == (&*facts.group, &*facts.version, &*facts.resource)
        })
        .map(|(.., warning)| warning.to_string());
    Version {
        name: facts.version.clone(),
        storage,
        definition: definition(&facts.group, &facts.version, &facts.kind),
        subresources: facts
            .subresources
            .iter()
            .map(|sub| Subresource {
                name: sub.name.clone(),
                response: (
                    sub.response_kind.group.clone(),
                    sub.response_kind.version.clone(),
                    sub.response_kind.kind.clone(),
                ),
                verbs: sub.verbs.clone(),
            })
            .collect(),
        deprecation_warning,
    }
}

/// The name of a type in the schema tables: the Go package of its group, dotted.
pub fn definition(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "io.k8s.api.core",
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration",
        "internal.apiserver.k8s.io" => "io.k8s.api.apiserverinternal",
        _ => return format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
    };
    format!("{package}.{version}.{kind}")
}

#[cfg(test)]
mod tests;
