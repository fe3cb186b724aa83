//! What the binary prints and asks, beside running a server.

pub mod image;
