//! SPDY/3.1 as Kubernetes uses it: streams over one upgraded connection, no flow control, no priorities.
//!
//! Peers never wait for window updates, so none are sent; a reader that falls behind holds the connection back through
//! the bounded queue of its stream. Source: SPDY Protocol Draft 3.1.

mod connection;
mod frame;
mod headers;

pub use connection::{Connection, Stream, Writer};
pub use headers::Headers;
