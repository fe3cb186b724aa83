//! Every kind the API serves, custom ones too, handled through nothing but their metadata.
//!
//! For controllers that care about objects of any kind: garbage collection and the emptying of namespaces. Objects are
//! asked for as `PartialObjectMetadata` and read into [`Slim`], so that neither specs nor labels are ever held.

use std::collections::{BTreeMap, HashSet};

use client::{Client, Key};
use futures::StreamExt;
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, Preconditions, Request, WatchEvent, WatchParams,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Error,
    kinds::{OwnerReference, Time},
};

/// A served resource in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    /// Whether `deletecollection` is served.
    pub(crate) collection: bool,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    fn url(&self, namespace: &str) -> Request {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let base = format!("{root}/{}", self.api_version());
        Request::new(match namespace {
            "" => format!("{base}/{}", self.plural),
            _ => format!("{base}/namespaces/{namespace}/{}", self.plural),
        })
    }
}

/// The metadata that decides over life and death.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SlimMeta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) deletion_timestamp: Option<Time>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) owner_references: Vec<OwnerReference>,
}

/// An object of any kind.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Slim {
    #[serde(default)]
    pub(crate) metadata: SlimMeta,
}

impl SlimMeta {
    pub(crate) fn key(&self) -> Key {
        Key::new(&*self.namespace, &*self.name)
    }
}

#[derive(Deserialize)]
struct SlimList {
    #[serde(default)]
    metadata: ListMeta,
    /// `null` for none.
    items: Option<Vec<Slim>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

/// What the API serves, as far as it could be found out.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Each resource once, in the version its group prefers.
    pub(crate) resources: Vec<Resource>,
    /// Groups that did not answer, with the reason.
    pub(crate) failed: BTreeMap<String, String>,
}

/// Asks for all resources that can be listed, watched and deleted.
pub(crate) async fn discover(client: &Client) -> Result<Discovered, Error> {
    let failed = |source| api_error("discover", "APIGroup", Key::new("", "*"), source);
    let mut versions: Vec<(String, String)> = client
        .list_core_api_versions()
        .await
        .map_err(failed)?
        .versions
        .into_iter()
        .map(|v| (String::new(), v))
        .collect();
    for group in client.list_api_groups().await.map_err(failed)?.groups {
        let preferred = group.preferred_version.map(|v| v.version);
        versions.extend(preferred.clone().map(|v| (group.name.clone(), v)));
        let others = group.versions.into_iter().map(|v| v.version).filter(|v| Some(v) != preferred.as_ref());
        versions.extend(others.map(|v| (group.name.clone(), v)));
    }
    let mut seen = HashSet::new();
    let mut found = Discovered::default();
    for (group, version) in versions {
        let name = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        let answer = match group.as_str() {
            "" => client.list_core_api_resources(&version).await,
            _ => client.list_api_group_resources(&name).await,
        };
        let list = match answer {
            Ok(list) => list.resources,
            Err(error) => {
                found.failed.insert(name, crate::error::chain(&error));
                continue;
            }
        };
        for item in list {
            let can = |verb: &str| item.verbs.iter().any(|v| v == verb);
            let usable = can("list") && can("watch") && can("delete") && !item.name.contains('/');
            if usable && seen.insert((group.clone(), item.name.clone())) {
                found.resources.push(Resource {
                    group: group.clone(),
                    version: version.clone(),
                    collection: can("deletecollection"),
                    plural: item.name,
                    kind: item.kind,
                    namespaced: item.namespaced,
                });
            }
        }
    }
    Ok(found)
}

fn api_error(verb: &'static str, kind: &str, key: Key, source: kube::Error) -> Error {
    Error::Api { verb, kind: kind.to_owned(), key, source: Box::new(source) }
}

/// Metadata access to any kind as one user.
#[derive(Clone)]
pub(crate) struct Anything {
    client: Client,
}

type Built<E> = Result<http::Request<Vec<u8>>, E>;

