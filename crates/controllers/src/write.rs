//! The verbs of the API for any kind, with errors that name verb, kind and object.

use client::{Client, Key, Object};
use kube::{
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, Request},
    core::ObjectList,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// Writes as one user.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
}

type Raw = http::Request<Vec<u8>>;

fn url<K: Object>(namespace: &str) -> Request {
    Request::new(K::url_path(&(), Some(namespace).filter(|n| !n.is_empty())))
}

impl Writer {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    async fn call<K: Object, R: DeserializeOwned>(
        &self,
        verb: &'static str,
        key: Key,
        request: Result<Raw, impl std::fmt::Display>,
    ) -> Result<R, Error> {
        let kind = K::kind(&()).into_owned();
        let request = match request {
            Ok(request) => request,
            Err(why) => return Err(Error::Request { verb, kind, key, why: why.to_string() }),
        };
        match self.client.request(request).await {
            Ok(answer) => Ok(answer),
            Err(source) => Err(Error::Api { verb, kind, key, source: Box::new(source) }),
        }
    }

    /// Reads the object past the caches; `None` if there is no such object.
    pub(crate) async fn get<K: Object>(&self, key: &Key) -> Result<Option<K>, Error> {
        let request = url::<K>(&key.namespace).get(&key.name, &GetParams::default());
        match self.call::<K, K>("get", key.clone(), request).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Lists past the caches; namespace `""` means all.
    pub(crate) async fn list<K: Object>(&self, namespace: &str, params: &ListParams) -> Result<Vec<K>, Error> {
        let request = url::<K>(namespace).list(params);
        self.call::<K, ObjectList<K>>("list", Key::new(namespace, "*"), request).await.map(|list| list.items)
    }

    pub(crate) async fn create<K: Object>(&self, object: &K) -> Result<K, Error> {
        let key = key_of(object);
        let body = encode("create", object, &key)?;
        self.call::<K, K>("create", key.clone(), url::<K>(&key.namespace).create(&PostParams::default(), body)).await
    }

    /// Replaces the object if nobody else has since the version it carries.
    pub(crate) async fn update<K: Object>(&self, object: &K) -> Result<K, Error> {
        let key = key_of(object);
        let body = encode("update", object, &key)?;
        let request = url::<K>(&key.namespace).replace(&key.name, &PostParams::default(), body);
        self.call::<K, K>("update", key, request).await
    }

    pub(crate) async fn update_status<K: Object>(&self, object: &K) -> Result<K, Error> {
        self.update_subresource("status", object).await
    }

    pub(crate) async fn update_subresource<K: Object>(&self, name: &'static str, object: &K) -> Result<K, Error> {
        let key = key_of(object);
        let body = encode(name, object, &key)?;
        let request = url::<K>(&key.namespace).replace_subresource(name, &key.name, &PostParams::default(), body);
        self.call::<K, K>("update status of", key, request).await
    }

    /// Strategic merge patch.
    pub(crate) async fn patch<K: Object>(&self, key: &Key, patch: Value) -> Result<K, Error> {
        let request = url::<K>(&key.namespace).patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch));
        self.call::<K, K>("patch", key.clone(), request).await
    }

    /// Strategic merge patch of a subresource.
    pub(crate) async fn patch_subresource<K: Object>(
        &self,
        name: &'static str,
        key: &Key,
        patch: Value,
    ) -> Result<K, Error> {
        let request = url::<K>(&key.namespace).patch_subresource(
            name,
            &key.name,
            &PatchParams::default(),
            &Patch::Strategic(patch),
        );
        self.call::<K, K>("patch", key.clone(), request).await
    }

    /// Deletes the object, if it still is the one with this uid when one is given. Already gone is fine.
    pub(crate) async fn delete<K: Object>(&self, key: &Key, uid: Option<&str>) -> Result<(), Error> {
        self.delete_with::<K>(key, uid, DeleteParams::default()).await
    }

    pub(crate) async fn delete_with<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        mut params: DeleteParams,
    ) -> Result<(), Error> {
        if let Some(uid) = uid {
            params.preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        }
        let request = url::<K>(&key.namespace).delete(&key.name, &params);
        match self.call::<K, Value>("delete", key.clone(), request).await {
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(drop),
        }
    }
}

fn key_of<K: Object>(object: &K) -> Key {
    let meta = object.meta();
    let name = meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or_default();
    Key::new(meta.namespace.as_deref().unwrap_or_default(), name)
}

fn encode<K: Object>(verb: &'static str, body: &K, key: &Key) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|why| Error::Request {
        verb,
        kind: K::kind(&()).into_owned(),
        key: key.clone(),
        why: why.to_string(),
    })
}
