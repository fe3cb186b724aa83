//! What Kubernetes objects are: schema, kinds, codecs, patches, selectors, quantities and `Status` errors.
//!
//! Invariant: pure. No tokio, no IO, no clock; time comes in as an argument.

pub mod apply;
pub mod cel;
pub mod codec;
pub mod crd;
pub mod intstr;
pub mod kind;
pub mod kinds;
pub mod openapi;
pub mod patch;
pub mod pod_resources;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod stored;
pub mod time;
pub mod validation;
pub mod volumes;
