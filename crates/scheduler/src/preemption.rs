//! Making room: which less important pods would have to go, on which node.
//!
//! Source: concept page "Pod Priority and Preemption". Only nodes that refused for what runs on them are candidates.
//! On each, all less important pods are taken off in thought and put back, most important first, while the pod still
//! fits; budgets are respected where that is possible.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::{api::policy::v1::PodDisruptionBudget, jiff::Timestamp};

use crate::{
    cluster::{NodeInfo, PodInfo},
    cycle::{Refusals, Views},
    plugin::{Cycle, Listers},
    selectors::labels_match,
};

/// At most this many nodes are tried.
const CANDIDATES_MAX: usize = 100;

/// The node to make room on, and the pods that go.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<PodInfo>>,
}

struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Finds the least harmful way to make `pod` fit; `None` if there is none.
pub(crate) fn plan(
    pod: &PodInfo,
    nodes: &[Arc<NodeInfo>],
    refusals: &Refusals,
    listers: Option<&Listers>,
) -> Option<Plan> {
    let policy = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return None;
    }
    let budgets = listers.map(|listers| listers.budgets.list()).unwrap_or_default();
    let mut candidates: Vec<Candidate> = Vec::new();
    for name in &refusals.full {
        let Ok(index) = nodes.binary_search_by(|node| node.name.as_str().cmp(name)) else { continue };
        candidates.extend(on_node(pod, nodes, index, listers, &budgets));
        if candidates.len() >= CANDIDATES_MAX {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(|candidate| {
        let priorities = || candidate.victims.iter().map(|victim| i64::from(victim.priority));
        let youngest_first = candidate.victims.iter().filter_map(|victim| started(victim)).min();
        (
            candidate.violations,
            priorities().max().unwrap_or(i64::MIN),
            priorities().sum::<i64>(),
            candidate.victims.len(),
            Reverse(youngest_first),
        )
    })?;
    Some(Plan { node: best.node, victims: best.victims })
}

fn started(pod: &PodInfo) -> Option<Timestamp> {
    pod.pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

fn on_node(
    pod: &PodInfo,
    nodes: &[Arc<NodeInfo>],
    index: usize,
    listers: Option<&Listers>,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Candidate> {
    let mut nodes = nodes.to_vec();
    let mut removed: Vec<Arc<PodInfo>> =
        nodes[index].pods.iter().filter(|placed| placed.priority < pod.priority).cloned().collect();
    if removed.is_empty() {
        return None;
    }
    for victim in &removed {
        Arc::make_mut(&mut nodes[index]).remove(&victim.uid);
    }
    let fits = |nodes: &[Arc<NodeInfo>]| {
        let cycle = Cycle { pod, nodes, listers };
        Views::new(&cycle).is_ok_and(|views| views.filter(&nodes[index]).is_ok())
    };
    if !fits(&nodes) {
        return None;
    }
    // Those whose budget would be violated are put back first, then the important ones, then the old ones.
    let violating = violations(&removed, budgets);
    removed.sort_by_key(|victim| (!violating.contains(&victim.uid), Reverse(victim.priority), started(victim)));
    let (mut victims, mut violated) = (Vec::new(), 0);
    for placed in removed {
        Arc::make_mut(&mut nodes[index]).add(Arc::clone(&placed));
        if !fits(&nodes) {
            Arc::make_mut(&mut nodes[index]).remove(&placed.uid);
            violated += usize::from(violating.contains(&placed.uid));
            victims.push(placed);
        }
    }
    Some(Candidate { node: nodes[index].name.clone(), victims, violations: violated })
}

/// UIDs of the pods that their budgets do not allow to be disrupted.
fn violations(pods: &[Arc<PodInfo>], budgets: &[Arc<PodDisruptionBudget>]) -> Vec<String> {
    let mut allowed: Vec<i32> = budgets
        .iter()
        .map(|budget| budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0))
        .collect();
    let mut violating = Vec::new();
    for pod in pods {
        let mut violates = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            if budget.metadata.namespace.as_deref() != Some(pod.namespace()) || !labels_match(selector, pod.labels()) {
                continue;
            }
            *allowed -= 1;
            violates |= *allowed < 0;
        }
        if violates {
            violating.push(pod.uid.clone());
        }
    }
    violating
}
