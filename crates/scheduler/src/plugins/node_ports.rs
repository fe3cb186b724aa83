//! Host ports that the pod wants must be free on the node.

use crate::{
    cluster::NodeInfo,
    plugin::{Cycle, Event, Plugin, Verdict, View},
};

pub(crate) struct NodePorts;

struct Wanted<'a>(&'a [(String, String, i32)]);

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn view<'a>(&self, cycle: &Cycle<'a>) -> Result<Option<Box<dyn View + 'a>>, String> {
        let ports = &cycle.pod.host_ports;
        Ok((!ports.is_empty()).then(|| Box::new(Wanted(ports)) as Box<dyn View>))
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::PodGone)
    }
}

impl View for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let taken = node.pods.iter().flat_map(|pod| &pod.host_ports).any(|(address, protocol, port)| {
            self.0.iter().any(|(wanted_address, wanted_protocol, wanted_port)| {
                protocol == wanted_protocol
                    && port == wanted_port
                    && (address == wanted_address || address.is_empty() || wanted_address.is_empty())
            })
        });
        if taken {
            Verdict::Full(vec!["node(s) didn't have free ports for the requested pod ports".into()])
        } else {
            Verdict::Fits
        }
    }
}
