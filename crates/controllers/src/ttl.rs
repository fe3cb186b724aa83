//! Tells kubelets how long they may cache Secrets and ConfigMaps: the larger the cluster, the longer.
//!
//! Reads: Node.  Writes: the annotation `node.alpha.kubernetes.io/ttl` of Node.

use std::sync::Arc;

use client::Key;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver},
    kinds::core::Node,
    meta::Meta,
};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Node counts that begin and end a step, and its seconds. Steps overlap, so that a count on the border does not flap.
const STEPS: [(usize, usize, u32); 6] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 10_000, 300), (9000, usize::MAX, 600)];

/// The seconds for a count, staying with `current` as long as its step allows.
fn seconds(count: usize, current: Option<u32>) -> u32 {
    let fits = |(min, max, _): &&(usize, usize, u32)| *min <= count && count <= *max;
    let kept = STEPS.iter().filter(fits).find(|(_, _, s)| Some(*s) == current);
    kept.or_else(|| STEPS.iter().find(fits)).map_or(0, |(_, _, s)| *s)
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let nodes = driver.watch::<Node>(driver::wake);
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (nodes, scope) = (nodes.clone(), scope.clone());
        async move {
            let Some(node) = nodes.get(&key) else { return Ok(None) };
            let current = node.annotation(ANNOTATION).and_then(|t| t.parse().ok());
            let wanted = seconds(nodes.len(), current);
            if current != Some(wanted) {
                let patch = json!({"metadata": {"annotations": {ANNOTATION: wanted.to_string()}}});
                scope.writer.patch::<Node>(&key, patch).await?;
            }
            Ok(None)
        }
    })]
}

#[cfg(test)]
mod tests {
    #[test]
    fn steps() {
        let cases = [
            (1, None, 0),
            (95, None, 0),
            (95, Some(15), 15),
            (101, Some(0), 15),
            (5000, None, 300),
            (20_000, None, 600),
        ];
        for (count, current, expected) in cases {
            assert_eq!(super::seconds(count, current), expected, "{count} nodes, now {current:?}");
        }
    }
}
