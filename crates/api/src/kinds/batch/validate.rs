//! Rules of Jobs, and of the Jobs that CronJobs make.

use serde_json::Value;

use crate::{
    kind::{Context, Part},
    kinds::access::{Members, keep},
    selector::LabelSelector,
    status::FieldError,
    validation::{
        field::{Errors, Field, same},
        metadata, names, net, pod, schedule,
    },
};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const MANY_COMPLETIONS_MAX: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
/// A CronJob's Jobs add eleven characters to its name.
const CRON_NAME_MAX: usize = 52;

pub(super) fn job(errors: &mut Errors, job: &Field<'_>, _cx: &Context<'_>) {
    generated_selector(errors, job);
    let spec = &job.get("spec");
    selected_spec(errors, spec);
    let completions = spec.get("completions").int().unwrap_or(0);
    if spec.get("completionMode").str() == "Indexed" && completions > 0 {
        let name = job.get("metadata.name");
        let longest = format!("{}-{}", name.str(), completions - 1);
        if !names::dns_label(&longest).is_empty() {
            errors.push(name.invalid(format!("will not able to create pod with invalid DNS label: {longest}")));
        }
    }
}

/// The labels and selector that the server made are as it made them.
fn generated_selector(errors: &mut Errors, job: &Field<'_>) {
    let selector = job.get("spec.selector");
    if job.get("spec.manualSelector").is_true() || !selector.exists() {
        return;
    }
    let (name, uid) = (job.get("metadata.name").str(), job.get("metadata.uid").str());
    let labels = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let template = &job.get("spec.template.metadata");
    for (key, want) in labels {
        let field = template.get("labels");
        match field.value().get(key).and_then(Value::as_str) {
            None => errors
                .push(FieldError::required(format!("{}.labels[{key}]", template.path()), format!("must be '{want}'"))),
            Some(have) if have != want => errors.push(FieldError::invalid(
                format!("{}.labels[{key}]", template.path()),
                field.value().clone(),
                format!("must be '{want}'"),
            )),
            Some(_) => {}
        }
    }
    let parsed = LabelSelector::from_object(selector.value());
    let matches = |selector: &LabelSelector| {
        selector.matches(|key| labels.iter().find(|(label, _)| *label == key).map(|(_, value)| *value))
    };
    if parsed.is_ok_and(|selector| !matches(&selector)) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

fn selected_spec(errors: &mut Errors, spec: &Field<'_>) {
    job_spec(errors, spec);
    let selector = spec.get("selector");
    if selector.exists() {
        metadata::label_selector(errors, &selector);
    } else {
        errors.push(selector.required(""));
    }
    if let Ok(selector) = LabelSelector::from_object(selector.value()) {
        let labels = spec.get("template.metadata.labels");
        if !selector.matches(|key| labels.value().get(key).and_then(Value::as_str)) {
            errors.push(labels.invalid_value(labels.value().clone(), "`selector` does not match template `labels`"));
        }
    }
}

fn job_spec(errors: &mut Errors, spec: &Field<'_>) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(name).not_negative(errors);
    }
    let (per_index, max_failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if max_failed.exists() && !per_index.exists() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    let manager = spec.get("managedBy");
    if manager.exists() {
        net::domain_prefixed_path(errors, &manager);
        if manager.str().len() > 63 {
            errors.push(manager.too_long(63));
        }
    }
    let mode = spec.get("completionMode");
    if mode.exists() {
        mode.one_of(errors, &["NonIndexed", "Indexed"]);
    }
    let success = &spec.get("successPolicy");
    if mode.str() == "Indexed" {
        indexed(errors, spec);
        if success.exists() {
            success_policy(errors, success);
        }
    } else {
        for field in [per_index, max_failed].into_iter().filter(Field::exists) {
            errors.push(field.invalid("requires indexed completion mode"));
        }
        if success.exists() {
            errors.push(success.invalid("requires indexed completion mode"));
        }
    }
    let failure = &spec.get("podFailurePolicy");
    if failure.exists() {
        failure_policy(errors, spec, failure);
    }
    let replacement = spec.get("podReplacementPolicy");
    if replacement.exists() {
        let known: &[&str] = if failure.exists() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        replacement.one_of(errors, known);
    }
    pod::template(errors, &spec.get("template"));
    let policy = spec.get("template.spec.restartPolicy");
    match policy.str() {
        "" | "Always" => errors.push(policy.required("valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if failure.exists() => {
            errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(policy.not_supported(&["OnFailure", "Never"])),
    }
}

fn indexed(errors: &mut Errors, spec: &Field<'_>) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    if !completions.exists() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    let above = |field: &Field<'_>, max: i64| field.int().is_some_and(|number| number > max);
    if above(&parallelism, INDEXED_PARALLELISM_MAX) {
        errors.push(parallelism.invalid(format!(
            "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
        )));
    }
    if completions.int().is_some_and(|completions| above(&failed, completions)) {
        errors.push(failed.invalid("must be less than or equal to completions"));
    }
    if above(&failed, FAILED_INDEXES_MAX) {
        errors.push(failed.invalid(format!("must be less than or equal to {FAILED_INDEXES_MAX}")));
    }
    if above(&completions, MANY_COMPLETIONS) && spec.get("backoffLimitPerIndex").exists() {
        if !failed.exists() {
            errors.push(failed.required(format!("must be specified when completions is above {MANY_COMPLETIONS}")));
        }
        for field in [parallelism, failed].into_iter().filter(|field| above(field, MANY_COMPLETIONS_MAX)) {
            errors.push(field.invalid(format!(
                "must be less than or equal to {MANY_COMPLETIONS_MAX} when completions are above {MANY_COMPLETIONS} and \
                 used with backoff limit per index"
            )));
        }
    }
}

fn failure_policy(errors: &mut Errors, spec: &Field<'_>, policy: &Field<'_>) {
    let rules = &policy.get("rules");
    if rules.list().len() > RULES_MAX {
        errors.push(rules.too_many(rules.list().len(), RULES_MAX));
    }
    for rule in rules.items() {
        let action = rule.get("action");
        match action.str() {
            "FailIndex" if !spec.get("backoffLimitPerIndex").exists() => {
                errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
            }
            "" => errors.push(action.required("valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]")),
            _ => {
                action.one_of(errors, &["Count", "FailIndex", "FailJob", "Ignore"]);
            }
        }
        let (codes, conditions) = (&rule.get("onExitCodes"), &rule.get("onPodConditions"));
        match (codes.exists(), !conditions.is_empty()) {
            (true, true) => {
                errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, false) => {
                errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
        if codes.exists() {
            exit_codes(errors, spec, codes);
        }
        if conditions.list().len() > RULES_MAX {
            errors.push(conditions.too_many(conditions.list().len(), RULES_MAX));
        }
        for pattern in conditions.items() {
            let kind = pattern.get("type");
            kind.judge(errors, names::qualified_name(kind.str()));
            let status = pattern.get("status");
            if status.is_empty() {
                errors.push(status.required("valid values: [\"False\" \"True\" \"Unknown\"]"));
            } else {
                status.one_of(errors, &["False", "True", "Unknown"]);
            }
        }
    }
}

fn exit_codes(errors: &mut Errors, spec: &Field<'_>, codes: &Field<'_>) {
    let operator = codes.get("operator");
    if operator.is_empty() {
        errors.push(operator.required("valid values: [\"In\" \"NotIn\"]"));
    } else {
        operator.one_of(errors, &["In", "NotIn"]);
    }
    let container = codes.get("containerName");
    if container.exists() {
        let known = ["containers", "initContainers"].iter().any(|list| {
            spec.value()["template"]["spec"][*list]
                .as_array()
                .into_iter()
                .flatten()
                .any(|item| item["name"] == *container.value())
        });
        if !known {
            errors.push(container.invalid("must be one of the container or initContainer names in the pod template"));
        }
    }
    let values = &codes.get("values");
    if values.is_empty() {
        errors.push(values.invalid("at least one value is required"));
    } else if values.list().len() > EXIT_CODES_MAX {
        errors.push(values.too_many(values.list().len(), EXIT_CODES_MAX));
    }
    let ordered = values.list().windows(2).all(|pair| pair[0].as_i64() <= pair[1].as_i64());
    if !ordered {
        errors.push(values.invalid("must be ordered"));
    }
    for (index, value) in values.items().enumerate() {
        if operator.str() == "In" && value.int() == Some(0) {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if values.list()[..index].contains(value.value()) {
            errors.push(value.duplicate());
        }
    }
}

fn success_policy(errors: &mut Errors, policy: &Field<'_>) {
    let rules = &policy.get("rules");
    if rules.is_empty() {
        errors.push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.list().len() > RULES_MAX {
        errors.push(rules.too_many(rules.list().len(), RULES_MAX));
    }
    for rule in rules.items() {
        if !rule.get("succeededCount").exists() && !rule.get("succeededIndexes").exists() {
            errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
        }
        rule.get("succeededCount").positive(errors);
    }
}

pub(super) fn job_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        return job_status(errors, &new.get("status"));
    }
    let (spec, before) = (&new.get("spec"), &old.get("spec"));
    generated_selector(errors, new);
    selected_spec(errors, spec);
    completions(errors, spec, before);
    spec.get("selector").immutable(errors, &before.get("selector"));
    template(errors, old, spec, before);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.get(name).immutable(errors, &before.get(name));
    }
}

fn job_status(errors: &mut Errors, status: &Field<'_>) {
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(name).not_negative(errors);
    }
}

fn completions(errors: &mut Errors, spec: &Field<'_>, before: &Field<'_>) {
    let (new, old) = (spec.get("completions"), before.get("completions"));
    if spec.get("completionMode").str() != "Indexed" {
        new.immutable(errors, &old);
    } else if new.value() != old.value() && new.exists() && new.value() != spec.get("parallelism").value() {
        errors.push(new.invalid("can only be modified in tandem with spec.parallelism"));
    }
}

/// The template is fixed, but for scheduling directives and resources of a Job that is suspended.
fn template(errors: &mut Errors, old: &Field<'_>, spec: &Field<'_>, before: &Field<'_>) {
    let field = spec.get("template");
    let suspended = before.get("suspend").is_true();
    let mut rest = field.value().clone();
    let was = before.get("template").value();
    if suspended && !old.get("status.startTime").exists() {
        let metadata = was["metadata"].clone();
        for name in ["annotations", "labels"] {
            keep(rest.member("metadata"), &metadata, name);
        }
        let pod = rest.member("spec");
        for name in ["nodeSelector", "tolerations", "schedulingGates"] {
            keep(pod, &was["spec"], name);
        }
        let affinity = &was["spec"]["affinity"];
        if pod["affinity"].is_object() {
            keep(pod.member("affinity"), affinity, "nodeAffinity");
        } else if affinity.as_object().is_some_and(|parts| parts.keys().all(|name| name == "nodeAffinity")) {
            keep(pod, &was["spec"], "affinity");
        }
    }
    if suspended {
        for list in ["containers", "initContainers"] {
            let old_list = was["spec"][list].as_array().cloned().unwrap_or_default();
            for (container, old) in rest.member("spec").each(list).zip(&old_list) {
                keep(container, old, "resources");
            }
        }
    }
    if !same(&rest, was) {
        errors.push(field.invalid("field is immutable"));
    }
}

pub(super) fn cron_job(errors: &mut Errors, cron: &Field<'_>, _cx: &Context<'_>) {
    cron_spec(errors, &cron.get("spec"), None);
    let name = cron.get("metadata.name");
    if name.str().len() > CRON_NAME_MAX {
        errors.push(name.invalid(format!("must be no more than {CRON_NAME_MAX} characters")));
    }
}

pub(super) fn cron_job_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part != Part::Status {
        cron_spec(errors, &new.get("spec"), Some(&old.get("spec")));
    }
}

fn cron_spec(errors: &mut Errors, spec: &Field<'_>, before: Option<&Field<'_>>) {
    let (times, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if times.is_empty() {
        errors.push(times.required(""));
    } else {
        errors.extend(schedule::problem(times.str()).map(|problem| times.invalid(problem)));
        let tolerated = before.is_some_and(|before| before.get("schedule").str().contains("TZ"));
        if times.str().contains("TZ") {
            if !tolerated {
                errors.push(times.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
            } else if zone.exists() {
                errors.push(times.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
            }
        }
    }
    spec.get("startingDeadlineSeconds").not_negative(errors);
    if before.is_none_or(|before| before.get("timeZone").value() != zone.value()) {
        time_zone(errors, &zone);
    }
    spec.get("concurrencyPolicy").required_one_of(errors, &["Allow", "Forbid", "Replace"]);
    let template = &spec.get("jobTemplate");
    let job = &template.get("spec");
    job_spec(errors, job);
    if job.get("manualSelector").is_true() {
        errors.push(job.get("manualSelector").not_supported(&["nil", "false"]));
    }
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(name).not_negative(errors);
    }
}

fn time_zone(errors: &mut Errors, zone: &Field<'_>) {
    if !zone.exists() {
        return;
    }
    if zone.str().is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if zone.str().eq_ignore_ascii_case("Local") {
        errors
            .push(zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"));
    } else if jiff::tz::TimeZone::get(zone.str()).is_err() {
        errors.push(zone.invalid(format!("unknown time zone {}", zone.str())));
    }
}
