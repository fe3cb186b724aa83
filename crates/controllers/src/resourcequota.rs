//! Reports how much of each ResourceQuota is used.
//!
//! Reads: ResourceQuota, Pod, Service, PersistentVolumeClaim, and the metadata of whatever a quota counts.
//! Writes: ResourceQuota/status.
//! Admission raises the used amounts as objects come; this loop sets them right, above all when objects go. Pods,
//! Services and claims wake it; other counted kinds have no informer here and are counted anew every 30 s.

mod usage;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{Informer, Key, Object, Queue};
use tokio::{sync::Mutex, task::JoinHandle};

use self::usage::Usage;
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::core::{PersistentVolumeClaim, Pod, ResourceQuota, Service},
    meta::Meta,
    pods::state,
    resources::{self, Anything, Resource},
};

const RECOUNT: Duration = Duration::from_secs(30);

struct Loop {
    scope: Scope,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    anything: Anything,
    /// What the API serves, asked for again when a counted name is not in it.
    served: Mutex<Vec<Resource>>,
}

fn wake_namespace<K: Object>(object: Option<&Arc<K>>, queue: &Queue<Key>, quotas: &Informer<ResourceQuota>) {
    if let Some(object) = object {
        quotas.list_in(object.namespace()).iter().for_each(|q| queue.add(q.key()));
    }
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let quotas = driver.watch::<ResourceQuota>(driver::wake);
    let pods = driver.watch::<Pod>({
        let quotas = quotas.clone();
        move |change, queue| {
            let view = |p: &Arc<Pod>| (state::is_terminal(p), p.is_deleting(), p.generation());
            if change.old.as_ref().map(view) != change.new.as_ref().map(view) {
                wake_namespace(change.new.as_ref().or(change.old.as_ref()), queue, &quotas);
            }
        }
    });
    let services = driver.watch::<Service>({
        let quotas = quotas.clone();
        move |change, queue| wake_namespace(change.new.as_ref().or(change.old.as_ref()), queue, &quotas)
    });
    let claims = driver.watch::<PersistentVolumeClaim>({
        let quotas = quotas.clone();
        move |change, queue| wake_namespace(change.new.as_ref().or(change.old.as_ref()), queue, &quotas)
    });
    let anything = Anything::new(scope.writer.client().clone());
    let this = Arc::new(Loop { scope, quotas, pods, services, claims, anything, served: Mutex::default() });
    vec![driver.run(5, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(quota) = self.quotas.get(&key).filter(|q| !q.is_deleting()) else { return Ok(None) };
        let hard = quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
        let mut usage = Usage::default();
        for pod in self.pods.list_in(&key.namespace) {
            usage.add_pod(&quota, &pod, self.scope.now());
        }
        for service in self.services.list_in(&key.namespace) {
            usage.add_service(&service);
        }
        for claim in self.claims.list_in(&key.namespace) {
            usage.add_claim(&claim);
        }
        let mut again = None;
        for name in hard.keys().filter(|name| !usage::is_computed(name)) {
            if let Some(count) = self.count(&key.namespace, name).await? {
                usage.set_count(name, count);
                again = Some(RECOUNT);
            }
        }
        let used: BTreeMap<_, _> = hard.keys().map(|name| (name.clone(), usage.of(name))).collect();
        let mut next = ResourceQuota::clone(&quota);
        let status = next.status.get_or_insert_default();
        let same = |a: &BTreeMap<_, _>, b: Option<&BTreeMap<_, _>>| b.is_some_and(|b| usage::same(a, b));
        if !same(&used, status.used.as_ref()) || !same(&hard, status.hard.as_ref()) {
            status.used = Some(used);
            status.hard = Some(hard);
            self.scope.writer.update_status(&next).await?;
        }
        Ok(again)
    }

    /// Counts objects of the kind that a quota names as `configmaps` or `count/RESOURCE.GROUP`.
    async fn count(&self, namespace: &str, name: &str) -> Result<Option<usize>, Error> {
        let Some(resource) = self.find(name).await? else { return Ok(None) };
        Ok(Some(self.anything.list(&resource, namespace).await?.0.len()))
    }

    async fn find(&self, name: &str) -> Result<Option<Resource>, Error> {
        let plain = name.strip_prefix("count/").unwrap_or(name);
        let (plural, group) = plain.split_once('.').unwrap_or((plain, ""));
        let wanted = |r: &&Resource| r.plural == plural && r.group == group && r.namespaced;
        let mut served = self.served.lock().await;
        if served.iter().find(wanted).is_none() {
            *served = resources::discover(self.anything.client()).await?.resources;
        }
        Ok(served.iter().find(wanted).cloned())
    }
}
