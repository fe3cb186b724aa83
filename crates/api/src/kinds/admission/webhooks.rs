//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use serde_json::Value;

use crate::kinds::{
    access::Members,
    builtin::{Kind, Shape},
    cells,
};

pub(crate) static VALIDATING: Kind = Kind { default: |object| object.each("webhooks").for_each(default), ..BOTH };

pub(crate) static MUTATING: Kind = Kind {
    default: |object| {
        for webhook in object.each("webhooks") {
            default(webhook);
            webhook.fill("reinvocationPolicy", "Never");
        }
    },
    ..BOTH
};

const BOTH: Kind = Kind {
    shape: Shape { generation: &["webhooks"], ..Shape::PLAIN },
    row: Some(|object, now| {
        let count = object["webhooks"].as_array().map_or(0, Vec::len);
        vec![cells::name(object), count.into(), cells::age(object, now)]
    }),
    unconditional_update: false,
    ..Kind::PLAIN
};

fn default(webhook: &mut Value) {
    webhook.fill("failurePolicy", "Fail");
    super::policy::default_match(webhook);
    webhook.fill("timeoutSeconds", 10);
    if let Some(config) = webhook.existing("clientConfig")
        && let Some(service) = config.existing("service")
    {
        service.fill("port", 443);
    }
}
