//! What every pod worker of a node uses.

use std::sync::{Arc, OnceLock};

use client::{Client, Informer, Informers, Recorder};
use k8s_openapi::api::core::v1 as core;

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::cri::Runtime;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::node::machine::Machine;
use crate::objects::Objects;
use crate::pod::fields;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) runtime: Runtime,
    /// Name that the runtime gives itself; the scheme of container ids. Known once it has answered.
    pub(crate) runtime_name: OnceLock<String>,
    /// UID of the Node; known once it is registered.
    pub(crate) node_uid: OnceLock<String>,
    pub(crate) recorder: Recorder,
    pub(crate) objects: Objects,
    pub(crate) services: Informer<core::Service>,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) machine: Machine,
    /// What `fieldRef` and `resourceFieldRef` may ask of the node.
    pub(crate) fields: fields::Node,
    pub(crate) metrics: Arc<Metrics>,
}

impl Shared {
    pub(crate) fn runtime_name(&self) -> &str {
        self.runtime_name.get().map_or("cri", String::as_str)
    }
}
