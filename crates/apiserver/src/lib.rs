//! Who may change objects, and how: the API server.
//!
//! A request travels one way: authenticate, take a seat, authorize, route, decode, admit, default, validate, store,
//! answer ([`pipeline`]). What it asks for is answered by the one [`registry`] for every kind, by a special subresource,
//! or by discovery and health. Kinds come from `api`, bytes are kept by `store`.
//!
//! Invariants: no kind is known by name outside a table; what is stored is what is sent; no lock is held across an
//! await; a request sees one catalog from its beginning to its end.

mod admission;
mod allocator;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod catalog;
mod clock;
mod codec;
mod config;
mod crd;
mod discovery;
mod gzip;
mod health;
mod leases;
mod managed;
mod metrics;
mod mirror;
mod pipeline;
mod proxy;
mod registry;
mod sealing;
mod serve;
mod server;
mod subresource;
mod user;

pub use self::{
    body::{Body, BoxError},
    config::{Config, Identity, KubeletAccess, Limits, Pem, RequestHeader, ServiceAccountKeys, Tls},
    discovery::version::GIT_VERSION,
    health::Health,
    sealing::{BadKey, Sealer},
    server::{Error, Server, Service},
    user::{MASTERS, UserInfo},
};
