//! Fits endpoints into EndpointSlices with as few writes as possible.
//!
//! Endpoints with equal ports share slices. Those already in a slice stay where they are; new ones fill slices that
//! change anyway, then slices with room, then new slices. Slices left empty are deleted.

use std::{collections::BTreeMap, sync::Arc};

use client::{Key, Object};
use serde_json::Value;

use crate::{
    Error,
    kinds::{
        ObjectMeta,
        discovery::{Endpoint, EndpointPort, EndpointSlice},
    },
    meta::{Labels, Meta, controller_reference},
    pods::hash,
    write::Writer,
};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Index of slices by `MANAGER/NAMESPACE/SERVICE`.
pub(crate) const BY_SERVICE: &str = "service";

pub(crate) fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let (manager, service) = (slice.label(MANAGED_BY), slice.label(SERVICE_NAME));
    manager.zip(service).map(|(m, s)| index_value(m, &Key::new(slice.namespace(), s))).into_iter().collect()
}

pub(crate) fn index_value(manager: &str, service: &Key) -> String {
    format!("{manager}/{}/{}", service.namespace, service.name)
}

/// Endpoints with equal ports and one address type.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Key>,
}

/// What every slice of one owner carries.
pub(crate) struct Frame {
    pub(crate) meta: ObjectMeta,
    /// Endpoints in one slice.
    pub(crate) capacity: usize,
}

impl Frame {
    pub(crate) fn new<K: Object>(owner: &K, labels: Labels, capacity: usize) -> Self {
        let meta = ObjectMeta {
            generate_name: Some(format!("{}-", owner.name())),
            namespace: Some(owner.namespace().to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        };
        Self { meta, capacity }
    }
}

fn group_key(address_type: &str, ports: &[EndpointPort]) -> (String, String) {
    let mut ports: Vec<Value> = ports.iter().map(hash::canonical).collect();
    ports.sort_by_key(Value::to_string);
    (address_type.to_owned(), Value::Array(ports).to_string())
}

/// Names an endpoint across changes of its conditions.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone());
    format!("{}/{}", target.unwrap_or_default(), endpoint.addresses.join(","))
}

/// Plans the writes that make `existing` hold exactly the endpoints of `groups`.
pub(crate) fn plan(frame: &Frame, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut by_group: BTreeMap<_, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        let key = group_key(&slice.address_type, slice.ports.as_deref().unwrap_or_default());
        by_group.entry(key).or_default().push(slice);
    }
    for group in groups {
        let slices = by_group.remove(&group_key(group.address_type, &group.ports)).unwrap_or_default();
        fit(frame, group, &slices, &mut plan);
    }
    plan.delete.extend(by_group.into_values().flatten().map(|s| s.key()));
    plan
}

fn fit(frame: &Frame, group: Group, slices: &[&Arc<EndpointSlice>], plan: &mut Plan) {
    let placeholder = group.endpoints.is_empty();
    let mut wanted: BTreeMap<String, Endpoint> = group.endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut kept: Vec<Kept> = Vec::new();
    for slice in slices {
        let mut next = EndpointSlice::clone(slice);
        let former = next.endpoints.take().unwrap_or_default();
        let stay: Vec<Endpoint> = former.iter().filter_map(|e| wanted.remove(&identity(e))).collect();
        next.metadata.labels = frame.meta.labels.clone();
        next.metadata.owner_references = frame.meta.owner_references.clone();
        let changed = hash::canonical(&stay) != hash::canonical(&former)
            || hash::canonical(&next.metadata) != hash::canonical(&slice.metadata);
        kept.push(Kept { slice: next, endpoints: stay, changed });
    }
    // Slices that are written anyway come first, fullest first.
    kept.sort_by_key(|k| (!k.changed, std::cmp::Reverse(k.endpoints.len())));
    let mut fresh: Vec<Endpoint> = wanted.into_values().collect();
    for k in &mut kept {
        let room = frame.capacity.saturating_sub(k.endpoints.len()).min(fresh.len());
        if room > 0 {
            k.endpoints.extend(fresh.drain(..room));
            k.changed = true;
        }
    }
    // One slice may stay empty, and only if there are no endpoints at all.
    let mut empty_kept = !placeholder;
    for Kept { mut slice, endpoints, changed } in kept {
        if endpoints.is_empty() && empty_kept {
            plan.delete.push(slice.key());
            continue;
        }
        empty_kept |= endpoints.is_empty();
        if changed {
            slice.endpoints = Some(endpoints);
            plan.update.push(slice);
        }
    }
    let new = |endpoints: Vec<Endpoint>| EndpointSlice {
        metadata: frame.meta.clone(),
        address_type: group.address_type.to_owned(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints),
    };
    while !fresh.is_empty() {
        let rest = fresh.split_off(frame.capacity.min(fresh.len()));
        plan.create.push(new(std::mem::replace(&mut fresh, rest)));
    }
    if placeholder && !empty_kept {
        plan.create.push(new(Vec::new()));
    }
}

