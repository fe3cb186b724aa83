//! The scheduling plugins: one file each, one line each.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
pub(crate) mod volumes;

use crate::plugin::Plugin;

/// In the order in which they filter: cheap and decisive ones first.
pub(crate) static PLUGINS: &[&dyn Plugin] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &resources_fit::ResourcesFit,
    &volumes::Volumes,
    &topology_spread::TopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &balanced_allocation::BalancedAllocation,
    &image_locality::ImageLocality,
];

#[cfg(test)]
pub(crate) mod tests;
