//! ReplicaSets: see [`replicas`](crate::replicas).

use tokio::task::JoinHandle;

use crate::{context::Scope, kinds::apps::ReplicaSet, replicas};

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    replicas::start::<ReplicaSet>(scope)
}
