//! Which Pods a Job that goes on creates and deletes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    FINALIZER,
    count::{self, Account},
    failure::{self, INDEX_FAILURES, Meaning},
    indexes::{self, INDEX, Indexes},
    plan::View,
};
use crate::{
    kinds::{
        batch::Job,
        core::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
    },
    meta::{Meta, sooner},
    pods::{rank, state, template},
};

/// Pods created or deleted in one pass.
const BURST: usize = 500;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) again: Option<Duration>,
}

pub(super) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.suspend) == Some(true)
}

pub(super) fn manage(view: &View<'_>, account: &Account) -> Changes {
    let mut active: Vec<Arc<Pod>> = view.active().cloned().collect();
    if is_suspended(view.job) {
        active.truncate(BURST);
        return Changes { delete: active, ..Changes::default() };
    }
    let parallelism = view.job.spec.as_ref().and_then(|s| s.parallelism).unwrap_or(1);
    let running = i32::try_from(active.len()).unwrap_or(i32::MAX);
    let wanted = match count::completions(view.job) {
        None if account.succeeded() > 0 => running.min(parallelism),
        None => parallelism,
        Some(total) => parallelism.min(total - account.succeeded()).max(0),
    };
    let mut delete = excess(view, &mut active, wanted);
    if !delete.is_empty() {
        delete.truncate(BURST);
        return Changes { delete, ..Changes::default() };
    }
    let leaving = if failure::replaces_only_failed(view.job) { view.terminating() } else { 0 };
    let room = usize::try_from(wanted - running - leaving).unwrap_or(0).min(BURST);
    create(view, account, room)
}

/// Pods beyond the wanted number, and all but one of those that share an index.
fn excess(view: &View<'_>, active: &mut [Arc<Pod>], wanted: i32) -> Vec<Arc<Pod>> {
    rank::sort_for_deletion(active, &[], view.now);
    let total = count::completions(view.job).unwrap_or(0);
    let mut delete: Vec<Arc<Pod>> = Vec::new();
    let mut keep = Vec::new();
    if count::is_indexed(view.job) {
        let mut seen = BTreeSet::new();
        for pod in active.iter().rev() {
            match indexes::of(pod, total) {
                Some(index) if seen.insert(index) => keep.insert(0, pod.clone()),
                _ => delete.push(pod.clone()),
            }
        }
    } else {
        keep = active.to_vec();
    }
    let surplus = keep.len().saturating_sub(usize::try_from(wanted).unwrap_or(0));
    delete.extend(keep.into_iter().take(surplus));
    delete
}

fn create(view: &View<'_>, account: &Account, room: usize) -> Changes {
    let mut changes = Changes::default();
    let per_index = count::limit_per_index(view.job).is_some();
    if !per_index && let Some(wait) = failure::backoff(view.job, view.pods, None, view.now) {
        changes.again = (room > 0).then_some(wait);
        return changes;
    }
    if !count::is_indexed(view.job) {
        changes.create = (0..room).filter_map(|_| new_pod(view.job)).collect();
        return changes;
    }
    for index in missing(view, account) {
        if changes.create.len() >= room {
            break;
        }
        let wait = failure::backoff(view.job, view.pods, Some(index), view.now).filter(|_| per_index);
        if wait.is_some() {
            changes.again = sooner(changes.again, wait);
        } else {
            changes.create.extend(indexed_pod(view, index, per_index));
        }
    }
    changes
}

/// Indexes without a Pod that are neither completed nor failed, lowest first.
fn missing(view: &View<'_>, account: &Account) -> impl Iterator<Item = i32> {
    let total = count::completions(view.job).unwrap_or(0);
    let only_failed = failure::replaces_only_failed(view.job);
    let occupies = |p: &&Arc<Pod>| state::is_active(p) || only_failed && state::is_terminating(p);
    let mut taken: Indexes = view.pods.iter().filter(occupies).filter_map(|p| indexes::of(p, total)).collect();
    taken.extend(&account.completed);
    taken.extend(&account.failed_indexes);
    (0..total).filter(move |index| !taken.contains(index))
}

fn new_pod(job: &Job) -> Option<Pod> {
    let mut pod = template::pod(job, &job.spec.as_ref()?.template);
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    Some(pod)
}

fn indexed_pod(view: &View<'_>, index: i32, per_index: bool) -> Option<Pod> {
    let mut pod = new_pod(view.job)?;
    let name = format!("{}-{index}", view.job.name());
    pod.metadata.generate_name = Some(format!("{name}-"));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if per_index {
        let total = count::completions(view.job).unwrap_or(0);
        let before = view.pods.iter().filter(|p| indexes::of(p, total) == Some(index));
        let failures = before
            .filter(|p| failure::has_failed(view.job, p))
            .map(|p| failure::index_failures(p) + i32::from(failure::meaning(view.job, p) != Meaning::Ignore));
        annotations.insert(INDEX_FAILURES.to_owned(), failures.max().unwrap_or(0).to_string());
    }
    let spec = pod.spec.as_mut()?;
    spec.hostname = Some(name);
    let variable = EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if variables.iter().all(|v| v.name != INDEX_VARIABLE) {
            variables.push(variable.clone());
        }
    }
    Some(pod)
}