/// An existing slice with the endpoints it will hold.
struct Kept {
    slice: EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Writes the plan. `created` is called with the number of creations before the first, and `failed` for each that
/// did not happen.
pub(crate) async fn apply(
    writer: &Writer,
    plan: Plan,
    created: impl FnOnce(usize),
    failed: impl Fn(),
) -> Result<(), Error> {
    let mut errors = Vec::new();
    created(plan.create.len());
    for slice in &plan.create {
        if let Err(error) = writer.create(slice).await {
            failed();
            errors.push(error);
        }
    }
    for slice in &plan.update {
        errors.extend(writer.update(slice).await.err());
    }
    for key in &plan.delete {
        errors.extend(writer.delete::<EndpointSlice>(key, None).await.err());
    }
    Error::collect(errors)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn endpoints(names: &str, ready: bool) -> Vec<Endpoint> {
        let one = |name: &str| json!({"addresses": [format!("10.0.0.{}", name.len())], "conditions": {"ready": ready}, "targetRef": {"uid": name}});
        names.split_whitespace().map(|n| from_value(one(n)).expect("endpoint")).collect()
    }

    fn slice(name: &str, names: &str) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            metadata: ObjectMeta { name: Some(name.into()), ..frame().meta },
            address_type: "IPv4".into(),
            ports: None,
            endpoints: Some(endpoints(names, true)),
        })
    }

    fn frame() -> Frame {
        Frame { meta: ObjectMeta::default(), capacity: 3 }
    }

    #[test]
    fn few_writes() {
        // (existing, wanted) -> (created, updated, deleted) with their endpoints
        let cases: [(&[(&str, &str)], &str, &str); 7] = [
            (&[], "", "create[]"),
            (&[], "a b c d", "create[abc] create[d]"),
            (&[("x", "a b")], "a b", ""),
            (&[("x", "a b")], "a b c", "update x[abc]"),
            (&[("x", "a b c"), ("y", "d")], "a b c", "delete y"),
            (&[("x", "a b"), ("y", "c")], "a d", "update x[ad] delete y"),
            (&[("x", "a")], "", "update x[]"),
        ];
        for (existing, wanted, expected) in cases {
            let existing: Vec<_> = existing.iter().map(|(n, e)| slice(n, e)).collect();
            let group = Group { address_type: "IPv4", ports: vec![], endpoints: endpoints(wanted, true) };
            let plan = plan(&frame(), vec![group], &existing);
            let uids = |s: &EndpointSlice| {
                let all = s.endpoints.iter().flatten().filter_map(|e| e.target_ref.as_ref()?.uid.clone());
                all.collect::<String>()
            };
            let mut got: Vec<String> = plan.create.iter().map(|s| format!("create[{}]", uids(s))).collect();
            got.extend(plan.update.iter().map(|s| format!("update {}[{}]", s.name(), uids(s))));
            got.extend(plan.delete.iter().map(|k| format!("delete {}", k.name)));
            assert_eq!(got.join(" "), expected, "from {existing:?} to {wanted:?}");
        }
    }

    #[test]
    fn a_changed_condition_is_an_update() {
        let group = Group { address_type: "IPv4", ports: vec![], endpoints: endpoints("a", false) };
        let plan = plan(&frame(), vec![group], &[slice("x", "a")]);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    }
}
