//! `pods/log`, `exec`, `attach` and `portforward`: what the pod's kubelet answers.

use api::status::{About, FieldError, Status};
use async_trait::async_trait;
use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::Value;

use super::Handler;
use crate::{
    body::{self, Body},
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
    proxy::{backend, forward},
    registry::read,
};

/// Most of a kubelet's error text that is passed on.
const ERROR_BYTES_MAX: usize = 8192;

/// What of the kubelet answers.
pub(crate) enum PodStream {
    Log,
    Exec,
    Attach,
    PortForward,
}

#[async_trait]
impl Handler for PodStream {
    async fn handle(&self, call: &Call, served: &Served, _: Body) -> Answer {
        let allowed: &[&str] = if matches!(self, Self::Log) { &["get"] } else { &["get", "create"] };
        if !allowed.contains(&call.info.verb) {
            return Err(Status::method_not_allowed_on_path());
        }
        let (namespace, name) = (&call.info.namespace, call.info.path_name());
        let pod = read::object(call, served, namespace, name).await?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let place = format!("{}/{}", encode(namespace), encode(name));
        let (path, query) = match self {
            Self::Log => {
                let query = log_query(call)?;
                let container = container(call, &pod, name)?;
                if node.is_empty() {
                    return Ok(crate::pipeline::answer::text(200, ""));
                }
                (format!("/containerLogs/{place}/{}", encode(&container)), query)
            }
            Self::Exec => {
                let mut query = streams(call)?;
                let commands: Vec<&str> = call.query.all("command").collect();
                if commands.is_empty() {
                    return Err(Status::bad_request("you must specify at least 1 command for the container"));
                }
                query.extend(commands.iter().map(|command| ("command".to_string(), command.to_string())));
                (format!("/exec/{place}/{}", encode(&container(call, &pod, name)?)), query)
            }
            Self::Attach => {
                let query = streams(call)?;
                (format!("/attach/{place}/{}", encode(&container(call, &pod, name)?)), query)
            }
            Self::PortForward => {
                let ports: Vec<&str> = call.query.all("ports").collect();
                let joined = ports.join(",");
                let query = if ports.is_empty() { Vec::new() } else { vec![("port".to_string(), joined)] };
                (format!("/portForward/{place}"), query)
            }
        };
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let backend = backend::kubelet(call, node).await?;
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&query).finish();
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let answer = forward::forward(call, &backend, &target, HeaderMap::new(), body::empty()).await?;
        if answer.status().as_u16() < 300 {
            return Ok(answer);
        }
        Err(refused(answer, name).await)
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The kubelet's own words, as a `Status`.
async fn refused(answer: http::Response<Body>, name: &str) -> Status {
    let code = answer.status().as_u16();
    let text = match answer.into_body().collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => bytes::Bytes::new(),
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(ERROR_BYTES_MAX)]).trim().to_string();
    match code {
        400 => Status::bad_request(text),
        404 => {
            let mut status = Status::not_found(About { group: "", resource: "pods", name });
            status.message = format!("the server could not find the requested resource ({text})");
            status
        }
        500 => Status::internal(text),
        code => Status::failure(code, "", text),
    }
}

/// The streams that the client wants, by the kubelet's names.
fn streams(call: &Call) -> Result<Vec<(String, String)>, Status> {
    let query = &call.query;
    let names = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let wanted: Vec<(String, String)> = names
        .iter()
        .filter(|(name, _)| query.flag(name))
        .map(|(_, kubelet)| (kubelet.to_string(), "1".to_string()))
        .collect();
    if wanted.iter().all(|(name, _)| name == "tty") {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    if query.flag("tty") && query.flag("stderr") && !query.flag("stdout") {
        return Err(Status::bad_request("tty and stderr cannot both be true without stdout"));
    }
    Ok(wanted)
}

/// Options of a log request, checked.
fn log_query(call: &Call) -> Result<Vec<(String, String)>, Status> {
    let query = &call.query;
    let mut errors = Vec::new();
    let mut least = |name: &str, least: i64, why: &str| -> Result<(), Status> {
        if let Some(number) = query.number(name)?.filter(|number| *number < least) {
            errors.push(FieldError::invalid(name, number, why));
        }
        Ok(())
    };
    least("tailLines", 0, "must be greater than or equal to 0")?;
    least("limitBytes", 1, "must be greater than 0")?;
    least("sinceSeconds", 1, "must be greater than 0")?;
    if query.text("sinceSeconds").is_some() && query.text("sinceTime").is_some() {
        errors.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(
            About { group: "", resource: "PodLogOptions", name: call.info.path_name() },
            errors,
        ));
    }
    let known = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
    Ok(query.pairs().iter().filter(|(name, _)| known.contains(&name.as_str())).cloned().collect())
}

/// The container that is meant: the one named, or the only one.
fn container(call: &Call, pod: &Value, name: &str) -> Result<String, Status> {
    let of = |list: &str| -> Vec<String> {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.filter_map(|container| Some(container["name"].as_str()?.to_string())).collect()
    };
    let (containers, init, ephemeral) = (of("containers"), of("initContainers"), of("ephemeralContainers"));
    match call.query.text("container") {
        Some(named) => {
            let known = [&containers, &init, &ephemeral].iter().any(|list| list.iter().any(|own| own == named));
            match known {
                true => Ok(named.into()),
                false => Err(Status::bad_request(format!("container {named} is not valid for pod {name}"))),
            }
        }
        None if containers.len() == 1 => Ok(containers[0].clone()),
        None => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", containers.join(" "));
            if !init.is_empty() {
                text += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            if !ephemeral.is_empty() {
                text += &format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" "));
            }
            Err(Status::bad_request(text))
        }
    }
}
