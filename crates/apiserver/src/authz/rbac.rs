//! Role-based access: roles and bindings, compiled into one table by subject.
//!
//! The table is rebuilt when a role or binding changes; a decision looks the user and its groups up and tries the rules
//! of what it finds. Aggregated cluster roles have the rules of the roles that they select, whether or not a controller
//! has written them down yet.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Decision, evaluator::Rule};
use crate::{mirror, registry::meta, server::Server, user::UserInfo};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The four resources that make the table.
const SOURCES: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

#[derive(Default)]
pub(crate) struct Rbac {
    /// Objects by resource and key.
    objects: Mutex<HashMap<&'static str, BTreeMap<Arc<str>, Arc<Value>>>>,
    table: ArcSwap<Table>,
}

/// A user or group that holds a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// One binding's effect on its subjects.
#[derive(Clone)]
struct Grant {
    rules: Arc<[Rule]>,
    /// For the reason of a decision.
    binding: Arc<str>,
    /// The role that the binding names does not exist.
    missing: Option<Arc<str>>,
}

#[derive(Default)]
struct Table {
    cluster: HashMap<Subject, Vec<Grant>>,
    namespaces: HashMap<String, HashMap<Subject, Vec<Grant>>>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

impl Rbac {
    /// Follows the stored roles and bindings; returns once it knows those there are.
    pub(crate) async fn start(server: &Arc<Server>) {
        for plural in SOURCES {
            let changed = server.clone();
            let batch = move |changes: Vec<mirror::Change>| {
                let rbac = &changed.authorizer().rbac;
                rbac.take(plural, changes);
            };
            mirror::follow(server, GROUP, plural, batch).await;
        }
    }

    fn take(&self, plural: &'static str, changes: Vec<mirror::Change>) {
        let mut objects = self.objects.lock();
        let own = objects.entry(plural).or_default();
        for change in changes {
            match change.object {
                Some(object) => own.insert(change.key, object),
                None => own.remove(&change.key),
            };
        }
        self.table.store(Arc::new(Table::compile(&objects)));
    }

    pub(crate) fn decide(&self, wanted: &Attributes) -> Decision {
        let table = self.table.load();
        let mut missing = None;
        for (grant, place) in table.grants(&wanted.user, &wanted.namespace) {
            if grant.rules.iter().any(|rule| rule.allows(wanted)) {
                return Decision::Allowed(format!("RBAC: allowed by {place} {:?}", grant.binding));
            }
            if let Some(role) = &grant.missing {
                missing = Some(role.clone());
            }
        }
        Decision::Denied(missing.map(|role| format!("RBAC: {role} not found")).unwrap_or_default())
    }

    /// Every rule that a user has, in a namespace or (empty) in the whole cluster.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let table = self.table.load();
        table.grants(user, namespace).flat_map(|(grant, _)| grant.rules.iter().cloned()).collect()
    }

    /// The rules of a role, for checks of escalation.
    pub(crate) fn rules_of_role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let table = self.table.load();
        match kind {
            "ClusterRole" => table.cluster_roles.get(name).cloned(),
            _ => table.roles.get(&(namespace.to_string(), name.to_string())).cloned(),
        }
    }
}

impl Table {
    fn compile(objects: &HashMap<&'static str, BTreeMap<Arc<str>, Arc<Value>>>) -> Self {
        let all = |plural: &str| objects.get(plural).into_iter().flat_map(BTreeMap::values);
        let mut table = Self::default();
        for role in all("clusterroles") {
            table.cluster_roles.insert(meta::name(role).into(), rules(role).into());
        }
        aggregate(&mut table, &all("clusterroles").cloned().collect::<Vec<_>>());
        for role in all("roles") {
            let key = (meta::namespace(role).to_string(), meta::name(role).to_string());
            table.roles.insert(key, rules(role).into());
        }
        for binding in all("clusterrolebindings") {
            let grant = table.grant(binding, "");
            for subject in subjects(binding, "") {
                table.cluster.entry(subject).or_default().push(grant.clone());
            }
        }
        for binding in all("rolebindings") {
            let namespace = meta::namespace(binding);
            let grant = table.grant(binding, namespace);
            for subject in subjects(binding, namespace) {
                let own = table.namespaces.entry(namespace.into()).or_default();
                own.entry(subject).or_default().push(grant.clone());
            }
        }
        table
    }

    fn grant(&self, binding: &Value, namespace: &str) -> Grant {
        let role = &binding["roleRef"];
        let (kind, name) = (role["kind"].as_str().unwrap_or_default(), role["name"].as_str().unwrap_or_default());
        let rules = match kind {
            "ClusterRole" => self.cluster_roles.get(name).cloned(),
            "Role" => self.roles.get(&(namespace.to_string(), name.to_string())).cloned(),
            _ => None,
        };
        let missing = rules.is_none().then(|| format!("{}.{GROUP} {name:?}", kind.to_lowercase()).into());
        let mut label = meta::name(binding).to_string();
        if !namespace.is_empty() {
            label = format!("{label}/{namespace}");
        }
        Grant {
            rules: rules.unwrap_or_else(|| Arc::new([])),
            binding: format!("{label} of {kind} {name}").into(),
            missing,
        }
    }

    /// What a user was granted in the cluster and in a namespace.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = (&'a Grant, &'static str)> {
        let subjects =
            || std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().cloned().map(Subject::Group));
        let cluster = subjects()
            .filter_map(move |subject| self.cluster.get(&subject))
            .flatten()
            .map(|grant| (grant, "ClusterRoleBinding"));
        let own = self.namespaces.get(namespace);
        let local =
            subjects().filter_map(move |subject| own?.get(&subject)).flatten().map(|grant| (grant, "RoleBinding"));
        cluster.chain(local)
    }
}

/// How deep aggregated roles may select aggregated roles (`admin` selects `edit` selects `view`).
const AGGREGATION_DEPTH: usize = 3;

fn aggregate(table: &mut Table, roles: &[Arc<Value>]) {
    for _ in 0..AGGREGATION_DEPTH {
        for role in roles.iter().filter(|role| !role["aggregationRule"].is_null()) {
            let mut rules: Vec<Rule> = rules(role);
            for selector in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
                for part in roles.iter().filter(|part| meta::name(part) != meta::name(role) && selects(selector, part))
                {
                    let known = table.cluster_roles.get(meta::name(part));
                    for rule in known.into_iter().flat_map(|rules| rules.iter()) {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            table.cluster_roles.insert(meta::name(role).into(), rules.into());
        }
    }
}

fn rules(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().map(Rule::parse).collect()
}

fn selects(selector: &Value, role: &Value) -> bool {
    api::selector::LabelSelector::from_object(selector)
        .is_ok_and(|selector| selector.matches(|label| role["metadata"]["labels"][label].as_str()))
}

fn subjects(binding: &Value, namespace: &str) -> Vec<Subject> {
    let list = binding["subjects"].as_array().into_iter().flatten();
    list.filter_map(|subject| {
        let name = subject["name"].as_str()?;
        match subject["kind"].as_str()? {
            "User" => Some(Subject::User(name.into())),
            "Group" => Some(Subject::Group(name.into())),
            "ServiceAccount" => {
                let own = subject["namespace"].as_str().filter(|own| !own.is_empty()).unwrap_or(namespace);
                Some(Subject::User(format!("system:serviceaccount:{own}:{name}")))
            }
            _ => None,
        }
    })
    .collect()
}
