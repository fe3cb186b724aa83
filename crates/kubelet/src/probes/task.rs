//! One probe of one running container: when to ask, and how many answers in a row count.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::debug;

use super::action::{self, Outcome};
use super::{Role, Tools};
use crate::pod::PodExt;
use crate::refer;

pub(super) struct Task {
    pub(super) role: Role,
    pub(super) probe: core::Probe,
    pub(super) pod: Arc<core::Pod>,
    pub(super) container: core::Container,
    pub(super) id: String,
    /// When the container started.
    pub(super) since: Timestamp,
    pub(super) address: String,
    pub(super) started: watch::Receiver<bool>,
    pub(super) tools: Tools,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    Duration::from_secs(value.unwrap_or(default))
}

impl Task {
    /// Asks forever; calls `report` when the counted result changes. Ends once it has nothing more to say.
    pub(super) async fn run(mut self, report: impl Fn(bool)) {
        if self.role != Role::Startup && self.started.wait_for(|started| *started).await.is_err() {
            return;
        }
        let running = Duration::try_from(Timestamp::now().duration_since(self.since)).unwrap_or_default();
        let delay = seconds(self.probe.initial_delay_seconds, 0).saturating_sub(running);
        let period = seconds(self.probe.period_seconds, 10);
        let mut ticks = tokio::time::interval_at(Instant::now() + delay, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut streak = Streak::new(&self.probe, self.role);
        loop {
            ticks.tick().await;
            let good = self.ask().await;
            let Some(changed) = good.and_then(|good| streak.count(good)) else { continue };
            report(changed);
            // A container that failed is restarted; one that started is started for good.
            if (self.role != Role::Readiness && !changed) || (self.role == Role::Startup && changed) {
                return;
            }
        }
    }

    /// One question. `None`: the answer says nothing either way.
    async fn ask(&self) -> Option<bool> {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        let target = action::Target {
            runtime: &self.tools.runtime,
            container: &self.container,
            id: &self.id,
            address: &self.address,
            timeout,
            agent: "kube-probe/1.36",
        };
        let outcome = target.probe(&self.probe).await;
        let role = self.role.name();
        self.tools.metrics.probe(role, outcome.label());
        let warn = |reason: &str, text: String| {
            let about = refer::container(&self.pod, &self.container.name);
            self.tools.recorder.warning(&about, reason, text);
        };
        match outcome {
            Outcome::Success => Some(true),
            Outcome::Warning(text) => {
                warn("ProbeWarning", format!("{role} probe warning: {text}"));
                Some(true)
            }
            Outcome::Failure(text) => {
                debug!(pod = %self.pod.full_name(), container = self.container.name, role, text, "probe failed");
                warn("Unhealthy", format!("{role} probe failed: {text}"));
                Some(false)
            }
            Outcome::Unknown(text) => {
                warn("Unhealthy", format!("{role} probe errored: {text}"));
                None
            }
        }
    }
}

/// Counts answers in a row against the thresholds.
struct Streak {
    success: u32,
    failure: u32,
    last: Option<bool>,
    length: u32,
    reported: Option<bool>,
}

impl Streak {
    fn new(probe: &core::Probe, role: Role) -> Self {
        let threshold =
            |value: Option<i32>, default| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default).max(1);
        // Liveness begins good: only its failure is news. The others begin without a result.
        let reported = (role == Role::Liveness).then_some(true);
        Self {
            success: threshold(probe.success_threshold, 1),
            failure: threshold(probe.failure_threshold, 3),
            last: None,
            length: 0,
            reported,
        }
    }

    /// The new result, if this answer changes it.
    fn count(&mut self, good: bool) -> Option<bool> {
        self.length = if self.last == Some(good) { self.length + 1 } else { 1 };
        self.last = Some(good);
        let needed = if good { self.success } else { self.failure };
        if self.length < needed || self.reported == Some(good) {
            return None;
        }
        self.reported = Some(good);
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_in_a_row() {
        let probe = core::Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Default::default() };
        let mut streak = Streak::new(&probe, Role::Readiness);
        let mut said = String::new();
        for answer in "ssffsfffss".chars() {
            said.push(match streak.count(answer == 's') {
                Some(true) => 'S',
                Some(false) => 'F',
                None => '.',
            });
        }
        assert_eq!(said, ".S.....F.S");
        let mut liveness = Streak::new(&core::Probe::default(), Role::Liveness);
        assert_eq!([true, false, false, false].map(|good| liveness.count(good)), [None, None, None, Some(false)]);
    }
}
