//! ServiceAccount: an identity for pods.

use serde_json::{Value, json};

use crate::{
    kinds::{access::Members, builtin::Kind, cells},
    validation::field::walk,
};

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub(crate) static KIND: Kind = Kind {
    create: |account, _| clean(account),
    update: |account, _, _| clean(account),
    warnings: |new, old| {
        let enforced = |account: &Value| walk(account, "metadata.annotations").get(ENFORCE).is_some();
        if !enforced(new) || old.is_some_and(enforced) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted \
             secrets"
        )]
    },
    row: Some(|account, now| vec![cells::name(account), cells::age(account, now)]),
    ..Kind::PLAIN
};

/// References to secrets keep their name only.
fn clean(account: &mut Value) {
    for secret in account.each("secrets") {
        *secret = match secret.text("name") {
            "" => json!({}),
            name => json!({"name": name}),
        };
    }
}
