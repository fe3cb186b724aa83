//! Reading single objects from the store, for handlers, admission and authorization.

use api::{status::Status, stored};
use serde_json::Value;
use store::{Entry, Range};

use super::store_failed;
use crate::{catalog::Served, pipeline::call::Call, server::Server};

/// The entry of an object, or 404.
pub(crate) async fn entry(call: &Call, served: &Served, namespace: &str, name: &str) -> Result<Entry, Status> {
    find(&call.server, &served.key(namespace, name)).await?.ok_or_else(|| Status::not_found(served.about(name)))
}

/// The object in its storage version, or 404.
pub(crate) async fn object(call: &Call, served: &Served, namespace: &str, name: &str) -> Result<Value, Status> {
    let entry = entry(call, served, namespace, name).await?;
    stored::decode(&entry.value, entry.mod_revision)
}

/// The entry of a key.
pub(crate) async fn find(server: &Server, key: &str) -> Result<Option<Entry>, Status> {
    let result = server.store().range(Range::key(key)).await.map_err(store_failed)?;
    Ok(result.entries.into_iter().next())
}

/// A stored object by its group, resource and name, in the storage version.
pub(crate) async fn by_name(
    server: &Server,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Status> {
    let key = crate::catalog::prefix(group, plural, namespace) + name;
    find(server, &key).await?.map(|entry| stored::decode(&entry.value, entry.mod_revision)).transpose()
}

/// All stored objects of a resource, or those in a namespace.
pub(crate) async fn all(server: &Server, group: &str, plural: &str, namespace: &str) -> Result<Vec<Value>, Status> {
    let prefix = crate::catalog::prefix(group, plural, namespace);
    let result = server.store().range(Range::prefix(prefix)).await.map_err(store_failed)?;
    result.entries.iter().map(|entry| stored::decode(&entry.value, entry.mod_revision)).collect()
}
