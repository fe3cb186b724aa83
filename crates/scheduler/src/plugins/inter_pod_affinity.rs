//! Pods that want to be near to, or away from, other pods.
//!
//! Counted once for each cycle, by topology value: `counts[term][value]`. A term of the incoming pod looks at pods that
//! are placed; required anti-affinity of placed pods looks at the incoming one.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::{Cycle, Event, Plugin, SCORE_MAX, Verdict, View},
    selectors::Term,
};

pub(crate) struct InterPodAffinity;

/// Weight of a placed pod's required affinity for the incoming one, in ranking.
const HARD_WEIGHT: i64 = 1;

struct Counted<'a> {
    pod: &'a PodInfo,
    /// For each required affinity term: topology values with a pod that all required terms speak of.
    near: Vec<HashSet<String>>,
    /// For each required anti-affinity term: topology values with a pod that it speaks of.
    away: Vec<HashSet<String>>,
    /// (topology key, value) pairs from which placed pods keep this pod away.
    kept_away: HashSet<(String, String)>,
    /// The pod satisfies its own affinity terms and no other pod does: it may be the first.
    first: bool,
    scores: HashMap<(String, String), i64>,
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let pod = cycle.pod;
        let wants = |pod: &PodInfo| {
            [&pod.affinity, &pod.anti_affinity]
                .iter()
                .any(|terms| !terms.required.is_empty() || !terms.preferred.is_empty())
        };
        if !wants(pod) && !cycle.nodes.iter().any(|node| node.pods.iter().any(|placed| wants(placed))) {
            return Ok(None);
        }
        Ok(Some(Box::new(count(cycle))))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes(&self, event: Event) -> bool {
        event != Event::Storage
    }
}

fn count<'a>(cycle: &Cycle<'a>) -> Counted<'a> {
    let pod = cycle.pod;
    let mut namespaces: HashMap<String, BTreeMap<String, String>> = HashMap::new();
    let mut labels_of = |name: &str| -> BTreeMap<String, String> {
        namespaces
            .entry(name.to_string())
            .or_insert_with(|| cycle.listers.map(|listers| listers.namespace_labels(name)).unwrap_or_default())
            .clone()
    };
    let mine = labels_of(pod.namespace());
    let speaks_of_me = |term: &Term| term.matches(pod.namespace(), &mine, pod.labels());
    let mut counted = Counted {
        pod,
        near: vec![HashSet::new(); pod.affinity.required.len()],
        away: vec![HashSet::new(); pod.anti_affinity.required.len()],
        kept_away: HashSet::new(),
        first: false,
        scores: HashMap::new(),
    };
    for node in cycle.nodes {
        let place = |term: &Term| node.labels().get(&term.topology_key).cloned();
        for placed in &node.pods {
            let theirs = labels_of(placed.namespace());
            let speaks_of_it = |term: &Term| term.matches(placed.namespace(), &theirs, placed.labels());
            if !pod.affinity.required.is_empty() && pod.affinity.required.iter().all(speaks_of_it) {
                for (term, near) in pod.affinity.required.iter().zip(&mut counted.near) {
                    near.extend(place(term));
                }
            }
            for (term, away) in pod.anti_affinity.required.iter().zip(&mut counted.away) {
                if speaks_of_it(term) {
                    away.extend(place(term));
                }
            }
            for term in placed.anti_affinity.required.iter().filter(|term| speaks_of_me(term)) {
                counted.kept_away.extend(place(term).map(|value| (term.topology_key.clone(), value)));
            }
            let mut score = |term: &Term, weight: i64| {
                if let Some(value) = place(term) {
                    *counted.scores.entry((term.topology_key.clone(), value)).or_default() += weight;
                }
            };
            for (terms, sign) in [(&pod.affinity, 1), (&pod.anti_affinity, -1)] {
                for (weight, term) in terms.preferred.iter().filter(|(_, term)| speaks_of_it(term)) {
                    score(term, sign * weight);
                }
            }
            for (terms, sign) in [(&placed.affinity, 1), (&placed.anti_affinity, -1)] {
                for (weight, term) in terms.preferred.iter().filter(|(_, term)| speaks_of_me(term)) {
                    score(term, sign * weight);
                }
            }
            for term in placed.affinity.required.iter().filter(|term| speaks_of_me(term)) {
                score(term, HARD_WEIGHT);
            }
        }
    }
    counted.first = counted.near.iter().all(HashSet::is_empty) && pod.affinity.required.iter().all(speaks_of_me);
    counted
}

impl View for Counted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let labels = node.labels();
        for (term, near) in self.pod.affinity.required.iter().zip(&self.near) {
            let there = labels.get(&term.topology_key);
            if !there.is_some_and(|value| self.first || near.contains(value)) {
                return Verdict::Never("node(s) didn't match pod affinity rules".into());
            }
        }
        for (term, away) in self.pod.anti_affinity.required.iter().zip(&self.away) {
            if labels.get(&term.topology_key).is_some_and(|value| away.contains(value)) {
                return Verdict::Full(vec!["node(s) didn't match pod anti-affinity rules".into()]);
            }
        }
        if self.kept_away.iter().any(|(key, value)| labels.get(key) == Some(value)) {
            return Verdict::Full(vec!["node(s) didn't satisfy existing pods anti-affinity rules".into()]);
        }
        Verdict::Fits
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let labels = node.labels();
        self.scores.iter().filter(|((key, value), _)| labels.get(key) == Some(value)).map(|(_, score)| score).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (Some(&least), Some(&most)) = (scores.iter().min(), scores.iter().max()) else { return };
        for score in scores {
            *score = if most > least { (*score - least) * SCORE_MAX / (most - least) } else { 0 };
        }
    }
}
