//! What connects pods and Services: the pod network of a node, and its service proxy.

pub mod nft;
pub mod pod;
pub mod proxy;
