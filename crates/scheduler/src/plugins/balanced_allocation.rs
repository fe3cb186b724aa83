//! Ranks nodes on which CPU and memory would be used to the same degree.

use super::resources_fit::usage;
use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::{Cycle, Event, Plugin, SCORE_MAX, View},
};

pub(crate) struct BalancedAllocation;

struct Requests<'a>(&'a PodInfo);

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let requests = &cycle.pod.requests;
        let best_effort = requests.cpu_millis == 0 && requests.memory_bytes == 0;
        Ok((!best_effort).then(|| Box::new(Requests(cycle.pod)) as Box<dyn View>))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes(&self, _event: Event) -> bool {
        false
    }
}

impl View for Requests<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let shares =
            usage(node, self.0).map(|(used, all)| if all <= 0 { 1.0 } else { (used as f64 / all as f64).min(1.0) });
        // With two values the standard deviation is half their distance.
        let deviation = (shares[0] - shares[1]).abs() / 2.0;
        ((1.0 - deviation) * SCORE_MAX as f64) as i64
    }
}
