//! `StorageObjectInUseProtection`, `DefaultStorageClass` and `PersistentVolumeClaimResize`: what volumes and claims get
//! and may ask for.

use api::{quantity::Quantity, status::Status};
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Ticket};
use crate::registry::{meta, read};

const GROUP: &str = "storage.k8s.io";

/// Volumes and claims are held while they are used.
pub(crate) struct InUseProtection;

#[async_trait]
impl Plugin for InUseProtection {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create
            && (attributes.is("", "persistentvolumes") || attributes.is("", "persistentvolumeclaims"))
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<bool, Status> {
        let finalizer = match attributes.is("", "persistentvolumes") {
            true => "kubernetes.io/pv-protection",
            false => "kubernetes.io/pvc-protection",
        };
        if meta::finalizers(object).any(|own| own == finalizer) {
            return Ok(false);
        }
        let mut finalizers: Vec<Value> = meta::finalizers(object).map(Into::into).collect();
        finalizers.push(finalizer.into());
        meta::of(object).insert("finalizers".into(), finalizers.into());
        Ok(true)
    }
}

/// A claim without a class gets the default one.
pub(crate) struct DefaultStorageClass;

const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "persistentvolumeclaims")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, claim: &mut Value) -> Result<bool, Status> {
        let named = claim["metadata"]["annotations"].get(CLASS_ANNOTATION).is_some();
        if named || !claim["spec"]["storageClassName"].is_null() {
            return Ok(false);
        }
        let classes = read::all(attributes.server(), GROUP, "storageclasses", "").await?;
        let default = classes
            .iter()
            .filter(|class| DEFAULT_ANNOTATIONS.iter().any(|name| class["metadata"]["annotations"][*name] == "true"))
            // The newest wins; of equally old ones the first by name.
            .min_by(|a, b| {
                let age = |class: &Value| meta::text(class, "creationTimestamp").to_string();
                age(b).cmp(&age(a)).then_with(|| meta::name(a).cmp(meta::name(b)))
            });
        let Some(default) = default else { return Ok(false) };
        claim["spec"]["storageClassName"] = meta::name(default).into();
        Ok(true)
    }
}

/// A bound claim grows only where its class allows it.
pub(crate) struct ClaimResize;

#[async_trait]
impl Plugin for ClaimResize {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let (Some(claim), Some(old)) = (object, attributes.old) else { return Ok(None) };
        let size = |claim: &Value| -> Option<Quantity> {
            claim["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()
        };
        if size(claim) <= size(old) {
            return Ok(None);
        }
        if old["status"]["phase"] != "Bound" {
            return Err(attributes.forbid("Only bound persistent volume claims can be expanded"));
        }
        let name = old["spec"]["storageClassName"].as_str().unwrap_or_default();
        let class = match name {
            "" => None,
            name => read::by_name(attributes.server(), GROUP, "storageclasses", "", name).await?,
        };
        if class.is_none_or(|class| class["allowVolumeExpansion"] != true) {
            return Err(attributes.forbid(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ));
        }
        Ok(None)
    }
}
