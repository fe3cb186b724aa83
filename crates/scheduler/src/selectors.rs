//! Selectors in the forms that scheduling meets: label selectors, node selector terms, pod affinity terms.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

type Labels = BTreeMap<String, String>;

/// Whether a label selector selects; `None` selects nothing, an empty one everything.
pub(crate) fn labels_match(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    exact
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            operator(&requirement.operator, labels.get(&requirement.key).map(String::as_str), values)
        })
}

/// One requirement on one (perhaps missing) value. `Gt` and `Lt` compare integers.
fn operator(operator: &str, value: Option<&str>, values: &[String]) -> bool {
    let compare = |holds: fn(i64, i64) -> bool| {
        let want = values.first().and_then(|value| value.parse::<i64>().ok());
        let have = value.and_then(|value| value.parse::<i64>().ok());
        matches!((have, want), (Some(have), Some(want)) if holds(have, want))
    };
    match operator {
        "In" => value.is_some_and(|value| values.iter().any(|want| want == value)),
        "NotIn" => value.is_none_or(|value| values.iter().all(|want| want != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|have, want| have > want),
        "Lt" => compare(|have, want| have < want),
        _ => false,
    }
}

/// Whether a node satisfies a required node selector: any of its terms.
pub(crate) fn node_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether a node satisfies one term: all of its requirements; an empty term matches nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let holds = |requirement: &NodeSelectorRequirement, value: Option<&str>| {
        operator(&requirement.operator, value, requirement.values.as_deref().unwrap_or_default())
    };
    let labels = node.metadata.labels.as_ref();
    expressions.iter().all(|requirement| {
        holds(requirement, labels.and_then(|labels| labels.get(&requirement.key)).map(String::as_str))
    }) && fields
        .iter()
        .all(|requirement| requirement.key == "metadata.name" && holds(requirement, node.metadata.name.as_deref()))
}

/// A pod (anti-)affinity term, resolved against the pod that carries it.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) topology_key: String,
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    /// `Some` of an empty selector: all namespaces.
    namespace_selector: Option<LabelSelector>,
}

impl Term {
    pub(crate) fn all(terms: Option<&[PodAffinityTerm]>, owner: &Pod) -> Vec<Self> {
        terms.unwrap_or_default().iter().map(|term| Self::new(term, owner)).collect()
    }

    pub(crate) fn weighted(terms: Option<&[WeightedPodAffinityTerm]>, owner: &Pod) -> Vec<(i64, Self)> {
        terms
            .unwrap_or_default()
            .iter()
            .map(|term| (i64::from(term.weight), Self::new(&term.pod_affinity_term, owner)))
            .collect()
    }

    fn new(term: &PodAffinityTerm, owner: &Pod) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(owner.metadata.namespace.clone());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: term.label_selector.clone(),
            namespaces,
            namespace_selector: term.namespace_selector.clone(),
        }
    }

    /// Whether the term speaks of a pod with these labels in `namespace`, whose own labels are `namespace_labels`.
    pub(crate) fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        let here = self.namespaces.iter().any(|name| name == namespace)
            || self.namespace_selector.is_some() && labels_match(self.namespace_selector.as_ref(), namespace_labels);
        here && labels_match(self.selector.as_ref(), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_treat_missing_values_as_upstream_does() {
        let values = ["5".to_string()];
        let cases = [
            ("In", Some("5"), true),
            ("In", None, false),
            ("NotIn", None, true),
            ("NotIn", Some("5"), false),
            ("Exists", None, false),
            ("DoesNotExist", None, true),
            ("Gt", Some("6"), true),
            ("Gt", Some("5"), false),
            ("Lt", Some("4"), true),
            ("Lt", Some("x"), false),
            ("Unknown", Some("5"), false),
        ];
        for (name, value, want) in cases {
            assert_eq!(operator(name, value, &values), want, "{name} {value:?}");
        }
    }
}
