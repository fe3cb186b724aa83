//! `nodeSelector` and node affinity.

use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, PodSpec};

use crate::{
    cluster::NodeInfo,
    plugin::{Cycle, Event, Plugin, Verdict, View, scale},
    selectors::{node_matches, term_matches},
};

pub(crate) struct NodeAffinity;

struct Wanted<'a> {
    spec: &'a PodSpec,
    affinity: Option<&'a Affinity>,
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let Some(spec) = &cycle.pod.pod.spec else { return Ok(None) };
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let wanted = affinity.is_some() || spec.node_selector.as_ref().is_some_and(|labels| !labels.is_empty());
        Ok(wanted.then(|| Box::new(Wanted { spec, affinity }) as Box<dyn View>))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}

impl View for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let labelled =
            self.spec.node_selector.iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value));
        let required =
            self.affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        if labelled && required.is_none_or(|required| node_matches(required, &node.node)) {
            Verdict::Fits
        } else {
            Verdict::Never("node(s) didn't match Pod's node affinity/selector".into())
        }
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let preferred = self
            .affinity
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        preferred
            .iter()
            .filter(|term| term_matches(&term.preference, &node.node))
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}
