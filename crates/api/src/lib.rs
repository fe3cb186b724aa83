//! What Kubernetes objects are: schema, kinds, codecs, patches, selectors, quantities and `Status` errors.
//!
//! Invariant: pure. No tokio, no IO, no clock; time comes in as an argument.

pub mod status;
pub mod stored;
pub mod kind;
pub mod kinds;
pub mod validation;
pub mod apply;
pub mod cel;
pub mod codec;
pub mod crd;
pub mod intstr;
pub mod openapi;
pub mod protobuf;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod time;
pub mod pod_resources;
pub mod volumes;
