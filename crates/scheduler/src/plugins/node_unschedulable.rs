//! Cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerated;
use crate::{
    cluster::NodeInfo,
    plugin::{Cycle, Event, Plugin, Verdict, View},
};

pub(crate) struct NodeUnschedulable;

struct Cordoned {
    tolerated: bool,
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
        Ok(Some(Box::new(Cordoned { tolerated: tolerated(cycle.pod, &taint) })))
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}

impl View for Cordoned {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if cordoned && !self.tolerated { Verdict::Never("node(s) were unschedulable".into()) } else { Verdict::Fits }
    }
}
