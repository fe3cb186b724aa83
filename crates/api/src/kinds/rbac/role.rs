//! Role and ClusterRole: sets of rules.

use crate::{
    kinds::{builtin::Kind, cells},
    validation::{
        field::{Errors, Field, walk},
        metadata, names,
    },
};

/// Rules in one namespace.
pub(crate) static ROLE: Kind = Kind { validate: |errors, role, _| rules(errors, role, false), ..BOTH };

/// Rules for the cluster, or the sum of other roles' rules.
pub(crate) static CLUSTER_ROLE: Kind = Kind {
    validate: |errors, role, _| {
        rules(errors, role, true);
        let aggregation = role.get("aggregationRule");
        if !aggregation.exists() {
            return;
        }
        let selectors = &aggregation.get("clusterRoleSelectors");
        if selectors.is_empty() {
            errors.push(selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for selector in selectors.items() {
            metadata::label_selector(errors, &selector);
        }
    },
    ..BOTH
};

const BOTH: Kind = Kind {
    name: names::path_segment,
    row: Some(|role, _| vec![cells::name(role), walk(role, "metadata.creationTimestamp").clone()]),
    create_on_update: true,
    ..Kind::PLAIN
};

fn rules(errors: &mut Errors, role: &Field<'_>, cluster: bool) {
    let rules = &role.get("rules");
    for rule in rules.items() {
        let verbs = rule.get("verbs");
        if verbs.is_empty() {
            errors.push(verbs.required("verbs must contain at least one value"));
        }
        let urls = rule.get("nonResourceURLs");
        if !urls.is_empty() {
            if !cluster {
                errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|name| !rule.get(name).is_empty()) {
                errors.push(urls.invalid("rules cannot apply to both regular resources and non-resource URLs"));
            }
            continue;
        }
        if rule.get("apiGroups").is_empty() {
            errors.push(rule.get("apiGroups").required("resource rules must supply at least one api group"));
        }
        if rule.get("resources").is_empty() {
            errors.push(rule.get("resources").required("resource rules must supply at least one resource"));
        }
    }
}
