//! One supervisor for all roles: starts them in order, restarts what fails, stops them in reverse order.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A role that ran this long before it failed starts over with the shortest back-off.
const STABLE: Duration = Duration::from_secs(60);

/// How long a role may take to stop before it is abandoned.
#[derive(Clone, Copy, Debug)]
pub enum StopPolicy {
    /// Nothing to finish: dropped at once.
    Drop,
    /// Told to stop and waited for.
    Drain(Duration),
}

struct Role {
    name: &'static str,
    policy: StopPolicy,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs roles until [`Supervisor::stop`].
#[derive(Default)]
pub struct Supervisor {
    roles: Mutex<Vec<Role>>,
}

type Start = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

impl Supervisor {
    /// Starts a role. `start` is called again, after a back-off, whenever it fails, panics or returns uncancelled.
    pub fn start<F, R>(&self, name: &'static str, policy: StopPolicy, start: F)
    where
        F: Fn(CancellationToken) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let start: Start = Arc::new(move |cancel| start(cancel).boxed());
        let task = tokio::spawn(keep(name, start, cancel.clone()));
        self.roles.lock().push(Role { name, policy, cancel, task });
    }

    /// Stops all roles, the youngest first.
    pub async fn stop(&self) {
        loop {
            let Some(role) = self.roles.lock().pop() else { return };
            role.cancel.cancel();
            let mut task = role.task;
            match role.policy {
                StopPolicy::Drop => task.abort(),
                StopPolicy::Drain(bound) => {
                    if tokio::time::timeout(bound, &mut task).await.is_err() {
                        tracing::warn!(role = role.name, "did not stop within {bound:?}; abandoned");
                        task.abort();
                    }
                }
            }
            tracing::debug!(role = role.name, "stopped");
        }
    }
}

async fn keep(name: &'static str, start: Start, cancel: CancellationToken) {
    let mut backoff = BACKOFF_MIN;
    while !cancel.is_cancelled() {
        let began = tokio::time::Instant::now();
        let ended = std::panic::AssertUnwindSafe(start(cancel.clone())).catch_unwind().await;
        if cancel.is_cancelled() {
            return;
        }
        match ended {
            Ok(Ok(())) => tracing::error!(role = name, "ended by itself; starting it again in {backoff:?}"),
            Ok(Err(error)) => tracing::error!(role = name, "failed: {error:#}; starting it again in {backoff:?}"),
            Err(_) => tracing::error!(role = name, "panicked; starting it again in {backoff:?}"),
        }
        if began.elapsed() > STABLE {
            backoff = BACKOFF_MIN;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failing_role_is_started_again_and_a_stopped_one_is_not() {
        let starts = Arc::new(AtomicUsize::new(0));
        let (counted, third) = (Arc::clone(&starts), Arc::new(tokio::sync::Notify::new()));
        let reached = Arc::clone(&third);
        let supervisor = Supervisor::default();
        supervisor.start("moody", StopPolicy::Drain(Duration::from_secs(1)), move |cancel| {
            let (count, reached) = (counted.fetch_add(1, Ordering::SeqCst), Arc::clone(&reached));
            async move {
                match count {
                    0 => anyhow::bail!("first"),
                    1 => panic!("second"),
                    _ => {
                        reached.notify_one();
                        cancel.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        third.notified().await;
        supervisor.stop().await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
