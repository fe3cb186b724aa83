//! The `scale` subresource: replicas of any resource that says where it keeps them.

use api::{
    kind::{Part, ScalePaths},
    patch::Patch,
    status::{FieldError, Status},
};
use serde_json::{Value, json};

use super::{
    input, meta, options, patch, read,
    update::{self, Changed, Ownership, Update},
};
use crate::{
    body::Body,
    catalog::Served,
    codec,
    pipeline::{
        accept::Offer,
        answer::{self, Answer},
        call::Call,
    },
};

const API_VERSION: &str = "autoscaling/v1";
const DEFINITION: &str = "io.k8s.api.autoscaling.v1.Scale";

pub(crate) async fn handle(call: &Call, served: &Served, body: Body) -> Answer {
    let Some(paths) = served.resource.hooks.scale_paths() else { return Err(Status::no_such_path()) };
    let name = call.info.path_name();
    let accepted = call.negotiate(Offer::OBJECTS)?;
    let shown = match call.info.verb {
        "get" => read::object(call, served, &call.info.namespace, name).await?,
        "update" => {
            let given = input::other(call, body, DEFINITION, "Scale", "v1").await?;
            let dry_run = options::dry_run(&call.query, "UpdateOptions")?;
            set(call, served, name, &paths, dry_run, &mut |_| Ok(given.clone())).await?
        }
        "patch" => {
            let bytes = input::read(call, body).await?;
            let dry_run = options::dry_run(&call.query, "PatchOptions")?;
            let kind = patch::kind(call, served)?.ok_or_else(|| {
                Status::unsupported_media_type("application/json-patch+json, application/merge-patch+json")
            })?;
            let patch = Patch::parse(kind, &bytes)?;
            let mut apply = |scale: &Value| {
                let patched = patch.apply(scale, codec::builtin(DEFINITION))?;
                let mut wanted = patched.object;
                // The patch was made from this scale: only a revision that it names itself counts.
                if meta::text(&wanted, "resourceVersion") == meta::text(scale, "resourceVersion") {
                    meta::of(&mut wanted).remove("resourceVersion");
                }
                Ok(wanted)
            };
            set(call, served, name, &paths, dry_run, &mut apply).await?
        }
        _ => return Err(Status::method_not_allowed_on_path()),
    };
    answer::value(200, &scale(&shown, &paths), accepted)
}

/// The `Scale` of an object.
fn scale(object: &Value, paths: &ScalePaths) -> Value {
    let metadata = &object["metadata"];
    let mut shown = json!({"name": metadata["name"]});
    for member in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !metadata[member].is_null() {
            shown[member] = metadata[member].clone();
        }
    }
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": API_VERSION,
        "metadata": shown,
        "spec": {},
        "status": {"replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0)},
    });
    if let Some(replicas) = at(object, &paths.spec_replicas).as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = paths.selector.as_deref().map(|path| selector_text(at(object, path))).unwrap_or_default();
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A label selector, a map of labels or a string, as a string.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.into();
    }
    let is_selector = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if is_selector { &selector["matchLabels"] } else { selector };
    let mut terms: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        match expression["operator"].as_str().unwrap_or_default() {
            "In" => terms.push(format!("{key} in ({})", values.join(","))),
            "NotIn" => terms.push(format!("{key} notin ({})", values.join(","))),
            "Exists" => terms.push(key.into()),
            "DoesNotExist" => terms.push(format!("!{key}")),
            _ => {}
        }
    }
    terms.sort();
    terms.join(",")
}

async fn set(
    call: &Call,
    served: &Served,
    name: &str,
    paths: &ScalePaths,
    dry_run: bool,
    change: &mut (dyn FnMut(&Value) -> Result<Value, Status> + Send),
) -> Result<Value, Status> {
    let update =
        Update { call, served, namespace: &call.info.namespace, name, part: Part::Main, dry_run, create: false };
    let mut on_object = |current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(served.about(name)))?;
        let wanted = change(&scale(current, paths))?;
        check(&wanted, name)?;
        let mut object = current.clone();
        let revision = meta::text(&wanted, "resourceVersion").to_string();
        meta::of(&mut object).insert("resourceVersion".into(), revision.into());
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        put(&mut object, &paths.spec_replicas, replicas.into());
        Ok(Changed { object, ownership: Ownership::Track })
    };
    let (written, _) = update::run(&update, &mut on_object).await?;
    Ok(written.object)
}

fn check(wanted: &Value, name: &str) -> Result<(), Status> {
    let kind = wanted["kind"].as_str().unwrap_or("Scale");
    if kind != "Scale" {
        return Err(Status::bad_request(format!("expected input object type to be Scale, but {kind}")));
    }
    let given = meta::name(wanted);
    if !given.is_empty() && given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let replicas = &wanted["spec"]["replicas"];
    if replicas.as_i64().is_some_and(|replicas| replicas < 0) {
        let error = FieldError::invalid("spec.replicas", replicas.clone(), "must be greater than or equal to 0");
        let about = api::status::About { group: "autoscaling", resource: "Scale", name };
        return Err(Status::invalid(about, vec![error]));
    }
    Ok(())
}

/// The value at a dotted path.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|part| !part.is_empty()).fold(object, |value, part| &value[part])
}

fn put(object: &mut Value, path: &str, value: Value) {
    let mut target = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if !target[part].is_object() && !target[part].is_null() && !target.is_object() {
            return;
        }
        target = &mut target[part];
    }
    *target = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_become_text() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]}, {"key": "x", "operator": "DoesNotExist"}],
        });
        assert_eq!(selector_text(&selector), "!x,app=web,tier in (a,b)");
        assert_eq!(selector_text(&json!({"app": "web"})), "app=web");
    }
}
