//! Nobody grants more than they hold: writes of roles and bindings are judged by the writer's own rules.
//!
//! Exceptions, as upstream has them: the verbs `escalate` on a role and `bind` on what a binding refers to, and
//! `system:masters`. An update that does not change what is granted is not judged.

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Ticket};
use crate::{
    authz::{
        self,
        evaluator::{Names, Rule, to_value},
    },
    user::MASTERS,
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) struct Escalation;

#[async_trait]
impl Plugin for Escalation {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && attributes.served.resource.group == GROUP
            && attributes.subresource.is_empty()
            && !attributes.user().in_group(MASTERS)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let Some(object) = object else { return Ok(None) };
        let same = |members: [&str; 3]| {
            attributes.old.is_some_and(|old| members.into_iter().all(|member| old[member] == object[member]))
        };
        let role = attributes.resource_is(GROUP, "roles") || attributes.resource_is(GROUP, "clusterroles");
        if same(if role { ["rules", "aggregationRule", "rules"] } else { ["roleRef", "subjects", "roleRef"] }) {
            return Ok(None);
        }
        let (verb, plural, name) = if role {
            ("escalate", attributes.served.resource.plural.as_str(), attributes.name.as_str())
        } else {
            let kind = object["roleRef"]["kind"].as_str().unwrap_or_default();
            let plural = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
            ("bind", plural, object["roleRef"]["name"].as_str().unwrap_or_default())
        };
        if may(attributes, verb, plural, name).await {
            return Ok(None);
        }
        let granted = if role { rules_of(object) } else { referenced(attributes, object)? };
        let held = attributes.server().authorizer().rbac.rules_of(attributes.user(), &attributes.namespace);
        let missing: Vec<String> =
            granted.iter().filter(|rule| !covered(rule, &held)).map(|rule| to_value(rule).to_string()).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        Err(attributes.forbid(format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            attributes.user().name,
            attributes.user().groups,
            missing.join("\n")
        )))
    }
}

/// What a role grants. One that aggregates may come to grant anything.
fn rules_of(role: &Value) -> Vec<Rule> {
    if !role["aggregationRule"].is_null() {
        let all = serde_json::json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        let paths = serde_json::json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
        return vec![Rule::parse(&all), Rule::parse(&paths)];
    }
    role["rules"].as_array().into_iter().flatten().map(Rule::parse).collect()
}

fn referenced(attributes: &Attributes<'_>, binding: &Value) -> Result<Vec<Rule>, Status> {
    let text = |member: &str| binding["roleRef"][member].as_str().unwrap_or_default();
    let rules = attributes.server().authorizer().rbac.rules_of_role(text("kind"), &attributes.namespace, text("name"));
    match rules {
        Some(rules) => Ok(rules.to_vec()),
        None => Err(Status::not_found(api::status::About {
            group: GROUP,
            resource: if text("kind") == "ClusterRole" { "clusterroles" } else { "roles" },
            name: text("name"),
        })),
    }
}

async fn may(attributes: &Attributes<'_>, verb: &str, plural: &str, name: &str) -> bool {
    let mut wanted = authz::Attributes::resource(attributes.call.user.clone());
    wanted.verb = verb.into();
    wanted.group = GROUP.into();
    wanted.version = "v1".into();
    wanted.resource = plural.into();
    wanted.namespace.clone_from(&attributes.namespace);
    wanted.name = name.into();
    attributes.server().authorizer().decide(attributes.server(), &wanted).await.allowed()
}

/// Whether every single right in `rule` is held through some rule in `held`.
fn covered(rule: &Rule, held: &[Rule]) -> bool {
    let nothing = [String::new()];
    let names = if rule.names.is_empty() { &nothing[..] } else { &rule.names[..] };
    let resources = rule.verbs.list.iter().all(|verb| {
        rule.groups.list.iter().all(|group| {
            rule.resources.list.iter().all(|resource| {
                names.iter().all(|name| {
                    held.iter().any(|own| {
                        holds(&own.verbs, verb)
                            && holds(&own.groups, group)
                            && holds_resource(&own.resources, resource)
                            && (own.names.is_empty() || own.names.contains(name))
                    })
                })
            })
        })
    });
    let paths = rule.verbs.list.iter().all(|verb| {
        let path_held = |path: &str| held.iter().any(|own| holds(&own.verbs, verb) && holds_path(&own.paths, path));
        rule.paths.list.iter().all(|path| path_held(path))
    });
    resources && paths
}

/// `*` is only held by `*`.
fn holds(own: &Names, wanted: &str) -> bool {
    own.all || wanted != "*" && own.has(wanted)
}

fn holds_resource(own: &Names, wanted: &str) -> bool {
    let any_parent = wanted.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
    holds(own, wanted) || any_parent.is_some_and(|any| own.list.contains(&any))
}

fn holds_path(own: &Names, wanted: &str) -> bool {
    own.list.iter().any(|path| match path.strip_suffix('*') {
        Some(prefix) => wanted.trim_end_matches('*').starts_with(prefix),
        None => path == wanted,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rights_are_covered_one_by_one() {
        let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| {
            Rule::parse(&json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}))
        };
        let held =
            [rule(&["get", "list"], &[""], &["pods", "*/scale"], &[]), rule(&["update"], &[""], &["pods"], &["a"])];
        let cases = [
            (rule(&["get"], &[""], &["pods"], &[]), true),
            (rule(&["get", "watch"], &[""], &["pods"], &[]), false),
            (rule(&["*"], &[""], &["pods"], &[]), false),
            (rule(&["get"], &["apps"], &["pods"], &[]), false),
            (rule(&["get"], &[""], &["deployments/scale"], &[]), true),
            (rule(&["get"], &[""], &["pods/log"], &[]), false),
            (rule(&["update"], &[""], &["pods"], &["a"]), true),
            (rule(&["update"], &[""], &["pods"], &[]), false),
            (rule(&["get"], &[""], &["pods"], &["any"]), true),
        ];
        for (wanted, want) in cases {
            assert_eq!(covered(&wanted, &held), want, "{wanted:?}");
        }
        let paths = |list: &[&str]| Rule::parse(&json!({"verbs": ["get"], "nonResourceURLs": list}));
        assert!(covered(&paths(&["/healthz", "/metrics/a*"]), &[paths(&["/healthz", "/metrics/*"])]));
        assert!(!covered(&paths(&["/metrics*"]), &[paths(&["/metrics/*"])]));
    }
}
