//! Where a proxied request goes: a node's kubelet, a pod, an endpoint of a Service.

use std::sync::Arc;

use api::status::{About, Status};
use rustls::ClientConfig;
use serde_json::Value;

use super::tls::{self, Trust};
use crate::{
    pipeline::call::Call,
    registry::{meta, read},
};

/// Addresses of a node that the server can dial, best first.
const NODE_ADDRESSES: [&str; 5] = ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"];
const KUBELET_PORT: u16 = 10250;

/// An address to dial, and how.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Name in the certificate, when it is not the host.
    pub(crate) server_name: Option<String>,
}

/// The kubelet of a node.
pub(crate) async fn kubelet(call: &Call, node: &str) -> Result<Backend, Status> {
    let found = read::by_name(&call.server, "", "nodes", "", node).await?;
    let found = found.ok_or_else(|| Status::not_found(About { group: "", resource: "nodes", name: node }))?;
    let addresses = found["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let host = NODE_ADDRESSES
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address["type"] == *kind))
        .and_then(|address| address["address"].as_str())
        .ok_or_else(|| Status::internal(format!("node {node:?} has no address in its status yet")))?;
    let port = found["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(KUBELET_PORT);
    let access = call.server.config().kubelet.as_ref().ok_or_else(|| {
        Status::unavailable("this API server has no client certificate for kubelets: logs and exec are not available")
    })?;
    let config = tls::kubelet(access).map_err(Status::internal)?;
    Ok(Backend { host: host.into(), port, tls: Some(Arc::new(config)), server_name: None })
}

/// `[scheme:]name[:port]` of a proxy path.
pub(crate) struct Target<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return Err(Status::bad_request(format!("invalid proxy request {text:?}"))),
        };
        match scheme {
            "" | "http" | "https" => Ok(Self { https: scheme == "https", name, port }),
            other => Err(Status::bad_request(format!("invalid scheme {other:?} in proxy request {text:?}"))),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    fn backend(&self, host: &str, port: u16) -> Result<Backend, Status> {
        let tls = match self.https {
            true => Some(Arc::new(tls::client(Trust::Anything, None).map_err(Status::internal)?)),
            false => None,
        };
        Ok(Backend { host: host.into(), port, tls, server_name: None })
    }

    /// The port of a pod: a number, a name, or the first one.
    pub(crate) fn pod(&self, pod: &Value) -> Result<Backend, Status> {
        let address = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty());
        let address = address.ok_or_else(|| Status::bad_request("address not allowed: the pod has no address yet"))?;
        let ports: Vec<&Value> = pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten())
            .collect();
        let port = match self.port {
            "" => ports.first().and_then(|port| port["containerPort"].as_u64()).unwrap_or(80),
            text => match text.parse::<u64>() {
                Ok(number) => number,
                Err(_) => ports
                    .iter()
                    .find(|port| port["name"] == text)
                    .and_then(|port| port["containerPort"].as_u64())
                    .ok_or_else(|| Status::bad_request(format!("no port {text:?} in pod {:?}", self.name)))?,
            },
        };
        self.backend(address, u16::try_from(port).map_err(|_| Status::bad_request("port out of range"))?)
    }

    /// A ready endpoint of a Service.
    pub(crate) async fn service(&self, call: &Call, namespace: &str) -> Result<Backend, Status> {
        let about = About { group: "", resource: "services", name: self.name };
        let service = read::by_name(&call.server, "", "services", namespace, self.name).await?;
        let service = service.ok_or_else(|| Status::not_found(about))?;
        let ports: Vec<Value> = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let wanted = match self.port {
            "" if ports.len() == 1 => ports.first(),
            "" => ports.iter().find(|port| port["name"].as_str().unwrap_or_default().is_empty()),
            text => ports.iter().find(|port| port["name"] == text || port["port"].to_string() == text),
        };
        let unavailable = |why: &str| Status::unavailable(format!("{why} for service \"{}:{}\"", self.name, self.port));
        let wanted = wanted.ok_or_else(|| unavailable("no service port found"))?;
        let port_name = wanted["name"].as_str().unwrap_or_default();
        let slices = read::all(&call.server, "discovery.k8s.io", "endpointslices", namespace).await?;
        let own = slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == self.name);
        let mut found: Vec<(String, u16)> = Vec::new();
        for slice in own {
            let number = slice["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|port| port["name"].as_str().unwrap_or_default() == port_name)
                .and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
            let Some(number) = number else { continue };
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint["conditions"]["ready"] != false
                    && let Some(address) = endpoint["addresses"][0].as_str()
                {
                    found.push((address.into(), number));
                }
            }
        }
        if found.is_empty() {
            return Err(unavailable("no endpoints available"));
        }
        let (address, port) = &found[rand::random_range(0..found.len())];
        self.backend(address, *port)
    }
}

/// The name of an object that a proxy path names, for authorization's and errors' sake.
pub(crate) async fn pod(call: &Call, name: &str) -> Result<Value, Status> {
    let found = read::by_name(&call.server, "", "pods", &call.info.namespace, name).await?;
    let pod = found.ok_or_else(|| Status::not_found(About { group: "", resource: "pods", name }))?;
    debug_assert_eq!(meta::name(&pod), name);
    Ok(pod)
}
