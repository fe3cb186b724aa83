//! What a cluster has from its first second: namespaces, roles, classes and the `kubernetes` Service.
//!
//! Everything is reconciled at each start: what is missing is made, default roles get back the rules they lost, and what
//! users changed otherwise stays.

use std::sync::Arc;

use serde_json::json;

use crate::{
    authz::{node::NodeAuthorizer, rbac::Rbac},
    catalog::Served,
    pipeline::call::Call,
    registry::create,
    server::{Error, Server},
};

/// Namespaces of the system.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Server {
    /// Learns what is stored and makes what every cluster has. Runs once, before the first request of a user.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), Error> {
        Rbac::start(self).await;
        NodeAuthorizer::start(self).await;
        for name in NAMESPACES {
            ensure(self, "", "namespaces", "", json!({"metadata": {"name": name}})).await?;
        }
        Ok(())
    }
}

/// Creates an object unless it is there.
async fn ensure(
    server: &Arc<Server>,
    group: &str,
    plural: &str,
    namespace: &str,
    object: serde_json::Value,
) -> Result<(), Error> {
    let named = |object: &serde_json::Value| format!("{plural} {}", object["metadata"]["name"]);
    let object_name = named(&object);
    let fail = |status| Error::Bootstrap { object: object_name.clone(), status };
    let served: Served =
        server.catalog().stored(group, plural).ok_or_else(|| fail(api::status::Status::no_such_path()))?;
    let mut call = Call::internal(server);
    call.info.namespace = namespace.into();
    match create::create(&call, &served, object, false).await {
        Ok(_) => Ok(()),
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        Err(status) => Err(fail(status)),
    }
}
