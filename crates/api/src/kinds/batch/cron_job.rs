//! CronJob: Jobs on a schedule.

use serde_json::Value;

use super::{job, validate};
use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{field::walk, pod::warnings},
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    default: |cron| {
        let spec = cron.member("spec");
        spec.fill("concurrencyPolicy", "Allow");
        spec.fill("suspend", false);
        spec.fill("successfulJobsHistoryLimit", 3);
        spec.fill("failedJobsHistoryLimit", 1);
        let template = spec.member("jobTemplate");
        template.object("metadata");
        job::default_nested(template.member("spec"));
    },
    validate: validate::cron_job,
    validate_update: Some(validate::cron_job_update),
    warnings: |new, old| warnings::of_workload(new, old, "spec.jobTemplate.spec.template", true),
    row: Some(|cron, now| {
        let spec = &cron["spec"];
        let job = walk(spec, "jobTemplate.spec");
        let [names, images] = cells::containers(walk(job, "template.spec"));
        let last = match walk(cron, "status.lastScheduleTime") {
            Value::Null => cells::NONE.to_string(),
            time => cells::since(time, now),
        };
        let suspended = if spec["suspend"] == true { "True" } else { "False" };
        vec![
            cells::name(cron),
            spec.text("schedule").into(),
            cells::or_none(spec.text("timeZone")),
            suspended.into(),
            walk(cron, "status.active").as_array().map_or(0, Vec::len).into(),
            last.into(),
            cells::age(cron, now),
            names,
            images,
            cells::selector(&job["selector"]),
        ]
    }),
    ..Kind::PLAIN
};
