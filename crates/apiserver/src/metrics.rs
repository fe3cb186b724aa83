//! `/metrics`: counters of the server, under upstream's names.

use std::{sync::LazyLock, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::pipeline::{
    answer::{self, Answer},
    call::Call,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

/// Upstream's buckets, seconds.
const BUCKETS: [f64; 17] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];

struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let mut registry = Registry::default();
    let requests = Family::default();
    let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
    registry.register(
        "apiserver_request",
        "Requests by verb, resource, scope and HTTP response code",
        requests.clone(),
    );
    registry.register(
        "apiserver_request_duration_seconds",
        "Time to answer by verb, resource and scope, in seconds",
        durations.clone(),
    );
    Metrics { registry, requests, durations }
});

/// Counts an answered request.
pub(crate) fn request(call: &Call, code: u16, took: Duration) {
    let info = &call.info;
    // Only what the catalog knows becomes a label: a client must not be able to invent series.
    let known = info.is_resource && call.catalog.find(&info.group, &info.version, &info.resource).is_some();
    let text = |text: &String| if known { text.clone() } else { String::new() };
    let verb = match info.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    };
    let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
        _ if !known => "",
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    let labels = DurationLabels {
        verb,
        group: text(&info.group),
        version: text(&info.version),
        resource: text(&info.resource),
        subresource: text(&info.subresource),
        scope,
    };
    if !call.is_long_running() {
        METRICS.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
    let DurationLabels { verb, group, version, resource, subresource, scope } = labels;
    let labels = RequestLabels { verb, group, version, resource, subresource, scope, code };
    METRICS.requests.get_or_create(&labels).inc();
}

pub(crate) async fn handle(_: &Call) -> Answer {
    let mut out = String::new();
    text::encode(&mut out, &METRICS.registry)
        .map_err(|error| api::status::Status::internal(format!("cannot write metrics: {error}")))?;
    // The classic text format, which every scraper reads, has no end marker.
    let out = out.strip_suffix("# EOF\n").map(str::to_string).unwrap_or(out);
    Ok(answer::bytes(200, "text/plain; version=0.0.4; charset=utf-8", out))
}
