//! `RuntimeClass`: a pod gets the overhead and the scheduling constraints of its runtime class.

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::registry::read;

pub(crate) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<bool, Status> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str().map(str::to_string) else {
            if !pod["spec"]["overhead"].is_null() {
                return Err(attributes
                    .forbid("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"));
            }
            return Ok(false);
        };
        let class = read::by_name(attributes.server(), "node.k8s.io", "runtimeclasses", "", &name).await?;
        let class =
            class.ok_or_else(|| attributes.forbid(format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
        overhead(attributes, pod, &class)?;
        scheduling(attributes, pod, &class)?;
        Ok(true)
    }
}

fn overhead(attributes: &Attributes<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    let wanted = &class["overhead"]["podFixed"];
    let own = &pod["spec"]["overhead"];
    if !own.is_null() && own != wanted {
        return Err(attributes.forbid("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
    }
    if !wanted.is_null() {
        pod["spec"]["overhead"] = wanted.clone();
    }
    Ok(())
}

fn scheduling(attributes: &Attributes<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    for (label, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let own = &pod["spec"]["nodeSelector"][label];
        if !own.is_null() && own != value {
            return Err(attributes.forbid(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {}; pod.spec.nodeSelector[{label}] = {}",
                value.as_str().unwrap_or_default(),
                own.as_str().unwrap_or_default()
            )));
        }
        pod["spec"]["nodeSelector"][label] = value.clone();
    }
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        pod["spec"]["tolerations"] = tolerations.into();
    }
    Ok(())
}
