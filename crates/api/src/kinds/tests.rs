//! Tests over all kinds.

mod defaults;
mod refused;
mod updates;

use super::*;

#[test]
fn table_and_facts_name_the_same_resources() {
    let facts: Vec<Facts> = serde_json::from_str(RESOURCES).unwrap();
    assert_eq!(all().len(), KINDS.len(), "a line of KINDS has no facts");
    for facts in facts.iter().filter(|facts| facts.served_by_default) {
        assert!(find(&facts.group, &facts.resource).is_some(), "{}/{} has no line", facts.group, facts.resource);
    }
}

#[test]
fn definitions_are_in_the_schema_table() {
    let types: serde_json::Value = serde_json::from_str(include_str!("../../data/types.json")).unwrap();
    for resource in all() {
        for version in &resource.versions {
            assert!(types.get(&version.definition).is_some(), "{}", version.definition);
        }
    }
}

#[test]
fn the_preferred_version_is_stored() {
    let scaler = find("autoscaling", "horizontalpodautoscalers").unwrap();
    let versions: Vec<(&str, bool)> =
        scaler.versions.iter().map(|version| (version.name.as_str(), version.storage)).collect();
    assert_eq!(versions, [("v2", true), ("v1", false)]);
}
