//! GetContainerEvents: what happens to containers, with the state of their pod at that time.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert;
use crate::cri;
use crate::runtime::{Event, Runtime};

/// Answers on their way to one listener.
const BUFFER: usize = 64;

/// Sends events until the listener is gone, falls behind, or the server ends.
pub(super) fn stream(
    runtime: &Runtime,
    cancel: CancellationToken,
) -> mpsc::Receiver<Result<cri::ContainerEventResponse, Status>> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let mut events = runtime.inner.events.subscribe();
    let weak = Arc::downgrade(&runtime.inner);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                () = cancel.cancelled() => return,
                () = sender.closed() => return,
                event = events.recv() => event,
            };
            let Some(inner) = weak.upgrade() else { return };
            if sender.send(translate(&Runtime { inner }, event)).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn translate(
    runtime: &Runtime,
    event: Result<Event, broadcast::error::RecvError>,
) -> Result<cri::ContainerEventResponse, Status> {
    let event = event.map_err(|error| match error {
        RecvError::Lagged(missed) => Status::data_loss(format!("{missed} events were missed; list all containers")),
        RecvError::Closed => Status::unavailable("the runtime ends"),
    })?;
    let containers = runtime.containers_of(&event.sandbox);
    Ok(cri::ContainerEventResponse {
        container_id: event.id,
        container_event_type: event.kind as i32,
        created_at: event.at,
        pod_sandbox_status: runtime.sandbox(&event.sandbox).ok().map(|sandbox| convert::sandbox_status(&sandbox)),
        containers_statuses: containers.iter().map(|container| convert::container_status(container)).collect(),
    })
}
