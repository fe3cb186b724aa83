//! `delete` and `deletecollection`: grace, finalizers, propagation policies and preconditions.
//!
//! An object is marked (`deletionTimestamp`) when something holds it: finalizers, a grace period, or the spec of a
//! namespace. It is removed at once otherwise, and by the update that takes the last hold away.

use api::{
    status::{About, FieldError, Status},
    stored,
};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use serde_json::{Value, json};
use store::{Compare, Entry, Op, Outcome, Txn};

use super::{Written, input, list, meta, options, output, read, store_failed, update::LOST};
use crate::{
    admission::{self, Attributes, Operation},
    allocator,
    body::Body,
    catalog::Served,
    clock,
    pipeline::{
        answer::{self, Answer},
        call::Call,
    },
};

/// Resources whose delete answers with the object and not with a `Status`, as upstream chose kind by kind.
const RETURNS_OBJECT: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "services"),
    ("", "serviceaccounts"),
    ("resource.k8s.io", "*"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// Resources whose deleted objects wait for the server to clean up behind them: the finalizer that a delete adds.
const CLEANED_UP: &[(&str, &str, &str)] = &[("apiextensions.k8s.io", "customresourcedefinitions", crate::crd::CLEANUP)];

/// How many objects of a collection are deleted at once.
const COLLECTION_WORKERS: usize = 8;
const ATTEMPTS: usize = 100;

/// `meta/v1.DeleteOptions`, read from the body or the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl DeleteOptions {
    /// Reads the options; a body wins over the query.
    pub(crate) async fn read(call: &Call, body: Body) -> Result<Self, Status> {
        let definition = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
        let given = input::other(call, body, definition, "DeleteOptions", "v1").await?;
        if given.is_null() { Self::from_query(call) } else { Self::from_value(&given) }
    }

    /// Reads a `DeleteOptions` object; null is one without any option.
    pub(crate) fn from_value(given: &Value) -> Result<Self, Status> {
        let invalid = |field: &str, why: &str| {
            Status::bad_request(format!("DeleteOptions in version \"v1\" cannot be handled: {field}: {why}"))
        };
        let kind = given["kind"].as_str().unwrap_or_default();
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(Status::bad_request(format!("decoded object cannot be converted to DeleteOptions: {kind}")));
        }
        let dry: Vec<&str> = given["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let options = Self {
            grace: given["gracePeriodSeconds"].as_i64(),
            uid: given["preconditions"]["uid"].as_str().map(Into::into),
            resource_version: given["preconditions"]["resourceVersion"].as_str().map(Into::into),
            orphan_dependents: match &given["orphanDependents"] {
                Value::Null => None,
                Value::Bool(orphan) => Some(*orphan),
                _ => return Err(invalid("orphanDependents", "must be a boolean")),
            },
            propagation: given["propagationPolicy"].as_str().map(propagation).transpose()?,
            dry_run: options::check_dry_run(dry.into_iter(), "DeleteOptions")?,
        };
        options.check()
    }

    fn from_query(call: &Call) -> Result<Self, Status> {
        let query = &call.query;
        let options = Self {
            grace: query.number("gracePeriodSeconds")?,
            orphan_dependents: query.maybe_flag("orphanDependents"),
            propagation: query.text("propagationPolicy").map(propagation).transpose()?,
            dry_run: options::dry_run(query, "DeleteOptions")?,
            ..Self::default()
        };
        options.check()
    }

    fn check(self) -> Result<Self, Status> {
        if self.orphan_dependents.is_some() && self.propagation.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(Status::invalid(
                about_options(),
                vec![FieldError::invalid("propagationPolicy", propagation_name(self.propagation), why)],
            ));
        }
        Ok(self)
    }

    /// The finalizers that an object gets for the garbage collector: (orphan, foreground).
    fn collector(&self, served: &Served, object: &Value) -> (bool, bool) {
        match (self.orphan_dependents, self.propagation) {
            (Some(orphan), _) => (orphan, false),
            (_, Some(policy)) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
            _ => {
                let first =
                    meta::finalizers(object).find(|finalizer| [meta::ORPHAN, meta::FOREGROUND].contains(finalizer));
                match first {
                    Some(finalizer) => (finalizer == meta::ORPHAN, finalizer == meta::FOREGROUND),
                    None => (served.resource.hooks.orphan_by_default(), false),
                }
            }
        }
    }

    /// The form that webhooks see.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(grace) = self.grace {
            value["gracePeriodSeconds"] = grace.into();
        }
        if self.propagation.is_some() {
            value["propagationPolicy"] = propagation_name(self.propagation).into();
        }
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }
}

fn about_options() -> About<'static> {
    About { group: "meta.k8s.io", resource: "DeleteOptions", name: "" }
}

