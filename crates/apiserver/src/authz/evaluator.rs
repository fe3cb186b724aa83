//! Rules in the form in which they are asked: compiled once, matched without allocation.

use serde_json::Value;

use super::Attributes;

/// One policy rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Names,
    pub(crate) groups: Names,
    pub(crate) resources: Names,
    /// Empty: any name.
    pub(crate) names: Vec<String>,
    pub(crate) paths: Names,
}

/// A set of strings, or all of them (`*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) all: bool,
    pub(crate) list: Vec<String>,
}

impl Names {
    fn parse(value: &Value) -> Self {
        let list = strings(value);
        Self { all: list.iter().any(|name| name == "*"), list }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.all || self.list.iter().any(|own| own == name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

impl Rule {
    /// Reads a `rbac/v1.PolicyRule`.
    pub(crate) fn parse(rule: &Value) -> Self {
        Self {
            verbs: Names::parse(&rule["verbs"]),
            groups: Names::parse(&rule["apiGroups"]),
            resources: Names::parse(&rule["resources"]),
            names: strings(&rule["resourceNames"]),
            paths: Names::parse(&rule["nonResourceURLs"]),
        }
    }

    pub(crate) fn allows(&self, wanted: &Attributes) -> bool {
        if !self.verbs.has(&wanted.verb) {
            return false;
        }
        if !wanted.is_resource {
            return self.allows_path(&wanted.path);
        }
        self.groups.has(&wanted.group)
            && self.allows_resource(&wanted.resource, &wanted.subresource)
            && (self.names.is_empty() || self.names.contains(&wanted.name))
    }

    pub(crate) fn allows_path(&self, path: &str) -> bool {
        self.paths.list.iter().any(|own| match own.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => own == path,
        })
    }

    /// `*`, `pods`, `pods/log`, `*/scale`.
    pub(crate) fn allows_resource(&self, resource: &str, subresource: &str) -> bool {
        if self.resources.all {
            return true;
        }
        self.resources.list.iter().any(|own| match own.split_once('/') {
            None => subresource.is_empty() && own == resource,
            Some((of, sub)) => sub == subresource && (of == resource || of == "*"),
        })
    }
}

/// The rule, as reviews show it.
pub(crate) fn to_value(rule: &Rule) -> Value {
    let mut value = serde_json::json!({"verbs": rule.verbs.list});
    for (member, list) in [
        ("apiGroups", &rule.groups.list),
        ("resources", &rule.resources.list),
        ("resourceNames", &rule.names),
        ("nonResourceURLs", &rule.paths.list),
    ] {
        if !list.is_empty() {
            value[member] = serde_json::json!(list);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::user::UserInfo;

    fn wanted(verb: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::resource(Arc::new(UserInfo::new("jane", &[])))
        }
    }

    #[test]
    fn rules_match_as_rbac_says() {
        let rule = Rule::parse(&json!({
            "apiGroups": [""], "resources": ["pods", "*/scale", "nodes/proxy"], "verbs": ["get", "list"],
        }));
        for (verb, resource, expect) in [
            ("get", "pods", true),
            ("get", "pods/log", false),
            ("get", "anything/scale", true),
            ("get", "nodes/proxy", true),
            ("get", "nodes", false),
            ("delete", "pods", false),
        ] {
            assert_eq!(rule.allows(&wanted(verb, resource, "")), expect, "{verb} {resource}");
        }
        let named =
            Rule::parse(&json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "resourceNames": ["a"]}));
        assert!(named.allows(&wanted("get", "pods/log", "a")));
        assert!(!named.allows(&wanted("list", "pods", "")));
    }

    #[test]
    fn paths_match_by_prefix() {
        let rule = Rule::parse(&json!({"nonResourceURLs": ["/healthz", "/api/*"], "verbs": ["get"]}));
        assert!(rule.allows_path("/healthz") && rule.allows_path("/api/v1"));
        assert!(!rule.allows_path("/healthz/x") && !rule.allows_path("/apis"));
    }
}
