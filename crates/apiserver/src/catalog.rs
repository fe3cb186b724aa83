//! The resources that are served right now: built-in kinds and custom resources in one table.
//!
//! Invariant: a catalog never changes once built; a change of a custom resource definition swaps in a new one, so a
//! request sees one catalog from its beginning to its end.

use std::{collections::HashMap, sync::Arc};

use api::{
    kind::{Resource, Subresource, Version},
    schema::TypeRef,
    status::{About, Status},
};
use serde_json::Value;

use crate::codec;

/// A resource in the version that a request names.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) resource: Arc<Resource>,
    /// The definition of a custom resource.
    definition: Option<Arc<Value>>,
    version: usize,
    storage: usize,
}

impl Served {
    pub(crate) fn version(&self) -> &Version {
        &self.resource.versions[self.version]
    }

    /// The version in which objects are stored.
    pub(crate) fn storage_version(&self) -> &Version {
        &self.resource.versions[self.storage]
    }

    /// Objects must be converted between request and store.
    pub(crate) fn converts(&self) -> bool {
        self.version != self.storage || self.resource.hooks.shared_storage().is_some()
    }

    /// Converts an object of the request's version to the one that is stored.
    pub(crate) fn to_storage(&self, object: &mut Value) -> Result<(), Status> {
        if self.converts() {
            self.convert(object, &self.api_version(), &self.storage_api_version())?;
        }
        Ok(())
    }

    /// Converts a stored object to the request's version.
    pub(crate) fn from_storage(&self, object: &mut Value) -> Result<(), Status> {
        if self.converts() {
            self.convert(object, &self.storage_api_version(), &self.api_version())?;
        }
        Ok(())
    }

    fn convert(&self, object: &mut Value, from: &str, to: &str) -> Result<(), Status> {
        // A kind that shares another group's storage tells the groups apart by full versions.
        let short = |version: &'_ str| -> String {
            match self.resource.hooks.shared_storage() {
                Some(_) => version.to_string(),
                None => version.rsplit('/').next().unwrap_or(version).to_string(),
            }
        };
        self.resource.hooks.convert(object, &short(from), &short(to)).map_err(|why| {
            Status::internal(format!("cannot convert {} from {from} to {to}: {why}", self.resource.kind))
        })?;
        object["apiVersion"] = to.into();
        Ok(())
    }

    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.resource.group, &self.version().name)
    }

    /// `apiVersion` of the stored form.
    pub(crate) fn storage_api_version(&self) -> String {
        match self.resource.hooks.shared_storage() {
            Some(shared) => api_version(shared.group, shared.version),
            None => api_version(&self.resource.group, &self.storage_version().name),
        }
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.version().subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The prefix of all keys of the resource, or of those in a namespace.
    pub(crate) fn prefix(&self, namespace: &str) -> String {
        let group = self.resource.hooks.shared_storage().map_or(&*self.resource.group, |shared| shared.group);
        prefix(group, &self.resource.plural, namespace)
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        self.prefix(if self.resource.namespaced { namespace } else { "" }) + name
    }

    /// For errors about an object.
    pub(crate) fn about<'a>(&'a self, name: &'a str) -> About<'a> {
        About { group: &self.resource.group, resource: &self.resource.plural, name }
    }

    /// For field errors, which name the kind.
    pub(crate) fn about_kind<'a>(&'a self, name: &'a str) -> About<'a> {
        About { group: &self.resource.group, resource: &self.resource.kind, name }
    }

    /// No definition in the schema tables: a custom resource.
    pub(crate) fn is_custom(&self) -> bool {
        self.version().definition.is_empty()
    }

    /// The type of its objects in the request's version.
    pub(crate) fn schema(&self) -> TypeRef<'_> {
        self.resource.type_of(self.version())
    }

    /// The schema that a custom resource is published with.
    pub(crate) fn openapi_schema(&self) -> Option<&Value> {
        version_of(self.definition.as_deref()?, &self.version().name)?.pointer("/schema/openAPIV3Schema")
    }

    /// The same resource in another served version.
    pub(crate) fn in_version(&self, name: &str) -> Option<Served> {
        let version = self.resource.versions.iter().position(|version| version.name == name)?;
        Some(Served { version, ..self.clone() })
    }
}

/// A version of a custom resource definition.
fn version_of<'a>(definition: &'a Value, name: &str) -> Option<&'a Value> {
    definition["spec"]["versions"].as_array()?.iter().find(|version| version["name"] == name)
}

