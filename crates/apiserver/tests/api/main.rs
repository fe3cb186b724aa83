//! The API server, driven in this process by requests as clients send them.

mod access;
mod custom;
mod registry;
mod support;
mod watch;
