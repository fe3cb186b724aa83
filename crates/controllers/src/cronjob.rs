//! Starts Jobs on a schedule.
//!
//! Reads: CronJob, Job.  Writes: Job, CronJob/status.
//! Invariant: the name of a Job follows from its scheduled time, so none is started twice, whatever the cache shows.

mod cron;

use std::{sync::Arc, time::Duration};

use client::{Informer, Key, reference};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::DeleteParams;
use tokio::task::JoinHandle;

use self::cron::Schedule;
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    job,
    kinds::{
        ObjectMeta,
        batch::{CronJob, CronJobSpec, CronJobStatus, Job, JobCondition},
    },
    meta::{self, Meta, controller_reference, seconds, until},
};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const WORKERS: usize = 5;

/// Added to the time of the next pass, so that it falls after the scheduled second.
const MARGIN: Duration = Duration::from_millis(100);

struct Loop {
    scope: Scope,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let crons = driver.watch::<CronJob>(driver::wake);
    let jobs = driver.watch::<Job>(driver::wake_owner::<CronJob, _>);
    jobs.add_index(meta::BY_CONTROLLER, meta::by_controller::<Job>);
    let this = Arc::new(Loop { scope, crons, jobs });
    vec![driver.run(WORKERS, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

fn finished(job: &Job) -> Option<&JobCondition> {
    let all = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.into_iter().find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
}

fn refers_to(job: &Job) -> ObjectReference {
    ObjectReference { resource_version: job.metadata.resource_version.clone(), ..reference(job) }
}

/// When to run, and by which clock.
struct Clockwork {
    schedule: Schedule,
    zone: TimeZone,
}

/// What is due at a moment.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The scheduled time, and whether it is too late to start by the deadline.
    Run {
        at: Timestamp,
        too_late: bool,
        missed_many: bool,
    },
}

/// The last scheduled time since the previous run (or creation, or the deadline).
fn due(cron: &CronJob, spec: &CronJobSpec, clockwork: &Clockwork, now: Timestamp) -> Due {
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let mut since = last.unwrap_or_else(|| cron.created());
    let deadline = spec.starting_deadline_seconds.map(seconds);
    if let Some(deadline) = deadline {
        since = since.max(now - deadline);
    }
    match clockwork.schedule.latest(since, now, &clockwork.zone) {
        None => Due::Nothing,
        Some((at, missed_many)) => Due::Run { at, too_late: deadline.is_some_and(|d| at + d < now), missed_many },
    }
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(cron) = self.crons.get(&key) else { return Ok(None) };
        let spec = &cron.spec;
        let jobs = self.jobs.by_index(meta::BY_CONTROLLER, cron.uid());
        let mut status = cron.status.clone().unwrap_or_default();
        self.follow_jobs(&cron, &jobs, &mut status).await?;
        self.trim_history(&cron, spec, &jobs).await?;
        let outcome = if cron.is_deleting() || spec.suspend == Some(true) {
            Ok(None)
        } else {
            self.run(&cron, spec, &mut status).await
        };
        if status.active.as_ref().is_some_and(Vec::is_empty) {
            status.active = None;
        }
        let next = CronJob { status: Some(status), ..CronJob::clone(&cron) };
        if next.status != cron.status && !(cron.status.is_none() && next.status == Some(CronJobStatus::default())) {
            self.scope.writer.update_status(&next).await?;
        }
        outcome
    }

    /// Keeps the list of active Jobs and the time of the last success.
    async fn follow_jobs(&self, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus) -> Result<(), Error> {
        let (about, recorder) = (reference(cron), &self.scope.recorder);
        let active = status.active.get_or_insert_default();
        for job in jobs {
            let listed = active.iter().any(|r| r.uid.as_deref() == Some(job.uid()));
            match finished(job) {
                None if !listed => {
                    let text = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                    recorder.warning(&about, "UnexpectedJob", text);
                }
                Some(end) if listed => {
                    active.retain(|r| r.uid.as_deref() != Some(job.uid()));
                    let text = format!("Saw completed job: {}, condition: {}", job.name(), end.type_);
                    recorder.normal(&about, "SawCompletedJob", text);
                }
                _ => {}
            }
            let done = job.status.as_ref().and_then(|s| s.completion_time.clone());
            let success = finished(job).is_some_and(|c| c.type_ == "Complete");
            if let Some(done) = done.filter(|d| success && status.last_successful_time.as_ref().is_none_or(|l| l < d)) {
                status.last_successful_time = Some(done);
            }
        }
        let unseen: Vec<_> =
            active.iter().filter(|r| !jobs.iter().any(|j| r.uid.as_deref() == Some(j.uid()))).cloned().collect();
        for job in unseen {
            let key = Key::new(cron.namespace(), job.name.as_deref().unwrap_or_default());
            if self.scope.writer.get::<Job>(&key).await?.is_none_or(|j| Some(j.uid()) != job.uid.as_deref()) {
                recorder.normal(&about, "MissingJob", format!("Active job went missing: {}", key.name));
                active.retain(|r| r.uid != job.uid);
            }
        }
        Ok(())
    }

    /// Deletes the oldest finished Jobs beyond the limits for successful and failed ones.
    async fn trim_history(&self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Result<(), Error> {
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.or(Some(3))),
            ("Failed", spec.failed_jobs_history_limit.or(Some(1))),
        ];
        for (end, limit) in limits {
            let mut done: Vec<_> = jobs.iter().filter(|j| finished(j).is_some_and(|c| c.type_ == end)).collect();
            done.sort_by_key(|j| (j.status.as_ref().and_then(|s| s.start_time.clone()), j.name().to_owned()));
            let keep = usize::try_from(limit.unwrap_or(0)).unwrap_or(0);
            let excess = done.len().saturating_sub(keep);
            for job in done.into_iter().take(excess).filter(|j| !j.is_deleting()) {
                self.delete(cron, job).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let outcome =
            self.scope.writer.delete_with::<Job>(&job.key(), Some(job.uid()), DeleteParams::background()).await;
        let (about, recorder) = (reference(cron), &self.scope.recorder);
        match &outcome {
            Ok(()) => recorder.normal(&about, "SuccessfulDelete", format!("Deleted job {}", job.name())),
            Err(error) => recorder.warning(&about, "FailedDelete", format!("Deleted job: {}", error.message())),
        }
        outcome
    }

    fn clockwork(&self, cron: &CronJob, spec: &CronJobSpec) -> Option<Clockwork> {
        let (about, recorder) = (reference(cron), &self.scope.recorder);
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::system(),
            Some(name) => match cron::zone(name) {
                Ok(zone) => zone,
                Err(error) => {
                    recorder.warning(&about, "UnknownTimeZone", format!("invalid timeZone: \"{name}\": {error}"));
                    return None;
                }
            },
        };
        match Schedule::parse(&spec.schedule) {
            Ok(schedule) => Some(Clockwork { schedule, zone }),
            Err(error) => {
                let text = format!("unparseable schedule: \"{}\" : {error}", spec.schedule);
                recorder.warning(&about, "UnparseableSchedule", text);
                None
            }
        }
    }

    async fn run(&self, cron: &CronJob, spec: &CronJobSpec, status: &mut CronJobStatus) -> Outcome {
        let Some(clockwork) = self.clockwork(cron, spec) else { return Ok(None) };
        let now = self.scope.now();
        let again = clockwork.schedule.next(now, &clockwork.zone).and_then(|t| until(t, now)).map(|d| d + MARGIN);
        let Due::Run { at, too_late, missed_many } = due(cron, spec, &clockwork, now) else { return Ok(again) };
        let (about, recorder) = (reference(cron), &self.scope.recorder);
        if missed_many {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            recorder.warning(&about, "TooManyMissedTimes", text);
        }
        let local = at.to_zoned(clockwork.zone.clone());
        if too_late {
            let text = format!("Missed scheduled time to start a job: {}", local.strftime("%a, %d %b %Y %H:%M:%S %z"));
            recorder.warning(&about, "MissSchedule", text);
            return Ok(again);
        }
        let active = status.active.get_or_insert_default();
        let name = format!("{}-{}", cron.name(), at.as_second() / 60);
        let known = active.iter().any(|r| r.name.as_deref() == Some(&name));
        if known || status.last_schedule_time.as_ref().is_some_and(|t| t.0 == at) {
            return Ok(again);
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                recorder.normal(&about, "JobAlreadyActive", text);
                return Ok(again);
            }
            Some("Replace") => {
                for old in std::mem::take(active) {
                    let key = Key::new(cron.namespace(), old.name.unwrap_or_default());
                    if let Some(job) = self.jobs.get(&key) {
                        self.delete(cron, &job).await?;
                    }
                }
            }
            _ => {}
        }
        let job =
            Self::job(cron, spec, name, &local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z"));
        match self.scope.writer.create(&job).await {
            Ok(made) => {
                recorder.normal(&about, "SuccessfulCreate", format!("Created job {}", made.name()));
                active.push(refers_to(&made));
            }
            Err(error) if error.is_already_exists() => {
                let found = self.scope.writer.get::<Job>(&job.key()).await?;
                match found.filter(|f| f.controller_uid() == Some(cron.uid())) {
                    Some(ours) if !job::is_finished(&ours) => active.push(refers_to(&ours)),
                    Some(_) => {}
                    None => return Err(error),
                }
            }
            Err(error) if error.is_namespace_terminating() => return Ok(None),
            Err(error) => {
                recorder.warning(&about, "FailedCreate", format!("Error creating job: {}", error.message()));
                return Err(error);
            }
        }
        status.last_schedule_time = Some(meta::time(at));
        Ok(again)
    }

    fn job(cron: &CronJob, spec: &CronJobSpec, name: String, at: &str) -> Job {
        let template = spec.job_template.metadata.clone().unwrap_or_default();
        let mut annotations = template.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED_AT.to_owned(), at.to_owned());
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(cron.namespace().to_owned()),
                labels: template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(cron)]),
                ..ObjectMeta::default()
            },
            spec: spec.job_template.spec.clone(),
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_due() {
        let clockwork = Clockwork { schedule: Schedule::parse("0 * * * *").expect("schedule"), zone: TimeZone::UTC };
        // (last run, deadline, now) -> scheduled time and whether it is too late
        let cases = [
            (None, None, "2026-01-01T10:30:00Z", None),
            (None, None, "2026-01-01T11:00:05Z", Some(("2026-01-01T11:00:00Z", false))),
            (Some("2026-01-01T11:00:00Z"), None, "2026-01-01T11:59:00Z", None),
            (Some("2026-01-01T11:00:00Z"), None, "2026-01-01T15:59:00Z", Some(("2026-01-01T15:00:00Z", false))),
            (Some("2026-01-01T11:00:00Z"), Some(60), "2026-01-01T15:59:00Z", None),
            (Some("2026-01-01T11:00:00Z"), Some(3600), "2026-01-01T15:59:00Z", Some(("2026-01-01T15:00:00Z", false))),
        ];
        for (last, deadline, now, expected) in cases {
            let cron: CronJob = from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T10:15:00Z"},
                "spec": {"schedule": "", "jobTemplate": {}, "startingDeadlineSeconds": deadline},
                "status": {"lastScheduleTime": last}}))
            .expect("cron");
            let spec = &cron.spec;
            let got = match due(&cron, spec, &clockwork, now.parse().expect("time")) {
                Due::Nothing => None,
                Due::Run { at, too_late, .. } => Some((at.to_string(), too_late)),
            };
            let expected = expected.map(|(at, late): (&str, bool)| (at.to_owned(), late));
            assert_eq!(got, expected, "last {last:?}, deadline {deadline:?}, now {now}");
        }
    }
}
