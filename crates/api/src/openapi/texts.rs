//! Descriptions of types and fields, out of the schemas that the typed objects generate.

use std::collections::{HashMap, HashSet};

use k8s_openapi::{
    api, apiextensions_apiserver::pkg::apis::apiextensions, apimachinery::pkg::apis::meta,
    kube_aggregator::pkg::apis::apiregistration,
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

type Register = fn(&mut SchemaGenerator);

macro_rules! packages {
    ($($name:literal: $($module:ident)::+ { $($kind:ident)+ })+) => {
        &[$(($name, |generator| {
            use $($module)::+ as package;
            $(generator.subschema_for::<package::$kind>();)+
        })),+]
    };
}

/// The kinds that are served, by the package of their definition names. What they refer to comes along.
static PACKAGES: &[(&str, Register)] = packages! {
    "io.k8s.api.admissionregistration.v1": api::admissionregistration::v1 {
        MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
    }
    "io.k8s.api.apps.v1": api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
    "io.k8s.api.authentication.v1": api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
    "io.k8s.api.authorization.v1": api::authorization::v1 {
        LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
    }
    "io.k8s.api.autoscaling.v1": api::autoscaling::v1 { HorizontalPodAutoscaler Scale }
    "io.k8s.api.autoscaling.v2": api::autoscaling::v2 { HorizontalPodAutoscaler }
    "io.k8s.api.batch.v1": api::batch::v1 { CronJob Job }
    "io.k8s.api.certificates.v1": api::certificates::v1 { CertificateSigningRequest }
    "io.k8s.api.coordination.v1": api::coordination::v1 { Lease }
    "io.k8s.api.core.v1": api::core::v1 {
        Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
    }
    "io.k8s.api.discovery.v1": api::discovery::v1 { EndpointSlice }
    "io.k8s.api.events.v1": api::events::v1 { Event }
    "io.k8s.api.flowcontrol.v1": api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
    "io.k8s.api.networking.v1": api::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
    "io.k8s.api.node.v1": api::node::v1 { RuntimeClass }
    "io.k8s.api.policy.v1": api::policy::v1 { Eviction PodDisruptionBudget }
    "io.k8s.api.rbac.v1": api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
    "io.k8s.api.resource.v1": api::resource::v1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
    "io.k8s.api.scheduling.v1": api::scheduling::v1 { PriorityClass }
    "io.k8s.api.storage.v1": api::storage::v1 {
        CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
    }
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1": apiextensions::v1 { CustomResourceDefinition }
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1": apiregistration::v1 { APIService }
    "io.k8s.apimachinery.pkg.apis.meta.v1": meta::v1 {
        APIResourceList DeleteOptions ListMeta ObjectMeta Patch Status
    }
};

/// One type's descriptions.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) description: String,
    pub(super) fields: HashMap<String, String>,
}

/// Descriptions of the packages that were asked for.
#[derive(Debug, Default)]
pub(super) struct Texts {
    packages: HashSet<&'static str>,
    by_definition: HashMap<String, Text>,
}

impl Texts {
    /// A definition's texts; generates those of its package when they are not there yet.
    pub(super) fn get(&mut self, definition: &str) -> Option<&Text> {
        if !self.by_definition.contains_key(definition)
            && let Some((package, _)) = definition.rsplit_once('.')
            && let Some((package, register)) = PACKAGES.iter().find(|(name, _)| *name == package)
            && self.packages.insert(package)
        {
            let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
            register(&mut generator);
            for (name, schema) in generator.take_definitions(false) {
                self.by_definition.entry(name).or_insert_with(|| text(&schema));
            }
        }
        self.by_definition.get(definition)
    }
}

fn text(schema: &Value) -> Text {
    let description = |schema: &Value| schema["description"].as_str().map(str::to_string);
    let fields = schema["properties"].as_object().into_iter().flatten();
    Text {
        description: description(schema).unwrap_or_default(),
        fields: fields.filter_map(|(name, schema)| Some((name.clone(), description(schema)?))).collect(),
    }
}
