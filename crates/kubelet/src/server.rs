//! The node's HTTPS server: logs, exec, attach, port-forward, statistics, metrics.
use crate::pods::Pods;
use crate::shared::Shared;
use std::sync::Arc;
pub(crate) struct Listening {
    pub(crate) port: u16,
}
impl Listening {
    pub(crate) async fn serve(self) {
        std::future::pending().await
    }
}
pub(crate) async fn start(_: &Arc<Shared>, _: &Pods) -> Result<Option<Listening>, crate::Error> {
    Ok(None)
}
