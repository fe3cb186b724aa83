//! `LimitRanger`: a namespace's LimitRanges fill in what containers do not ask for and bound what they do.

use api::{quantity::Quantity, status::Status};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Attributes, Operation, Plugin, Ticket,
    amounts::{self, Amounts},
};
use crate::registry::read;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(crate) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let resized = attributes.subresource == "resize" && attributes.resource_is("", "pods");
        match attributes.operation {
            Operation::Create => attributes.is("", "pods") || attributes.is("", "persistentvolumeclaims"),
            Operation::Update => resized || attributes.is("", "persistentvolumeclaims"),
            _ => false,
        }
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<bool, Status> {
        if !attributes.resource_is("", "pods") {
            return Ok(false);
        }
        let mut changed = false;
        for range in ranges(attributes).await? {
            changed |= fill(object, &range);
        }
        Ok(changed)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let Some(object) = object else { return Ok(None) };
        for range in ranges(attributes).await? {
            let mut wrong = Vec::new();
            for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
                check(limit, object, attributes.resource_is("", "pods"), &mut wrong);
            }
            match wrong.len() {
                0 => {}
                1 => return Err(attributes.forbid(&wrong[0])),
                _ => return Err(attributes.forbid(format!("[{}]", wrong.join(", ")))),
            }
        }
        Ok(None)
    }
}

async fn ranges(attributes: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    read::all(attributes.server(), "", "limitranges", &attributes.namespace).await
}

/// Gives containers the defaults of their type, and says so in an annotation.
fn fill(pod: &mut Value, range: &Value) -> bool {
    let limits = range["spec"]["limits"].as_array().into_iter().flatten();
    let mut told: Vec<String> = Vec::new();
    for limit in limits.filter(|limit| limit["type"] == "Container") {
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                for (member, defaults, noun) in
                    [("requests", "defaultRequest", "request"), ("limits", "default", "limit")]
                {
                    let set = merge(container, member, &limit[defaults]);
                    if !set.is_empty() {
                        let name = container["name"].as_str().unwrap_or_default();
                        told.push(format!("{} {noun} for {what} {name}", set.join(", ")));
                    }
                }
            }
        }
    }
    if told.is_empty() {
        return false;
    }
    pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
    true
}

/// Adds the amounts that the container lacks; their names.
fn merge(container: &mut Value, member: &str, defaults: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        if container["resources"][member].get(name).is_none() {
            container["resources"][member][name] = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

fn check(limit: &Value, object: &Value, is_pod: bool, wrong: &mut Vec<String>) {
    let kind = limit["type"].as_str().unwrap_or_default();
    let spec = &object["spec"];
    let judged: Vec<(Amounts, Amounts)> = match (kind, is_pod) {
        ("Container", true) => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec[*list].as_array().into_iter().flatten())
            .map(|container| (amounts::of_container(container, "requests"), amounts::of_container(container, "limits")))
            .collect(),
        ("Pod", true) => vec![(amounts::of_pod(spec, "requests"), amounts::of_pod(spec, "limits"))],
        ("PersistentVolumeClaim", false) => vec![(amounts::read(&spec["resources"]["requests"]), Amounts::new())],
        _ => return,
    };
    for (requests, limits) in &judged {
        for (name, least) in amounts::read(&limit["min"]) {
            wrong.extend(below(kind, &name, least, requests, limits));
        }
        for (name, most) in amounts::read(&limit["max"]) {
            wrong.extend(above(kind, &name, most, requests, limits));
        }
        for (name, ratio) in amounts::read(&limit["maxLimitRequestRatio"]) {
            wrong.extend(out_of_ratio(kind, &name, ratio, requests, limits));
        }
    }
}

fn below(kind: &str, name: &str, least: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{head}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{head}, but limit is {limit}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {most}");
    let of_claim = kind == "PersistentVolumeClaim";
    match (requests.get(name), limits.get(name)) {
        (None, _) if of_claim => Some(format!("{head}.  No request is specified")),
        (_, None) if !of_claim => Some(format!("{head}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => Some(format!("{head}, but limit is {limit}")),
        (Some(request), _) if *request > most => Some(format!("{head}, but request is {request}")),
        _ => None,
    }
}

fn out_of_ratio(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {most}");
    let request = requests.get(name).filter(|amount| !amount.is_zero());
    let limit = limits.get(name).filter(|amount| !amount.is_zero());
    match (request, limit) {
        (None, _) => Some(format!("{head}, but no request is specified or request is 0")),
        (_, None) => Some(format!("{head}, but no limit is specified or limit is 0")),
        (Some(request), Some(limit)) => {
            let ratio = limit.as_f64() / request.as_f64();
            (ratio > most.as_f64()).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Value {
        json!({"spec": {"limits": [{
            "type": "Container",
            "defaultRequest": {"cpu": "100m"},
            "default": {"cpu": "200m"},
            "max": {"cpu": "1"},
        }]}})
    }

    #[test]
    fn containers_get_what_they_do_not_ask_for() {
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}});
        assert!(fill(&mut pod, &range()));
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}})
        );
        let told = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(pod["metadata"]["annotations"][ANNOTATION], told);
    }

    #[test]
    fn too_much_is_refused() {
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}});
        let mut wrong = Vec::new();
        check(&range()["spec"]["limits"][0], &pod, true, &mut wrong);
        assert_eq!(wrong, ["maximum cpu usage per Container is 1, but limit is 2"]);
    }
}
