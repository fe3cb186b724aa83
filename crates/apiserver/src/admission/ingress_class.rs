//! `DefaultIngressClass`: an Ingress without a class gets the default one.

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::registry::{meta, read};

const GROUP: &str = "networking.k8s.io";
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const LEGACY: &str = "kubernetes.io/ingress.class";

pub(crate) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is(GROUP, "ingresses")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, ingress: &mut Value) -> Result<bool, Status> {
        let named = ingress["metadata"]["annotations"].get(LEGACY).is_some();
        if named || !ingress["spec"]["ingressClassName"].is_null() {
            return Ok(false);
        }
        let classes = read::all(attributes.server(), GROUP, "ingressclasses", "").await?;
        let newest =
            classes.iter().filter(|class| class["metadata"]["annotations"][DEFAULT] == "true").min_by(|a, b| {
                let age = |class: &Value| meta::text(class, "creationTimestamp").to_string();
                age(b).cmp(&age(a)).then_with(|| meta::name(a).cmp(meta::name(b)))
            });
        let Some(class) = newest else { return Ok(false) };
        ingress["spec"]["ingressClassName"] = meta::name(class).into();
        Ok(true)
    }
}
