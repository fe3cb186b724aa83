//! ReplicationControllers: see [`replicas`](crate::replicas).

use tokio::task::JoinHandle;

use crate::{context::Scope, kinds::core::ReplicationController, replicas};

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    replicas::start::<ReplicationController>(scope)
}
