//! The default roles and bindings, from the tables of the API.

use serde_json::Value;

use super::{Reconcile, Seed};
use crate::server::Error;

const GROUP: &str = "rbac.authorization.k8s.io";
/// Roles and bindings with this annotation set to `false` are left alone.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const TABLES: [&str; 6] = [
    include_str!("../../../api/data/rbac/cluster-roles.yaml"),
    include_str!("../../../api/data/rbac/cluster-role-bindings.yaml"),
    include_str!("../../../api/data/rbac/controller-roles.yaml"),
    include_str!("../../../api/data/rbac/controller-role-bindings.yaml"),
    include_str!("../../../api/data/rbac/namespace-roles.yaml"),
    include_str!("../../../api/data/rbac/namespace-role-bindings.yaml"),
];

pub(super) fn all() -> Result<Vec<Seed>, Error> {
    let mut seeds = Vec::new();
    for table in TABLES {
        let list: Value = serde_saphyr::from_str(table)
            .map_err(|error| Error::Material { what: "table of default roles", why: error.to_string() })?;
        for object in list["items"].as_array().into_iter().flatten() {
            let plural = match object["kind"].as_str().unwrap_or_default() {
                "ClusterRole" => "clusterroles",
                "ClusterRoleBinding" => "clusterrolebindings",
                "Role" => "roles",
                _ => "rolebindings",
            };
            seeds.push(Seed { group: GROUP, plural, object: object.clone(), reconcile: Reconcile::With(restore) });
        }
    }
    Ok(seeds)
}

/// Adds the rules and subjects that the stored object lacks; what it has beyond them stays.
fn restore(seed: &Value, stored: &mut Value) {
    if stored["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return;
    }
    for member in ["rules", "subjects"] {
        let wanted = seed[member].as_array().into_iter().flatten();
        let own = stored[member].as_array().cloned().unwrap_or_default();
        let lost: Vec<Value> = wanted.filter(|item| !own.contains(item)).cloned().collect();
        if !lost.is_empty() {
            stored[member] = own.into_iter().chain(lost).collect::<Vec<_>>().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tables_hold_what_clusters_need() {
        let seeds = all().unwrap();
        for (plural, name) in [
            ("clusterroles", "cluster-admin"),
            ("clusterrolebindings", "system:public-info-viewer"),
            ("clusterroles", "system:controller:replicaset-controller"),
            ("roles", "extension-apiserver-authentication-reader"),
        ] {
            assert!(
                seeds.iter().any(|seed| seed.plural == plural && seed.object["metadata"]["name"] == name),
                "{name}"
            );
        }
    }

    #[test]
    fn lost_rules_come_back_and_added_ones_stay() {
        let seed = json!({"rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]});
        let mut stored = json!({"rules": [{"verbs": ["list"]}, {"verbs": ["delete"]}]});
        restore(&seed, &mut stored);
        assert_eq!(stored["rules"], json!([{"verbs": ["list"]}, {"verbs": ["delete"]}, {"verbs": ["get"]}]));
        let mut frozen = json!({"metadata": {"annotations": {AUTOUPDATE: "false"}}, "rules": []});
        restore(&seed, &mut frozen);
        assert_eq!(frozen["rules"], json!([]));
    }
}
