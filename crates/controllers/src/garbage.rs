//! Deletes objects whose owners are gone, in the background or before their owners; or frees them as orphans.
//!
//! Reads: the metadata of everything that can be listed, watched and deleted; custom resources come and go.
//! Writes: deletes anything, `metadata.ownerReferences` and `metadata.finalizers` of anything.
//! Invariant: the graph only says where to look. What is done follows from objects read live, and every write carries
//! the uid (a deletion also the version) it was decided on, so a stale graph can delay a deletion but never cause one.

mod graph;
mod judge;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use client::Queue;
use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::graph::{Graph, ResourceId, Work};
use crate::{
    Error,
    context::Scope,
    driver::Driver,
    error::chain,
    resources::{self, Anything, Resource, SlimMeta},
};

const WORKERS: usize = 20;

/// Changes of these say that the set of served resources may have changed.
const DEFINES_RESOURCES: [(&str, &str); 2] =
    [("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")];

/// Events own nothing, are owned by nothing, and are many.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// After a definition changed, discovery is asked again at these delays: at once, and when the server has settled.
const REDISCOVER: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Waits before a broken watch is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Collector {
    scope: Scope,
    anything: Anything,
    graph: Mutex<Graph>,
    /// Append-only; a [`ResourceId`] is an index. A resource that is no longer served keeps its place.
    resources: RwLock<Vec<Resource>>,
    queue: Queue<Work>,
    redefined: Notify,
}

/// A watched resource and what stops its watch.
struct Monitor {
    stop: CancellationToken,
    synced: tokio::sync::watch::Receiver<bool>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let driver = Driver::<Work>::new(&scope);
    let collector = Arc::new(Collector {
        anything: Anything::new(scope.writer.client().clone()),
        graph: Mutex::default(),
        resources: RwLock::default(),
        queue: driver.queue(),
        redefined: Notify::new(),
        scope: scope.clone(),
    });
    let (ready, first) = tokio::sync::watch::channel(false);
    let mut driver = driver;
    driver.wait({
        let mut first = first;
        async move { drop(first.wait_for(|synced| *synced).await) }.boxed()
    });
    let watching = tokio::spawn({
        let collector = collector.clone();
        async move {
            let cancel = collector.scope.context.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => {}
                () = collector.clone().follow_resources(ready) => {}
            }
        }
    });
    let workers = driver.run(WORKERS, move |work| {
        let collector = collector.clone();
        async move { judge::pass(&collector, work).await }
    });
    vec![watching, workers]
}

impl Collector {
    /// Keeps one watch for each served resource.
    async fn follow_resources(self: Arc<Self>, ready: tokio::sync::watch::Sender<bool>) {
        let mut monitors: HashMap<Resource, Monitor> = HashMap::new();
        loop {
            match self.sync_resources(&mut monitors).await {
                Ok(complete) if complete => {
                    for monitor in monitors.values_mut() {
                        // An error means that the watch was stopped, and then there is nothing to wait for.
                        drop(monitor.synced.wait_for(|synced| *synced).await);
                    }
                    ready.send_replace(true);
                    self.redefined.notified().await;
                    for delay in REDISCOVER {
                        tokio::time::sleep(delay).await;
                        if let Err(error) = self.sync_resources(&mut monitors).await {
                            warn!("cannot find out what the API serves: {}", chain(&error));
                        }
                    }
                    continue;
                }
                Ok(_) => debug!("some groups do not answer discovery"),
                Err(error) => warn!("cannot find out what the API serves: {}", chain(&error)),
            }
            ready.send_if_modified(|synced| !std::mem::replace(synced, !monitors.is_empty()));
            tokio::select! {
                () = tokio::time::sleep(RETRY * 5) => {}
                () = self.redefined.notified() => {}
            }
        }
    }

    /// Starts watches for new resources and stops those of resources that are gone. True if discovery was complete.
    async fn sync_resources(self: &Arc<Self>, monitors: &mut HashMap<Resource, Monitor>) -> Result<bool, Error> {
        let found = resources::discover(self.anything.client()).await?;
        let complete = found.failed.is_empty();
        let wanted: HashSet<Resource> =
            found.resources.into_iter().filter(|r| !IGNORED.contains(&(r.group.as_str(), r.plural.as_str()))).collect();
        monitors.retain(|resource, monitor| {
            let keep = wanted.contains(resource) || found.failed.contains_key(&resource.api_version());
            if !keep {
                info!(resource = resource.full_name(), "no longer served");
                monitor.stop.cancel();
            }
            keep
        });
        for resource in wanted {
            if monitors.contains_key(&resource) {
                continue;
            }
            let id = self.id_of(&resource);
            let (synced, receiver) = tokio::sync::watch::channel(false);
            let stop = self.scope.context.cancel.child_token();
            tokio::spawn({
                let (collector, resource, stop) = (self.clone(), resource.clone(), stop.clone());
                async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = collector.follow(id, &resource, synced) => {}
                    }
                    collector.replace(id, &[]);
                }
            });
            monitors.insert(resource, Monitor { stop, synced: receiver });
        }
        Ok(complete)
    }

    fn id_of(&self, resource: &Resource) -> ResourceId {
        let mut table = self.resources.write();
        let index = table.iter().position(|r| r == resource).unwrap_or_else(|| {
            table.push(resource.clone());
            table.len() - 1
        });
        // Kinds are counted in hundreds.
        ResourceId::try_from(index).unwrap_or(ResourceId::MAX)
    }

    /// Lists and watches one resource for as long as it is served.
    async fn follow(&self, id: ResourceId, resource: &Resource, synced: tokio::sync::watch::Sender<bool>) {
        let defines = DEFINES_RESOURCES.contains(&(resource.group.as_str(), resource.plural.as_str()));
        loop {
            let listed = self.anything.list(resource, "").await;
            match listed {
                Ok((objects, version)) => {
                    self.replace(id, &objects);
                    drop(objects);
                    synced.send_replace(true);
                    let mut next = Some(version);
                    while let Some(version) = next.take() {
                        let ended = self.anything.watch(resource, version, |meta, gone| {
                            let graph = &mut *self.graph.lock();
                            let work = if gone { graph.remove(&meta.uid) } else { graph.apply(id, &meta) };
                            work.into_iter().for_each(|w| self.queue.add(w));
                            if defines {
                                self.redefined.notify_one();
                            }
                        });
                        match ended.await {
                            Ok(version) => next = version,
                            Err(error) => debug!(resource = resource.full_name(), "watch broke: {}", chain(&error)),
                        }
                    }
                }
                // The kind is on its way out; discovery will tell.
                Err(error) if error.is_not_found() => {
                    synced.send_replace(true);
                    self.redefined.notify_one();
                }
                Err(error) => {
                    synced.send_replace(true);
                    warn!(resource = resource.full_name(), "cannot list: {}", chain(&error));
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes the graph hold exactly these objects of one resource.
    fn replace(&self, id: ResourceId, objects: &[SlimMeta]) {
        let graph = &mut *self.graph.lock();
        let present: HashSet<&str> = objects.iter().map(|m| m.uid.as_str()).collect();
        let mut work = Vec::new();
        for gone in graph.uids_of(id).into_iter().filter(|uid| !present.contains(uid.as_str())) {
            work.extend(graph.remove(&gone));
        }
        for meta in objects {
            work.extend(graph.apply(id, meta));
        }
        work.into_iter().for_each(|w| self.queue.add(w));
    }
}
