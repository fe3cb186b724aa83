//! `NamespaceLifecycle`: nothing is created in a namespace that is missing or going, and three namespaces never go.

use api::status::{About, Cause, Status};
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::registry::{meta, read};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(crate) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let on_namespace = attributes.resource_is("", "namespaces");
        match attributes.operation {
            Operation::Delete => on_namespace,
            Operation::Create => attributes.served.resource.namespaced && !is_review(attributes),
            _ => false,
        }
    }

    async fn mutate(&self, attributes: &Attributes<'_>, _: &mut Value) -> Result<bool, Status> {
        if attributes.operation == Operation::Delete {
            if IMMORTAL.contains(&attributes.name.as_str()) {
                return Err(attributes.forbid("this namespace may not be deleted"));
            }
            return Ok(false);
        }
        let namespace = &attributes.namespace;
        let about = About { group: "", resource: "namespaces", name: namespace };
        let found = read::by_name(attributes.server(), "", "namespaces", "", namespace).await?;
        let found = found.ok_or_else(|| Status::not_found(about))?;
        let going = meta::is_deleting(&found) || found["status"]["phase"] == "Terminating";
        if !going {
            return Ok(false);
        }
        let mut status = attributes
            .forbid(format!("unable to create new content in namespace {namespace} because it is being terminated"));
        if let Some(details) = &mut status.details {
            details.causes = vec![Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".into(),
            }];
        }
        Err(status)
    }
}

/// Access reviews ask about namespaces that need not exist.
fn is_review(attributes: &Attributes<'_>) -> bool {
    attributes.resource_is("authorization.k8s.io", "localsubjectaccessreviews")
}
