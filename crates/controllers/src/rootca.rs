//! Publishes the cluster's certificate authority in every namespace, as ConfigMap `kube-root-ca.crt`.
//!
//! Reads: Namespace, ConfigMap.  Writes: ConfigMap.

use std::{collections::BTreeMap, sync::Arc};

use client::{Informer, Key};
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        ObjectMeta,
        core::{ConfigMap, Namespace},
    },
    meta::{Labels, Meta},
};

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
     internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let namespaces = driver.watch::<Namespace>(driver::wake);
    // One map in each namespace, and no other, is watched.
    let maps = scope.context.informers.select::<ConfigMap>(&format!("metadata.name={NAME}"), "");
    driver.wait_for(&maps);
    let queue = driver.queue();
    maps.on_change(move |change| {
        if let Some(map) = change.new.as_ref().or(change.old.as_ref()) {
            queue.add(Key::new("", map.namespace()));
        }
    });
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (namespaces, maps, scope) = (namespaces.clone(), maps.clone(), scope.clone());
        async move { pass(&scope, &namespaces, &maps, key).await }
    })]
}

async fn pass(scope: &Scope, namespaces: &Informer<Namespace>, maps: &Informer<ConfigMap>, key: Key) -> Outcome {
    if namespaces.get(&key).is_none_or(|n| n.is_deleting()) {
        return Ok(None);
    }
    let data = BTreeMap::from([(FILE.to_owned(), scope.config().cluster_ca_pem.clone())]);
    let annotations = Labels::from([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())]);
    let outcome = match maps.get(&Key::new(&*key.name, NAME)) {
        Some(map) if map.data.as_ref() == Some(&data) && map.annotation(DESCRIPTION).is_some() => return Ok(None),
        Some(map) => {
            let mut next = ConfigMap::clone(&map);
            next.data = Some(data);
            next.metadata.annotations.get_or_insert_default().extend(annotations);
            scope.writer.update(&next).await
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(key.name),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            };
            scope.writer.create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }).await
        }
    };
    match outcome {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(None),
        other => other.map(|_| None),
    }
}
