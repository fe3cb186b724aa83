//! The server's metrics, under the names that dashboards of cluster DNS know.

use std::{sync::LazyLock, time::Duration};

use client::metrics::register;
use hickory_proto::{op::ResponseCode, rr::RecordType};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Question {
    proto: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    rcode: &'static str,
}

struct Metrics {
    requests: Family<Question, Counter>,
    responses: Family<Outcome, Counter>,
    duration: Histogram,
    forwarded: Counter,
    forward_failures: Counter,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    requests: register("coredns_dns_requests", "Questions", Family::default()),
    responses: register("coredns_dns_responses", "Answers", Family::default()),
    duration: register(
        "coredns_dns_request_duration_seconds",
        "From question to answer",
        Histogram::new([1e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 5.0]),
    ),
    forwarded: register("coredns_forward_requests", "Questions passed on", Counter::default()),
    forward_failures: register("coredns_forward_failures", "Questions that nobody answered", Counter::default()),
});

pub(crate) fn asked(proto: &'static str, kind: RecordType) {
    let r#type = match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::CNAME => "CNAME",
        RecordType::PTR => "PTR",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        RecordType::SOA => "SOA",
        RecordType::NS => "NS",
        _ => "other",
    };
    METRICS.requests.get_or_create(&Question { proto, r#type }).inc();
}

pub(crate) fn answered(code: ResponseCode, took: Duration) {
    let rcode = match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        _ => "other",
    };
    METRICS.responses.get_or_create(&Outcome { rcode }).inc();
    METRICS.duration.observe(took.as_secs_f64());
}

pub(crate) fn forwarded(answered: bool) {
    METRICS.forwarded.inc();
    if !answered {
        METRICS.forward_failures.inc();
    }
}
