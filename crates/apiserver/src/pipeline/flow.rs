//! Seats: how many requests run at once.
//!
//! Reads and writes are limited apart, so that neither starves the other. Watches and other long-running requests take
//! no seat, and members of `system:masters` always find one.

use std::time::Duration;

use api::status::Status;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::call::Call;
use crate::{config::Limits, user::MASTERS};

/// How long a request waits for a seat before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Flow {
    reads: Semaphore,
    writes: Semaphore,
}

impl Flow {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { reads: Semaphore::new(limits.max_reads), writes: Semaphore::new(limits.max_writes) }
    }

    /// A seat for the request; it is given back when the answer's head is ready.
    pub(crate) async fn seat(&self, call: &Call) -> Result<Option<SemaphorePermit<'_>>, Status> {
        if call.is_long_running() || call.user.in_group(MASTERS) {
            return Ok(None);
        }
        let reads = matches!(call.info.verb, "get" | "list" | "head" | "options");
        let seats = if reads { &self.reads } else { &self.writes };
        match tokio::time::timeout(PATIENCE, seats.acquire()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(Status::too_many_requests("too many requests, please try again later", 1)),
        }
    }
}
