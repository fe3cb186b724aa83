//! Taints keep pods away that do not tolerate them; `PreferNoSchedule` only ranks.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::{Cycle, Event, Plugin, Verdict, View, scale},
};

pub(crate) struct TaintToleration;

struct Tolerations<'a>(&'a PodInfo);

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        Ok(Some(Box::new(Tolerations(cycle.pod))))
    }

    fn weight(&self) -> i64 {
        3
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}

/// Whether one of the pod's tolerations covers the taint.
pub(super) fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    let tolerations = pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key, value) = (text(&toleration.effect), text(&toleration.key), text(&toleration.value));
    let mine = taint.value.clone().unwrap_or_default();
    let compare = |holds: fn(i64, i64) -> bool| match (mine.parse::<i64>(), value.parse::<i64>()) {
        (Ok(mine), Ok(theirs)) => holds(mine, theirs),
        _ => false,
    };
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && value == mine,
        "Lt" => compare(|mine, theirs| mine < theirs),
        "Gt" => compare(|mine, theirs| mine > theirs),
        _ => false,
    }
}

impl View for Tolerations<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let refusing = node
            .taints()
            .iter()
            .filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute")
            .find(|taint| !tolerated(self.0, taint));
        match refusing {
            None => Verdict::Fits,
            Some(taint) => Verdict::Never(match taint.value.as_deref().unwrap_or_default() {
                "" => format!("node(s) had untolerated taint(s) {{{}}}", taint.key),
                value => format!("node(s) had untolerated taint(s) {{{}: {value}}}", taint.key),
            }),
        }
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let disliked = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerated(self.0, taint);
        node.taints().iter().filter(disliked).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
}
