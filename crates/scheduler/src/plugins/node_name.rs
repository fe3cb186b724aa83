//! A pod that names its node in advance fits only there.

use crate::{
    cluster::NodeInfo,
    plugin::{Cycle, Event, Plugin, Verdict, View},
};

pub(crate) struct NodeName;

struct Wanted<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        Ok(cycle.pod.node_name().map(|name| Box::new(Wanted(name)) as Box<dyn View>))
    }

    fn wakes(&self, event: Event) -> bool {
        event == Event::NodeAdded
    }
}

impl View for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if node.name == self.0 {
            Verdict::Fits
        } else {
            Verdict::Never("node(s) didn't match the requested node name".into())
        }
    }
}