fn propagation(text: &str) -> Result<Propagation, Status> {
    match text {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        other => {
            let error =
                FieldError::not_supported("propagationPolicy", other, &["Background", "Foreground", "Orphan", "nil"]);
            Err(Status::invalid(about_options(), vec![error]))
        }
    }
}

fn propagation_name(policy: Option<Propagation>) -> &'static str {
    match policy {
        Some(Propagation::Orphan) => "Orphan",
        Some(Propagation::Background) => "Background",
        Some(Propagation::Foreground) => "Foreground",
        None => "",
    }
}

pub(crate) async fn handle(call: &Call, served: &Served, name: &str, body: Body) -> Answer {
    let accepted = call.negotiate(output::offer(served))?;
    let options = DeleteOptions::read(call, body).await?;
    let deleted = delete(call, served, &call.info.namespace, name, &options).await?;
    let waits = !deleted.gone && options.orphan_dependents == Some(false);
    let code = if waits { 202 } else { 200 };
    if deleted.gone && !returns_object(served) {
        let status = Status::deleted(served.about(name), meta::uid(&deleted.written.object));
        return answer::value(code, &status.to_value(), accepted);
    }
    output::written(call, served, code, deleted.written)
}

fn returns_object(served: &Served) -> bool {
    let resource = &served.resource;
    RETURNS_OBJECT
        .iter()
        .any(|(group, plural)| *group == resource.group && (*plural == "*" || *plural == resource.plural))
}

/// A delete's result: the object as it last was, or as it waits.
pub(crate) struct Deleted {
    pub(crate) written: Written,
    /// Nothing is left of it.
    pub(crate) gone: bool,
}

/// Deletes an object or marks it as being deleted.
pub(crate) async fn delete(
    call: &Call,
    served: &Served,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let key = served.key(namespace, name);
    let mut entry = read::find(&call.server, &key).await?;
    for _ in 0..ATTEMPTS {
        let Some(current) = entry else { return Err(Status::not_found(served.about(name))) };
        match once(call, served, namespace, name, options, &key, &current).await? {
            Ok(deleted) => return Ok(deleted),
            Err(newer) => entry = newer,
        }
    }
    Err(Status::conflict(served.about(name), LOST))
}

/// One attempt; the inner error is the newer entry that was in the way.
async fn once(
    call: &Call,
    served: &Served,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
    key: &str,
    current: &Entry,
) -> Result<Result<Deleted, Option<Entry>>, Status> {
    let old = stored::decode(&current.value, current.mod_revision)?;
    check_preconditions(served, name, options, &old)?;
    let mut attributes = Attributes::new(call, served, Operation::Delete, namespace, name, options.dry_run);
    attributes.old = Some(&old);
    attributes.options = options.to_value();
    admission::mutate(&attributes, &mut Value::Null).await?;
    let committed = admission::validate(&attributes, None).await?;

    let Some(marked) = mark(call, served, options, &old) else {
        let written = Written { object: old, bytes: Some(current.value.clone()), revision: current.mod_revision };
        return Ok(Ok(Deleted { written, gone: false }));
    };
    let (op, object, bytes, gone) = match marked {
        Marked::Waits(object) => {
            let bytes = Bytes::from(stored::encode(&object)?);
            (Op::Put { key: key.into(), value: bytes.clone(), lease: current.lease }, object, bytes, false)
        }
        Marked::Gone => (Op::Delete { key: key.into() }, old.clone(), current.value.clone(), true),
    };
    if options.dry_run {
        return Ok(Ok(Deleted { written: Written { object, bytes: None, revision: current.mod_revision }, gone }));
    }
    let compare = vec![Compare { key: key.into(), mod_revision: current.mod_revision }];
    match call.server.store().txn(Txn { compare, ops: vec![op] }).await.map_err(store_failed)? {
        Outcome::Committed(revision) => {
            committed.keep();
            if gone {
                allocator::released(call, served, &old);
                admission::deleted(call, served, &old);
            }
            let mut object = object;
            meta::of(&mut object).insert("resourceVersion".into(), revision.to_string().into());
            Ok(Ok(Deleted { written: Written { object, bytes: Some(bytes), revision }, gone }))
        }
        Outcome::Failed { current, .. } => Ok(Err(current.into_iter().next().flatten())),
    }
}

fn check_preconditions(served: &Served, name: &str, options: &DeleteOptions, old: &Value) -> Result<(), Status> {
    let failed = |what: &str, given: &str, own: &str| {
        Err(Status::conflict(
            served.about(name),
            format!("Precondition failed: {what} in precondition: {given}, {what} in object meta: {own}"),
        ))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(old)) {
        return failed("UID", uid, meta::uid(old));
    }
    let own = meta::text(old, "resourceVersion");
    if let Some(revision) = options.resource_version.as_deref().filter(|revision| *revision != own) {
        return failed("ResourceVersion", revision, own);
    }
    Ok(())
}

