//! `pods/binding` and the older `bindings`: a scheduler assigns a pod to a node.

use api::status::{About, FieldError, Status};
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
    registry::{input, meta, options, rewrite},
};

const DEFINITION: &str = "io.k8s.api.core.v1.Binding";

pub(crate) struct Binding;

#[async_trait]
impl Handler for Binding {
    async fn handle(&self, call: &Call, _: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(Offer::PLAIN)?;
        let dry_run = options::dry_run(&call.query, "CreateOptions")?;
        let binding = input::other(call, body, DEFINITION, "Binding", "v1").await?;
        let given = meta::name(&binding).to_string();
        let name = if call.info.resource == "pods" { call.info.path_name().to_string() } else { given.clone() };
        if !given.is_empty() && given != name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let target = check(&binding, &name)?;
        let pods = call.catalog.stored("", "pods").ok_or_else(Status::no_such_path)?;
        let mut assign = |pod: &mut Value| assign(pod, &binding, &target, &name, &call.now);
        rewrite::rewrite(call, &pods, &call.info.namespace, &name, dry_run, &mut assign).await?;
        let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        answer::value(201, &done, accepted)
    }
}

/// The node that the binding names.
fn check(binding: &Value, name: &str) -> Result<String, Status> {
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or_default();
    let node = target["name"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        return Ok(node.into());
    }
    Err(Status::invalid(About { group: "", resource: "Binding", name }, errors))
}

fn assign(pod: &mut Value, binding: &Value, node: &str, name: &str, now: &str) -> Result<(), Status> {
    let about = About { group: "", resource: "pods/binding", name };
    for (member, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let wanted = meta::text(binding, member);
        let own = meta::text(pod, member);
        if !wanted.is_empty() && wanted != own {
            return Err(Status::conflict(
                about,
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {own}"),
            ));
        }
    }
    if meta::is_deleting(pod) {
        return Err(Status::conflict(about, format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    if let Some(own) = pod["spec"]["nodeName"].as_str().filter(|own| !own.is_empty()) {
        return Err(Status::conflict(about, format!("pod {name} is already assigned to node {own:?}")));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(Status::conflict(about, format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    pod["spec"]["nodeName"] = node.into();
    for members in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][members].as_object().into_iter().flatten() {
            pod["metadata"][members][key] = value.clone();
        }
    }
    set_condition(pod, "PodScheduled", "True", now);
    Ok(())
}

/// Sets a condition of the pod's status; the time moves only when the status does.
fn set_condition(pod: &mut Value, kind: &str, status: &str, now: &str) {
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    let mut fresh = json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": now});
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(own) => {
            if own["status"] == status {
                fresh["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = fresh;
        }
        None => conditions.push(fresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n1"}});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {}});
        assign(&mut pod, &binding, "n1", "p", "t").unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        let again = assign(&mut pod, &binding, "n2", "p", "t").unwrap_err();
        assert_eq!((again.code, again.reason.as_str()), (409, "Conflict"));
    }
}
