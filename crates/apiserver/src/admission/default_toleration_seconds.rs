//! `DefaultTolerationSeconds`: a pod outlives its node's silence by five minutes, unless it says otherwise.

use api::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(crate) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "pods")
    }

    async fn mutate(&self, _: &Attributes<'_>, pod: &mut Value) -> Result<bool, Status> {
        Ok(add(&mut pod["spec"]))
    }
}

fn add(spec: &mut Value) -> bool {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let before = tolerations.len();
    for taint in TAINTS {
        let tolerated = tolerations.iter().any(|own| {
            let key = own["key"].as_str().unwrap_or_default();
            let effect = own["effect"].as_str().unwrap_or_default();
            (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
    let changed = tolerations.len() != before;
    if changed {
        spec["tolerations"] = tolerations.into();
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_tolerations_stay() {
        let mut spec = json!({"tolerations": [{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}]});
        assert!(add(&mut spec));
        assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
        assert!(!add(&mut spec));
        assert!(!add(&mut json!({"tolerations": [{"operator": "Exists"}]})));
    }
}
