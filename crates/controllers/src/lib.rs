//! The loops that keep a cluster's promises: each controller compares what was asked for with what is, and writes the
//! difference through the API.
//!
//! One file a controller and one line in [`CONTROLLERS`]. What all of them share lives once: [`driver`] runs a loop,
//! [`write`] speaks to the API, [`pods`] holds what is known about Pods and their owners, [`meta`] about objects.
//!
//! Invariants:
//! - A loop is given a key, never an event. What it does follows from the caches and the API alone, so every
//!   controller may be stopped at any point and started from nothing.
//! - A controller reads from shared informers and writes as its own user
//!   (`system:serviceaccount:kube-system:ACCOUNT`), with the rights of the default roles.
//! - Decisions are pure functions (`plan`) of a snapshot and the clock; only the thin code around them does IO.

mod context;
mod driver;
mod error;
mod kinds;
mod meta;
mod pods;
mod resources;
mod revisions;
mod services;
mod table;
mod write;

mod certificates;
mod clusterroleaggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod ephemeral;
mod garbage;
mod job;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod pvbinder;
mod pvcprotection;
mod pvprotection;
mod replicas;
mod replicaset;
mod replication;
mod resourcequota;
mod rootca;
mod serviceaccount;
mod servicecidr;
mod statefulset;
mod tainteviction;
mod token;
mod tokencleaner;
mod ttl;
mod ttlafterfinished;

pub use context::{Clock, Config, Context, SigningCa};
pub use error::Error;
pub use table::{CONTROLLERS, Descriptor, start};
