//! What a Pod asks of a node: the effective requests that the scheduler adds up and the kubelet admits by.
//!
//! Source: API reference "Resource sharing within containers", KEP-753 (sidecar containers), KEP-2837 (pod-level
//! resources), KEP-688 (overhead).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use crate::quantity::Quantity;

/// Amounts by resource name: `cpu` in millicores, everything else in whole units (bytes, counts).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Hugepages, devices and whatever else has a name.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list. Quantities that do not parse count as nothing: validation has refused them before.
    pub fn from_list(list: &BTreeMap<String, Text>) -> Self {
        let mut out = Self::default();
        for (name, text) in list {
            if let Ok(quantity) = text.0.parse::<Quantity>() {
                *out.amount(name) = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
            }
        }
        out
    }

    fn amount(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu_millis,
            "memory" => &mut self.memory_bytes,
            "ephemeral-storage" => &mut self.ephemeral_bytes,
            other => self.other.entry(other.to_string()).or_default(),
        }
    }

    pub fn add(&mut self, more: &Self) {
        self.each(more, |mine, theirs| *mine = mine.saturating_add(theirs));
    }

    pub fn subtract(&mut self, less: &Self) {
        self.each(less, |mine, theirs| *mine = mine.saturating_sub(theirs));
    }

    /// The larger of both, for each resource.
    pub fn max(&mut self, least: &Self) {
        self.each(least, |mine, theirs| *mine = (*mine).max(theirs));
    }

    fn each(&mut self, theirs: &Self, mut f: impl FnMut(&mut i64, i64)) {
        f(&mut self.cpu_millis, theirs.cpu_millis);
        f(&mut self.memory_bytes, theirs.memory_bytes);
        f(&mut self.ephemeral_bytes, theirs.ephemeral_bytes);
        for (name, &amount) in &theirs.other {
            f(self.other.entry(name.clone()).or_default(), amount);
        }
    }
}

fn listed(container: &Container, pick: fn(&ResourceRequirements) -> Option<&BTreeMap<String, Text>>) -> Resources {
    container.resources.as_ref().and_then(pick).map(Resources::from_list).unwrap_or_default()
}

/// Effective requests of a pod: what its containers need while they run together, what the neediest init phase needs,
/// pod-level requests over both, and the overhead of its runtime class.
pub fn requests(pod: &Pod) -> Resources {
    effective(pod, |requirements| requirements.requests.as_ref())
}

/// Effective limits, by the same rule.
pub fn limits(pod: &Pod) -> Resources {
    effective(pod, |requirements| requirements.limits.as_ref())
}

fn effective(pod: &Pod, pick: fn(&ResourceRequirements) -> Option<&BTreeMap<String, Text>>) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&listed(container, pick));
    }
    // Sidecars started so far keep running beside each later init container.
    let mut sidecars = Resources::default();
    let mut neediest_init = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut now = listed(container, pick);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&now);
            neediest_init.max(&sidecars);
        } else {
            now.add(&sidecars);
            neediest_init.max(&now);
        }
    }
    running.add(&sidecars);
    running.max(&neediest_init);
    if let Some(whole) = spec.resources.as_ref().and_then(pick) {
        for (name, _) in
            whole.iter().filter(|(name, _)| *name == "cpu" || *name == "memory" || name.starts_with("hugepages-"))
        {
            *running.amount(name) = *Resources::from_list(whole).amount(name);
        }
    }
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_list(overhead));
    }
    running
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cpu(spec: serde_json::Value) -> i64 {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
        requests(&pod).cpu_millis
    }

    #[test]
    fn phases_are_compared_and_companions_added() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let side = |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cases = [
            (json!({"containers": [c("100m"), c("1")]}), 1100),
            (json!({"containers": [c("100m")], "initContainers": [c("300m"), c("200m")]}), 300),
            (json!({"containers": [c("100m")], "initContainers": [side("50m"), c("300m")]}), 350),
            (json!({"containers": [c("400m")], "initContainers": [c("300m"), side("50m")]}), 450),
            (json!({"containers": [c("100m")], "overhead": {"cpu": "10m"}}), 110),
            (json!({"containers": [c("100m")], "resources": {"requests": {"cpu": "2"}}}), 2000),
        ];
        for (spec, want) in cases {
            assert_eq!(cpu(spec.clone()), want, "{spec}");
        }
    }
}
