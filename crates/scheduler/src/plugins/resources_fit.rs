//! The node must have room for what the pod requests; emptier nodes rank higher (LeastAllocated).

use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::{Cycle, Event, Plugin, SCORE_MAX, Verdict, View},
};

pub(crate) struct ResourcesFit;

/// A pod without requests still counts this much when nodes are ranked.
pub(super) const DEFAULT_CPU_MILLIS: i64 = 100;
pub(super) const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

struct Requests<'a>(&'a PodInfo);

impl Plugin for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        Ok(Some(Box::new(Requests(cycle.pod))))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged | Event::PodGone)
    }
}

/// CPU and memory in use once `pod` is on the node too, and what there is of both.
pub(super) fn usage(node: &NodeInfo, pod: &PodInfo) -> [(i64, i64); 2] {
    let nonzero = |amount: i64, least: i64| if amount == 0 { least } else { amount };
    let pods = || node.pods.iter().map(|pod| &**pod).chain([pod]);
    let cpu = pods().map(|pod| nonzero(pod.requests.cpu_millis, DEFAULT_CPU_MILLIS)).sum();
    let memory = pods().map(|pod| nonzero(pod.requests.memory_bytes, DEFAULT_MEMORY_BYTES)).sum();
    [(cpu, node.allocatable.cpu_millis), (memory, node.allocatable.memory_bytes)]
}

impl View for Requests<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let mut short = Vec::new();
        let mut never = false;
        if node.pods.len() as i64 + 1 > node.pods_max {
            short.push("Too many pods".to_string());
        }
        let (want, used, all) = (&self.0.requests, &node.requested, &node.allocatable);
        let mut check = |name: &str, want: i64, used: i64, all: i64| {
            if want > 0 && want > all - used {
                short.push(format!("Insufficient {name}"));
                never |= want > all;
            }
        };
        check("cpu", want.cpu_millis, used.cpu_millis, all.cpu_millis);
        check("memory", want.memory_bytes, used.memory_bytes, all.memory_bytes);
        check("ephemeral-storage", want.ephemeral_bytes, used.ephemeral_bytes, all.ephemeral_bytes);
        for (name, &amount) in &want.other {
            let of = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
            check(name, amount, of(&used.other), of(&all.other));
        }
        match short.as_slice() {
            [] => Verdict::Fits,
            [only] if never => Verdict::Never(only.clone()),
            _ => Verdict::Full(short),
        }
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let free = usage(node, self.0).map(
            |(used, all)| {
                if all <= 0 || used > all { 0 } else { (all - used) * SCORE_MAX / all }
            },
        );
        (free[0] + free[1]) / 2
    }
}
