//! Gives every namespace its `default` ServiceAccount.
//!
//! Reads: Namespace, ServiceAccount.  Writes: ServiceAccount.

use client::Key;
use std::sync::Arc;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver},
    kinds::{
        ObjectMeta,
        core::{Namespace, ServiceAccount},
    },
    meta::Meta,
};

const NAME: &str = "default";

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let namespaces = driver.watch::<Namespace>(driver::wake);
    let accounts = driver.watch::<ServiceAccount>(|change, queue| {
        if let (Some(old), None) = (&change.old, &change.new)
            && old.name() == NAME
        {
            queue.add(Key::new("", old.namespace()));
        }
    });
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (namespaces, accounts, scope) = (namespaces.clone(), accounts.clone(), scope.clone());
        async move {
            let alive = namespaces.get(&key).is_some_and(|n| !n.is_deleting());
            if !alive || accounts.get(&Key::new(&*key.name, NAME)).is_some() {
                return Ok(None);
            }
            let account = ServiceAccount {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(key.name),
                    ..ObjectMeta::default()
                },
                ..ServiceAccount::default()
            };
            match scope.writer.create(&account).await {
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(None),
                other => other.map(|_| None),
            }
        }
    })]
}