/// `v1` or `apps/v1`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// Key prefix of a resource (`/registry/apps/deployments/`), within `namespace` unless that is empty.
pub(crate) fn prefix(group: &str, plural: &str, namespace: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    if namespace.is_empty() {
        format!("/registry/{group}/{plural}/")
    } else {
        format!("/registry/{group}/{plural}/{namespace}/")
    }
}

/// Everything served, in the order of discovery.
#[derive(Default)]
pub(crate) struct Catalog {
    index: HashMap<String, HashMap<String, Known>>,
    groups: Vec<Group>,
}

/// A resource, and what defines it when it is a custom one.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) resource: Arc<Resource>,
    pub(crate) definition: Option<Arc<Value>>,
}

impl Known {
    pub(crate) fn builtin(resource: &Arc<Resource>) -> Self {
        Self { resource: resource.clone(), definition: None }
    }

    /// A version may be stored and yet not be served.
    fn serves(&self, version: &str) -> bool {
        let Some(definition) = &self.definition else { return true };
        version_of(definition, version).is_some_and(|version| version["served"] == true)
    }

    fn in_version(&self, version: usize) -> Served {
        let storage = self.resource.versions.iter().position(|own| own.storage).unwrap_or(version);
        Served { resource: self.resource.clone(), definition: self.definition.clone(), version, storage }
    }
}

/// An API group with its served versions.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Preferred first.
    pub(crate) versions: Vec<String>,
}

impl Catalog {
    pub(crate) fn new(resources: impl IntoIterator<Item = Known>) -> Self {
        let mut catalog = Self::default();
        for known in resources {
            let name = &known.resource.group;
            let at = catalog.groups.iter().position(|entry| entry.name == *name).unwrap_or_else(|| {
                catalog.groups.push(Group { name: name.clone(), versions: Vec::new() });
                catalog.groups.len() - 1
            });
            let versions = &mut catalog.groups[at].versions;
            for version in known.resource.versions.iter().filter(|version| known.serves(&version.name)) {
                if !versions.contains(&version.name) {
                    versions.push(version.name.clone());
                }
            }
            catalog.index.entry(name.clone()).or_default().insert(known.resource.plural.clone(), known);
        }
        catalog.groups.retain(|group| !group.versions.is_empty());
        for group in &mut catalog.groups {
            group.versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        }
        catalog.groups.sort_by_key(|group| group_rank(&group.name));
        catalog
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let known = self.index.get(group)?.get(plural)?;
        let at = known.resource.versions.iter().position(|own| own.name == version)?;
        known.serves(version).then(|| known.in_version(at))
    }

    /// A resource in its storage version.
    pub(crate) fn stored(&self, group: &str, plural: &str) -> Option<Served> {
        let known = self.index.get(group)?.get(plural)?;
        Some(known.in_version(known.resource.versions.iter().position(|own| own.storage).unwrap_or(0)))
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Resources of a group's version, by name.
    pub(crate) fn in_version<'a>(&'a self, group: &'a str, version: &'a str) -> Vec<Served> {
        let own = self.index.get(group).into_iter().flat_map(HashMap::keys);
        let mut found: Vec<Served> = own.filter_map(|plural| self.find(group, version, plural)).collect();
        found.sort_by(|a, b| a.resource.plural.cmp(&b.resource.plural));
        found
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, then by number.
pub(crate) fn version_rank(version: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..end].parse().ok()?;
        let rest = &rest[end..];
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (level, number) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(number), _) => (2, number),
            (_, Some(number)) => (1, number),
            _ => return None,
        };
        Some((level, major, number.parse().ok()?))
    };
    parse().unwrap_or((0, 0, 0))
}

/// Groups in the order in which discovery lists them; unknown ones (custom resources) follow by name.
const GROUP_ORDER: [&str; 23] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

fn group_rank(name: &str) -> (usize, String) {
    let at = GROUP_ORDER.iter().position(|group| *group == name).unwrap_or(GROUP_ORDER.len());
    (at, name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_kubernetes_does() {
        let mut versions = ["v1alpha1", "v2", "foo", "v1beta2", "v11beta1", "v1", "v10"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta1", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn keys_name_group_resource_and_namespace() {
        assert_eq!(prefix("", "events", "a"), "/registry/core/events/a/");
        assert_eq!(prefix("apps", "deployments", ""), "/registry/apps/deployments/");
    }
}
