//! Why a pod fits nowhere, in the words that `kubectl describe pod` has always shown.

use std::fmt;

use crate::cycle::Refusals;

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(why) = &self.of_pod {
            return write!(f, " {why}.");
        }
        let mut parts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        write!(f, " {}.", parts.join(", "))
    }
}

/// What preemption said, appended to the refusals.
pub(crate) fn with_preemption(refusals: &Refusals) -> String {
    if refusals.nodes == 0 {
        return refusals.to_string();
    }
    let hopeless = refusals.nodes - refusals.full.len();
    let mut parts = Vec::new();
    if !refusals.full.is_empty() {
        parts.push(format!("{} No preemption victims found for incoming pod", refusals.full.len()));
    }
    if hopeless > 0 {
        parts.push(format!("{hopeless} Preemption is not helpful for scheduling"));
    }
    format!("{refusals} preemption: 0/{} nodes are available: {}.", refusals.nodes, parts.join(", "))
}
