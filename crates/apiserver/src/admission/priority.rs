//! `Priority`: a pod's priority is that of its class, and only one class is the default.

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Ticket, service_account::MIRROR};
use crate::registry::{meta, read};

const GROUP: &str = "scheduling.k8s.io";

pub(crate) struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is("", "pods") || attributes.is(GROUP, "priorityclasses"),
            Operation::Update => attributes.is(GROUP, "priorityclasses"),
            _ => false,
        }
    }

    async fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<bool, Status> {
        if !attributes.is("", "pods") {
            return Ok(false);
        }
        let own = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_string();
        // A mirror pod's priority comes with it.
        if pod["metadata"]["annotations"].get(MIRROR).is_some() && own.is_empty() && !pod["spec"]["priority"].is_null()
        {
            return Ok(false);
        }
        let class = if own.is_empty() {
            default_class(attributes).await?
        } else {
            let found = read::by_name(attributes.server(), GROUP, "priorityclasses", "", &own).await?;
            Some(found.ok_or_else(|| attributes.forbid(format!("no PriorityClass with name {own} was found")))?)
        };
        let (value, policy) = match &class {
            Some(class) => {
                if own.is_empty() {
                    pod["spec"]["priorityClassName"] = meta::name(class).into();
                }
                (class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].clone())
            }
            None => (0, Value::Null),
        };
        let given = pod["spec"]["priority"].as_i64();
        if let Some(given) = given.filter(|given| *given != value) {
            return Err(attributes.forbid(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            )));
        }
        let policy = if policy.is_null() { "PreemptLowerPriority".into() } else { policy };
        let asked = &pod["spec"]["preemptionPolicy"];
        if !asked.is_null() && *asked != policy {
            return Err(attributes.forbid(format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller \
                 computed {} from the given PriorityClass name",
                asked.as_str().unwrap_or_default(),
                policy.as_str().unwrap_or_default()
            )));
        }
        pod["spec"]["priority"] = value.into();
        pod["spec"]["preemptionPolicy"] = policy;
        Ok(true)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let Some(class) = object.filter(|_| attributes.is(GROUP, "priorityclasses")) else { return Ok(None) };
        if class["globalDefault"] == true
            && let Some(other) = default_class(attributes).await?
            && meta::name(&other) != meta::name(class)
        {
            return Err(attributes.forbid(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                meta::name(&other)
            )));
        }
        Ok(None)
    }
}

/// The class of pods without one: of several, the lowest.
async fn default_class(attributes: &Attributes<'_>) -> Result<Option<Value>, Status> {
    let classes = read::all(attributes.server(), GROUP, "priorityclasses", "").await?;
    let defaults = classes.into_iter().filter(|class| class["globalDefault"] == true);
    Ok(defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0)))
}
