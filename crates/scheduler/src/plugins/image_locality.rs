//! Ranks nodes that already have the pod's images, by size.

use std::collections::HashMap;

use crate::{
    cluster::NodeInfo,
    plugin::{Cycle, Event, Plugin, SCORE_MAX, View},
};

pub(crate) struct ImageLocality;

const MIB: i64 = 1024 * 1024;
/// Less than this says nothing.
const LEAST_BYTES: i64 = 23 * MIB;
/// For each container, more than this says no more.
const MOST_BYTES: i64 = 1000 * MIB;

struct Images<'a> {
    names: Vec<String>,
    containers: i64,
    nodes: i64,
    /// On how many nodes an image is, so that one popular node does not draw everything.
    spread: HashMap<&'a str, i64>,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let Some(spec) = &cycle.pod.pod.spec else { return Ok(None) };
        if cycle.nodes.len() < 2 {
            return Ok(None);
        }
        let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let names: Vec<String> = containers().filter_map(|container| container.image.as_deref()).map(tagged).collect();
        let mut spread = HashMap::new();
        for node in cycle.nodes {
            for (name, _) in images(node) {
                if names.iter().any(|wanted| wanted == name) {
                    *spread.entry(name).or_insert(0) += 1;
                }
            }
        }
        Ok(Some(Box::new(Images {
            names,
            containers: containers().count() as i64,
            nodes: cycle.nodes.len() as i64,
            spread,
        })))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes(&self, _event: Event) -> bool {
        false
    }
}

/// A name without a tag or digest means `:latest`.
fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') { name.to_string() } else { format!("{name}:latest") }
}

fn images(node: &NodeInfo) -> impl Iterator<Item = (&str, i64)> {
    let images = node.node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    images
        .iter()
        .flat_map(|image| image.names.iter().flatten().map(|name| (name.as_str(), image.size_bytes.unwrap_or(0))))
}

impl View for Images<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let present: i64 = images(node)
            .filter(|(name, _)| self.names.iter().any(|wanted| wanted == name))
            .map(|(name, bytes)| bytes * self.spread.get(name).copied().unwrap_or(0) / self.nodes.max(1))
            .sum();
        let most = MOST_BYTES * self.containers.max(1);
        SCORE_MAX * (present.clamp(LEAST_BYTES, most) - LEAST_BYTES) / (most - LEAST_BYTES)
    }
}