impl Anything {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    async fn call<R: DeserializeOwned>(
        &self,
        verb: &'static str,
        resource: &Resource,
        key: Key,
        request: Built<impl std::fmt::Display>,
    ) -> Result<R, Error> {
        let request = match request {
            Ok(request) => request,
            Err(why) => {
                return Err(Error::Request { verb, kind: resource.kind.clone(), key, why: why.to_string() });
            }
        };
        self.client.request(request).await.map_err(|e| api_error(verb, &resource.kind, key, e))
    }

    pub(crate) async fn get(&self, resource: &Resource, key: &Key) -> Result<Option<SlimMeta>, Error> {
        let request = resource.url(&key.namespace).get_metadata(&key.name, &GetParams::default());
        match self.call::<Slim>("get", resource, key.clone(), request).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(|slim| Some(slim.metadata)),
        }
    }

    /// All objects of the kind (in the namespace, if one is given), and the version of the list.
    pub(crate) async fn list(&self, resource: &Resource, namespace: &str) -> Result<(Vec<SlimMeta>, String), Error> {
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(500);
        loop {
            let request = resource.url(namespace).list_metadata(&params);
            let page: SlimList = self.call("list", resource, Key::new(namespace, "*"), request).await?;
            all.extend(page.items.into_iter().flatten().map(|i| i.metadata));
            if page.metadata.r#continue.is_empty() {
                return Ok((all, page.metadata.resource_version));
            }
            params = params.continue_token(&page.metadata.r#continue);
        }
    }

    pub(crate) async fn merge_patch(&self, resource: &Resource, key: &Key, patch: Value) -> Result<(), Error> {
        let request =
            resource.url(&key.namespace).patch_metadata(&key.name, &PatchParams::default(), &Patch::Merge(patch));
        self.call::<Slim>("patch", resource, key.clone(), request).await.map(drop)
    }

    /// Deletes the object if it still has this uid and version.
    pub(crate) async fn delete(
        &self,
        resource: &Resource,
        key: &Key,
        preconditions: Option<Preconditions>,
        mut params: DeleteParams,
    ) -> Result<(), Error> {
        params.preconditions = preconditions;
        let request = resource.url(&key.namespace).delete(&key.name, &params);
        match self.call::<Value>("delete", resource, key.clone(), request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) async fn delete_all(&self, resource: &Resource, namespace: &str) -> Result<(), Error> {
        let request = resource.url(namespace).delete_collection(&DeleteParams::background(), &ListParams::default());
        match self.call::<Value>("delete all", resource, Key::new(namespace, "*"), request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Watches from `version` on and reports each object, and whether it is gone. Ends when the server ends it; the
    /// answer is the version to go on from, or `None` if that version is too old and a new list is due.
    pub(crate) async fn watch(
        &self,
        resource: &Resource,
        mut version: String,
        mut on: impl FnMut(SlimMeta, bool),
    ) -> Result<Option<String>, Error> {
        let key = Key::new("", "*");
        let request = resource.url("").watch_metadata(&WatchParams::default(), &version);
        let request = request.map_err(|why| Error::Request {
            verb: "watch",
            kind: resource.kind.clone(),
            key: key.clone(),
            why: why.to_string(),
        })?;
        let failed = |e| api_error("watch", &resource.kind, key.clone(), e);
        let events = self.client.request_events::<Slim>(request).await.map_err(failed)?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event.map_err(failed)? {
                WatchEvent::Added(slim) | WatchEvent::Modified(slim) => {
                    version.clone_from(&slim.metadata.resource_version);
                    on(slim.metadata, false);
                }
                WatchEvent::Deleted(slim) => {
                    version.clone_from(&slim.metadata.resource_version);
                    on(slim.metadata, true);
                }
                WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == 410 => return Ok(None),
                WatchEvent::Error(status) => return Err(failed(kube::Error::Api(status))),
            }
        }
        Ok(Some(version))
    }
}
