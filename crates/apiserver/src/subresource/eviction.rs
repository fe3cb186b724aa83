//! `pods/eviction`: a delete that asks the pod's disruption budget first.

use api::{
    selector::LabelSelector,
    status::{About, Cause, Status},
};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::Handler;
use crate::{
    body::Body,
    catalog::Served,
    pipeline::{
        accept::Offer,
        answer::{self, Answer},
        call::Call,
    },
    registry::{
        delete::{self, DeleteOptions},
        input, meta, read, rewrite,
    },
};

const DEFINITION: &str = "io.k8s.api.policy.v1.Eviction";
/// Pods that a budget may wait for at once; more means that its controller does not keep up.
const DISRUPTED_MAX: usize = 2000;

pub(crate) struct Eviction;

#[async_trait]
impl Handler for Eviction {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(Offer::PLAIN)?;
        let eviction = input::other(call, body, DEFINITION, "Eviction", "v1").await?;
        let name = call.info.path_name();
        let given = meta::name(&eviction);
        if !given.is_empty() && given != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = DeleteOptions::from_value(&eviction["deleteOptions"])?;
        let pod = read::object(call, served, &call.info.namespace, name).await?;
        if needs_budget(&pod) {
            ask(call, &pod, options.dry_run).await?;
            if !options.dry_run {
                mark(call, served, name).await?;
            }
        }
        delete::delete(call, served, &call.info.namespace, name, &options).await?;
        let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        answer::value(201, &done, accepted)
    }
}

/// A pod that does not run any more, or not yet, is nobody's loss.
fn needs_budget(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !meta::is_deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Takes one disruption from the pod's budget, if it has one.
async fn ask(call: &Call, pod: &Value, dry_run: bool) -> Result<(), Status> {
    let namespace = meta::namespace(pod);
    let budgets = read::all(&call.server, "policy", "poddisruptionbudgets", namespace).await?;
    let own: Vec<&Value> = budgets
        .iter()
        .filter(|budget| {
            LabelSelector::from_object(&budget["spec"]["selector"]).is_ok_and(|selector| selector.matches_object(pod))
        })
        .collect();
    let budget = match own[..] {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    if !is_ready(pod) && unhealthy_may_go(budget) {
        return Ok(());
    }
    let name = meta::name(budget).to_string();
    let served = call.catalog.stored("policy", "poddisruptionbudgets").ok_or_else(Status::no_such_path)?;
    let mut take = |budget: &mut Value| decrement(budget, meta::name(pod), &call.now);
    rewrite::rewrite(call, &served, namespace, &name, dry_run, &mut take).await.map(|_| ())
}

/// Whether a pod that is not ready may be evicted without asking.
fn unhealthy_may_go(budget: &Value) -> bool {
    let status = &budget["status"];
    let (current, desired) =
        (status["currentHealthy"].as_i64().unwrap_or(0), status["desiredHealthy"].as_i64().unwrap_or(0));
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || current >= desired && desired > 0
}

fn decrement(budget: &mut Value, pod: &str, now: &str) -> Result<(), Status> {
    let name = meta::name(budget).to_string();
    let refuse = |message: String, cause: String| {
        let mut status = Status::too_many_requests(message, 0);
        if let Some(details) = &mut status.details {
            details.causes = vec![Cause { reason: "DisruptionBudget".into(), message: cause, field: String::new() }];
        }
        Err(status)
    };
    let violates = "Cannot evict pod as it would violate the pod's disruption budget.";
    let status = &budget["status"];
    let number = |member: &str| status[member].as_i64().unwrap_or(0);
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let mut status = Status::too_many_requests(violates, 10);
        if let Some(details) = &mut status.details {
            details.causes = vec![Cause {
                reason: "DisruptionBudget".into(),
                message: format!("The disruption budget {name} is still being processed by the server."),
                field: String::new(),
            }];
        }
        return Err(status);
    }
    let about = About { group: "policy", resource: "poddisruptionbudget", name: &name };
    if number("disruptionsAllowed") < 0 {
        return Err(Status::forbidden(about, "pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        return Err(Status::forbidden(
            about,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if number("disruptionsAllowed") == 0 {
        let cause = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return refuse(violates.into(), cause);
    }
    let left = number("disruptionsAllowed") - 1;
    budget["status"]["disruptionsAllowed"] = left.into();
    budget["status"]["disruptedPods"][pod] = now.into();
    Ok(())
}

/// Tells the pod's owner why it goes.
async fn mark(call: &Call, served: &Served, name: &str) -> Result<(), Status> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": call.now,
    });
    let mut add = |pod: &mut Value| {
        if !pod["status"]["conditions"].is_array() {
            pod["status"]["conditions"] = json!([]);
        }
        if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
            conditions.retain(|own| own["type"] != "DisruptionTarget");
            conditions.push(condition.clone());
        }
        Ok(())
    };
    rewrite::rewrite(call, served, &call.info.namespace, name, false, &mut add).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_has() {
        let mut budget = json!({
            "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3},
        });
        decrement(&mut budget, "p", "t").unwrap();
        assert_eq!(budget["status"]["disruptedPods"]["p"], "t");
        let refused = decrement(&mut budget, "q", "t").unwrap_err();
        assert_eq!(refused.code, 429);
        assert!(refused.details.unwrap().causes[0].message.contains("needs 2 healthy pods"));
    }
}
