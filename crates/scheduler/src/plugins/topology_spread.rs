//! Topology spread constraints: how uneven matching pods may be over zones, hosts or other domains.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::{
    api::core::v1::TopologySpreadConstraint,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};

use super::{node_affinity::NodeAffinity, taint_toleration::TaintToleration};
use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::{Cycle, Event, Plugin, SCORE_MAX, Verdict, View},
    selectors::labels_match,
};

pub(crate) struct TopologySpread;

struct Constraint {
    key: String,
    skew_max: i64,
    selector: LabelSelector,
    hard: bool,
    domains_min: i64,
    self_match: i64,
    /// Matching pods by domain, over the nodes that count.
    counts: HashMap<String, i64>,
}

struct Spread {
    constraints: Vec<Constraint>,
}

impl Plugin for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let wanted = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref());
        let wanted = wanted.unwrap_or_default();
        if wanted.is_empty() {
            return Ok(None);
        }
        let affinity = NodeAffinity.view(cycle)?;
        let taints = TaintToleration.view(cycle)?;
        let fits = |view: &Option<Box<dyn View + 'a>>, node: &NodeInfo| {
            view.as_ref().is_none_or(|view| view.filter(node) == Verdict::Fits)
        };
        let keys: HashSet<&str> = wanted.iter().filter(|one| hard(one)).map(|one| one.topology_key.as_str()).collect();
        let mut constraints: Vec<Constraint> = wanted.iter().map(|one| Constraint::new(one, cycle.pod)).collect();
        for node in cycle.nodes {
            if !keys.iter().all(|key| node.labels().contains_key(*key)) {
                continue;
            }
            for (constraint, one) in constraints.iter_mut().zip(wanted) {
                let honours = |policy: &Option<String>, default: bool| match policy.as_deref() {
                    None => default,
                    Some(policy) => policy == "Honor",
                };
                if honours(&one.node_affinity_policy, true) && !fits(&affinity, node)
                    || honours(&one.node_taints_policy, false) && !fits(&taints, node)
                {
                    continue;
                }
                let Some(domain) = node.labels().get(&constraint.key) else { continue };
                let here = node.pods.iter().filter(|placed| constraint.counts(placed, cycle.pod)).count();
                *constraint.counts.entry(domain.clone()).or_default() += here as i64;
            }
        }
        Ok(Some(Box::new(Spread { constraints })))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes(&self, event: Event) -> bool {
        !matches!(event, Event::Storage | Event::NamespaceChanged)
    }
}

fn hard(constraint: &TopologySpreadConstraint) -> bool {
    constraint.when_unsatisfiable == "DoNotSchedule"
}

impl Constraint {
    fn new(one: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut selector = one.label_selector.clone().unwrap_or_else(|| LabelSelector {
            // No selector selects nothing.
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: String::new(),
                operator: "Exists".into(),
                values: None,
            }]),
            match_labels: None,
        });
        let same: BTreeMap<String, String> = one
            .match_label_keys
            .iter()
            .flatten()
            .filter_map(|key| pod.labels().get(key).map(|value| (key.clone(), value.clone())))
            .collect();
        if !same.is_empty() {
            selector.match_labels.get_or_insert_default().extend(same);
        }
        Self {
            key: one.topology_key.clone(),
            skew_max: i64::from(one.max_skew),
            self_match: i64::from(labels_match(Some(&selector), pod.labels())),
            selector,
            hard: hard(one),
            domains_min: i64::from(one.min_domains.unwrap_or(1)),
            counts: HashMap::new(),
        }
    }

    fn counts(&self, placed: &PodInfo, pod: &PodInfo) -> bool {
        placed.namespace() == pod.namespace()
            && placed.pod.metadata.deletion_timestamp.is_none()
            && labels_match(Some(&self.selector), placed.labels())
    }
}

impl View for Spread {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        for constraint in self.constraints.iter().filter(|constraint| constraint.hard) {
            let Some(domain) = node.labels().get(&constraint.key) else {
                return Verdict::Never(
                    "node(s) didn't match pod topology spread constraints (missing required label)".into(),
                );
            };
            let least = if (constraint.counts.len() as i64) < constraint.domains_min {
                0
            } else {
                constraint.counts.values().copied().min().unwrap_or(0)
            };
            let here = constraint.counts.get(domain).copied().unwrap_or(0);
            if here + constraint.self_match - least > constraint.skew_max {
                return Verdict::Full(vec!["node(s) didn't match pod topology spread constraints".into()]);
            }
        }
        Verdict::Fits
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = self.constraints.iter().filter(|constraint| !constraint.hard);
        soft.map(|constraint| match node.labels().get(&constraint.key) {
            Some(domain) => constraint.counts.get(domain).copied().unwrap_or(0) + constraint.skew_max - 1,
            None => constraint.counts.values().copied().max().unwrap_or(0) + constraint.skew_max,
        })
        .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (Some(&least), Some(&most)) = (scores.iter().min(), scores.iter().max()) else { return };
        for score in scores {
            *score =
                if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - *score) / most.max(1) }.min(SCORE_MAX);
        }
    }
}