enum Marked {
    Waits(Value),
    Gone,
}

/// What a delete makes of the object; `None`: it is being deleted already and nothing changes.
fn mark(call: &Call, served: &Served, options: &DeleteOptions, old: &Value) -> Option<Marked> {
    let mut object = old.clone();
    let grace = match graceful(call, served, options, &mut object) {
        Grace::Pending => return None,
        Grace::AtOnce => 0,
        Grace::Set(seconds) => seconds,
    };
    let (orphan, foreground) = options.collector(served, old);
    let mut finalizers: Vec<Value> = meta::finalizers(old)
        .filter(|finalizer| ![meta::ORPHAN, meta::FOREGROUND].contains(finalizer))
        .map(Into::into)
        .collect();
    if orphan {
        finalizers.push(meta::ORPHAN.into());
    }
    if foreground {
        finalizers.push(meta::FOREGROUND.into());
    }
    let resource = &served.resource;
    let cleaned = CLEANED_UP.iter().find(|(group, plural, _)| *group == resource.group && *plural == resource.plural);
    if let Some((.., finalizer)) = cleaned.filter(|_| !meta::is_deleting(old)) {
        finalizers.push((*finalizer).into());
    }
    let held = !finalizers.is_empty() || meta::held_by_spec(served, old);
    if !held && grace == 0 {
        return Some(Marked::Gone);
    }
    let metadata = meta::of(&mut object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
    if grace == 0 {
        mark_now(call, &mut object, served);
    }
    if object == *old { None } else { Some(Marked::Waits(object)) }
}

fn mark_now(call: &Call, object: &mut Value, served: &Served) {
    let metadata = meta::of(object);
    let before = metadata.get("deletionTimestamp").and_then(Value::as_str).map(str::to_string);
    if before.is_none() {
        bump_generation(metadata);
    }
    if before.is_none_or(|before| before > call.now) {
        metadata.insert("deletionTimestamp".into(), call.now.clone().into());
    }
    if served.resource.plural == "namespaces" && served.resource.group.is_empty() {
        // Upstream's namespaces show no grace period; their phase says that they are going.
        object["status"]["phase"] = "Terminating".into();
    } else {
        metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
    }
}

fn bump_generation(metadata: &mut serde_json::Map<String, Value>) {
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

enum Grace {
    /// A graceful delete is under way and this one does not shorten it.
    Pending,
    AtOnce,
    /// The object was marked to go after this many seconds (0: at once, but marked).
    Set(i64),
}

/// Marks an object whose kind has a grace period.
fn graceful(call: &Call, served: &Served, options: &DeleteOptions, object: &mut Value) -> Grace {
    let requested = options.grace.map(|grace| if grace < 0 { 1 } else { grace });
    let deleting = meta::text(object, "deletionTimestamp").to_string();
    if deleting.is_empty() {
        let Some(grace) = served.resource.hooks.grace(object, requested) else { return Grace::AtOnce };
        if grace == 0 {
            return Grace::AtOnce;
        }
        let metadata = meta::of(object);
        metadata.insert("deletionTimestamp".into(), clock::plus(&call.now, grace).into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        bump_generation(metadata);
        return Grace::Set(grace);
    }
    let own = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if own == 0 || served.resource.hooks.grace(object, requested).is_none() {
        return Grace::AtOnce;
    }
    let Some(shorter) = requested.filter(|requested| *requested < own) else { return Grace::Pending };
    let mut grace = shorter;
    let mut at = clock::plus(&deleting, shorter - own);
    if at < call.now {
        at = call.now.clone();
        grace = grace.min(1);
    }
    let metadata = meta::of(object);
    metadata.insert("deletionTimestamp".into(), at.into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    Grace::Set(grace)
}

/// Deletes every object that the list options select, and answers with them.
pub(crate) async fn handle_collection(call: &Call, served: &Served, body: Body) -> Answer {
    let accepted = call.negotiate(output::offer(served))?;
    let options = DeleteOptions::read(call, body).await?;
    let page = list::collect(call, served).await?;
    let mut items = Vec::with_capacity(page.items.len());
    let mut waiting = page.items.into_iter();
    let mut running = FuturesOrdered::new();
    loop {
        while running.len() < COLLECTION_WORKERS
            && let Some(item) = waiting.next()
        {
            running.push_back(delete_one(call, served, item, &options));
        }
        match running.next().await {
            Some(deleted) => items.push(deleted?),
            None => break,
        }
    }
    list::answer_items(call, served, items, page.metadata, accepted)
}

/// Deletes one object of a collection; one that is gone already is as good.
async fn delete_one(call: &Call, served: &Served, item: Value, options: &DeleteOptions) -> Result<Value, Status> {
    match delete(call, served, meta::namespace(&item), meta::name(&item), options).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(item),
    }
}
