//! One scheduling decision: filter, score, choose. Pure: nodes and listers in, a decision out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::{Cycle, Listers, Verdict, View},
    plugins::PLUGINS,
};

/// Below this many nodes all of them are looked at.
const SAMPLE_MIN: usize = 100;

/// What came out of a cycle.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The node, and how many nodes were looked at.
    Node {
        name: String,
        evaluated: usize,
    },
    Nowhere(Refusals),
}

/// Why a pod fits nowhere.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) nodes: usize,
    /// How many nodes gave each reason.
    pub(crate) reasons: BTreeMap<String, usize>,
    /// The plugins that refused: their events wake the pod.
    pub(crate) plugins: BTreeSet<&'static str>,
    /// Nodes where taking pods off might help.
    pub(crate) full: Vec<String>,
    /// Said by a plugin of the pod itself, before any node was looked at.
    pub(crate) of_pod: Option<String>,
}

/// The views of all plugins that have something to say about a pod.
pub(crate) struct Views<'a>(Vec<(usize, Box<dyn View + 'a>)>);

impl<'a> Views<'a> {
    pub(crate) fn new(cycle: &Cycle<'a>) -> Result<Self, (&'static str, String)> {
        let mut views = Vec::with_capacity(PLUGINS.len());
        for (index, plugin) in PLUGINS.iter().enumerate() {
            if let Some(view) = plugin.view(cycle).map_err(|why| (plugin.name(), why))? {
                views.push((index, view));
            }
        }
        Ok(Self(views))
    }

    /// The first refusal, with the plugin that gave it.
    pub(crate) fn filter(&self, node: &NodeInfo) -> Result<(), (&'static str, Verdict)> {
        for (index, view) in &self.0 {
            match view.filter(node) {
                Verdict::Fits => {}
                refusal => return Err((PLUGINS[*index].name(), refusal)),
            }
        }
        Ok(())
    }

    fn best<'n>(&self, feasible: &[&'n Arc<NodeInfo>]) -> Option<&'n Arc<NodeInfo>> {
        if let [only] = feasible {
            return Some(only);
        }
        let mut totals = vec![0i64; feasible.len()];
        for (index, view) in &self.0 {
            let weight = PLUGINS[*index].weight();
            if weight == 0 {
                continue;
            }
            let mut scores: Vec<i64> = feasible.iter().map(|node| view.score(node)).collect();
            view.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += weight * score;
            }
        }
        let best = totals.iter().copied().max()?;
        let ties: Vec<usize> = (0..feasible.len()).filter(|&index| totals[index] == best).collect();
        Some(feasible[ties[rand::random_range(0..ties.len())]])
    }
}

/// How many feasible nodes are enough among `nodes`: all of a small cluster, a shrinking share of a large one.
fn enough(nodes: usize) -> usize {
    if nodes < SAMPLE_MIN {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(SAMPLE_MIN)
}

/// Decides where a pod goes. `start` rotates the first node looked at, so that large clusters fill evenly.
pub(crate) fn decide(pod: &PodInfo, nodes: &[Arc<NodeInfo>], listers: Option<&Listers>, start: usize) -> Decision {
    let mut refusals = Refusals { nodes: nodes.len(), ..Refusals::default() };
    let cycle = Cycle { pod, nodes, listers };
    let views = match Views::new(&cycle) {
        Ok(views) => views,
        Err((plugin, why)) => {
            refusals.plugins.insert(plugin);
            refusals.of_pod = Some(why);
            return Decision::Nowhere(refusals);
        }
    };
    let enough = enough(nodes.len());
    let (mut feasible, mut evaluated) = (Vec::new(), 0);
    for offset in 0..nodes.len() {
        let node = &nodes[(start + offset) % nodes.len()];
        evaluated += 1;
        match views.filter(node) {
            Ok(()) => feasible.push(node),
            Err((plugin, verdict)) => {
                refusals.plugins.insert(plugin);
                let reasons = match verdict {
                    Verdict::Full(reasons) => {
                        refusals.full.push(node.name.clone());
                        reasons
                    }
                    Verdict::Never(reason) => vec![reason],
                    Verdict::Fits => Vec::new(),
                };
                for reason in reasons {
                    *refusals.reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if feasible.len() >= enough {
            break;
        }
    }
    match views.best(&feasible) {
        Some(node) => Decision::Node { name: node.name.clone(), evaluated },
        None => Decision::Nowhere(refusals),
    }
}
