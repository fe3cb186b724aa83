//! Rules that objects must obey, with the field paths, reasons and words that Kubernetes uses.
//!
//! Here live the rules that several kinds share; a rule of one kind is in the kind's file under `kinds/`.

pub(crate) mod claim;
pub mod field;
pub mod metadata;
pub mod names;
pub mod net;
pub mod numbers;
pub mod pod;
pub mod schedule;
pub mod taints;
pub mod workload;
