//! Fills aggregated ClusterRoles with the rules of the roles that they select.
//!
//! Reads: ClusterRole.  Writes: ClusterRole.

use std::sync::Arc;

use client::{Informer, Key};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{Driver, Outcome},
    kinds::rbac::{ClusterRole, PolicyRule},
    meta::{self, Meta},
};

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    // Which roles select a changed one is not worth an index: aggregated roles are few.
    let roles = scope.context.informers.of::<ClusterRole>();
    driver.wait_for(&roles);
    roles.on_change({
        let (queue, roles) = (driver.queue(), roles.clone());
        move |_| {
            let aggregated = roles.list().into_iter().filter(|r| r.aggregation_rule.is_some());
            aggregated.for_each(|r| queue.add(r.key()));
        }
    });
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (roles, scope) = (roles.clone(), scope.clone());
        async move { pass(&scope, &roles, key).await }
    })]
}

fn rules(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in role.aggregation_rule.iter().flat_map(|a| a.cluster_role_selectors.iter().flatten()) {
        let mut chosen: Vec<_> =
            all.iter().filter(|r| r.name() != role.name() && meta::selects(selector, r.labels())).collect();
        chosen.sort_by(|a, b| a.name().cmp(b.name()));
        for rule in chosen.iter().flat_map(|r| r.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules
}

async fn pass(scope: &Scope, roles: &Informer<ClusterRole>, key: Key) -> Outcome {
    let Some(role) = roles.get(&key).filter(|r| r.aggregation_rule.is_some() && !r.is_deleting()) else {
        return Ok(None);
    };
    let wanted = rules(&role, &roles.list());
    if role.rules.as_deref().unwrap_or_default() != wanted {
        let version = role.metadata.resource_version.clone();
        let patch = json!({"metadata": {"resourceVersion": version}, "rules": wanted});
        scope.writer.patch::<ClusterRole>(&key, patch).await?;
    }
    Ok(None)
}
