//! Custom resources: definitions become served resources, and go with everything they defined.
//!
//! One task follows the definitions. It writes what each one's status should say (names accepted, established), compiles
//! what is established and swaps in a catalog that has it; discovery and OpenAPI follow at once, being made from the
//! catalog. A definition that is deleted stays, terminating, until its last object is gone.

use std::{collections::BTreeMap, sync::Arc};

use api::{kind::Part, status::Status};
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{Range, WatchItem};
use tokio::sync::Notify;

use crate::{
    catalog::{Catalog, Known, Served},
    mirror,
    pipeline::call::Call,
    registry::{
        delete::{self, DeleteOptions},
        meta, rewrite, store_failed,
        update::{self, Changed, Ownership, Update},
    },
    server::Server,
};

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// Holds a deleted definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The definitions as they were last heard of.
#[derive(Default)]
struct Definitions {
    known: Mutex<BTreeMap<Arc<str>, Arc<Value>>>,
    changed: Notify,
}

/// Follows the stored definitions.
pub(crate) async fn start(server: &Arc<Server>) {
    let definitions = Arc::new(Definitions::default());
    let (heard, serving) = (definitions.clone(), server.clone());
    mirror::follow(server, GROUP, PLURAL, move |changes| {
        let mut known = heard.known.lock();
        for change in changes {
            match change.object {
                Some(object) => known.insert(change.key, object),
                None => known.remove(&change.key),
            };
        }
        serve(&serving, &known);
        heard.changed.notify_one();
    })
    .await;
    let (server, draining) = (server.clone(), server.draining().clone());
    tokio::spawn(async move {
        tokio::select! {
            () = draining.cancelled() => {}
            () = reconcile(server, definitions) => {}
        }
    });
}

/// Swaps in a catalog with everything that is established.
fn serve(server: &Server, known: &BTreeMap<Arc<str>, Arc<Value>>) {
    let mut resources: Vec<Known> = api::kinds::all().iter().map(Known::builtin).collect();
    for definition in known.values().filter(|definition| is_true(definition, "Established")) {
        match api::crd::resource(definition) {
            Ok(resource) => {
                resources.push(Known { resource: Arc::new(resource), definition: Some(definition.clone()) });
            }
            Err(errors) => {
                let why: Vec<String> = errors.iter().map(ToString::to_string).collect();
                tracing::error!(name = meta::name(definition), why = why.join(", "), "cannot serve a custom resource");
            }
        }
    }
    server.set_catalog(Catalog::new(resources));
}

fn is_true(definition: &Value, kind: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

async fn reconcile(server: Arc<Server>, definitions: Arc<Definitions>) {
    loop {
        let known: Vec<Arc<Value>> = definitions.known.lock().values().cloned().collect();
        for definition in &known {
            let name = meta::name(definition);
            let done = if meta::is_deleting(definition) {
                if meta::finalizers(definition).any(|finalizer| finalizer == CLEANUP) {
                    tokio::spawn(clean_up(server.clone(), definition.clone()));
                }
                continue;
            } else {
                establish(&server, definition, &known).await
            };
            if let Err(status) = done {
                tracing::warn!(name, %status, "cannot write the status of a custom resource definition");
            }
        }
        definitions.changed.notified().await;
    }
}

/// Accepts the definition's names, unless another one has them, and says so in its status.
async fn establish(server: &Arc<Server>, definition: &Value, all: &[Arc<Value>]) -> Result<(), Status> {
    let call = Call::internal(server);
    let served = call.catalog.stored(GROUP, PLURAL).ok_or_else(Status::no_such_path)?;
    let conflict = all.iter().find_map(|other| conflict(definition, other));
    let mut change = |definition: &mut Value| {
        let (accepted, reason, message) = match &conflict {
            None => ("True", "NoConflicts", "no conflicts found".to_string()),
            Some((reason, message)) => ("False", *reason, message.clone()),
        };
        set_condition(definition, "NamesAccepted", accepted, reason, &message, &call.now);
        if conflict.is_none() {
            definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
        }
        let before = is_true(definition, "Established");
        if conflict.is_none() {
            let message = "the initial names have been accepted";
            set_condition(definition, "Established", "True", "InitialNamesAccepted", message, &call.now);
        } else if !before {
            let message = "not all names are accepted";
            set_condition(definition, "Established", "False", "NotAccepted", message, &call.now);
        }
        Ok(())
    };
    rewrite::rewrite(&call, &served, "", meta::name(definition), false, &mut change).await.map(|_| ())
}

/// Why a definition cannot have its names: reason and message.
fn conflict(definition: &Value, other: &Value) -> Option<(&'static str, String)> {
    let same = meta::name(definition) == meta::name(other);
    if same || definition["spec"]["group"] != other["spec"]["group"] || !is_true(other, "NamesAccepted") {
        return None;
    }
    let (own, taken) = (&definition["spec"]["names"], &other["status"]["acceptedNames"]);
    let names = |names: &Value| -> Vec<String> {
        let short = names["shortNames"].as_array().into_iter().flatten();
        let all = [&names["plural"], &names["singular"]].into_iter().chain(short);
        all.filter_map(|name| Some(name.as_str()?.to_string())).collect()
    };
    let used = names(taken);
    for (member, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        if let Some(name) = own[member].as_str().filter(|name| used.iter().any(|used| used == name)) {
            return Some((reason, format!("{name:?} is already in use")));
        }
    }
    let short = own["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(name) = short.into_iter().find(|name| used.iter().any(|used| used == name)) {
        return Some(("ShortNamesConflict", format!("{name:?} is already in use")));
    }
    let kinds = [&taken["kind"], &taken["listKind"]];
    for (member, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        if !own[member].is_null() && kinds.contains(&&own[member]) {
            return Some((reason, format!("{} is already in use", own[member])));
        }
    }
    None
}

fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    if !definition["status"]["conditions"].is_array() {
        definition["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = definition["status"]["conditions"].as_array_mut() else { return };
    let fresh =
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(own) if own["status"] == status && own["reason"] == reason && own["message"] == message => {}
        Some(own) => *own = fresh,
        None => conditions.push(fresh),
    }
}

/// Deletes everything that a definition defined, then lets the definition go.
async fn clean_up(server: Arc<Server>, definition: Arc<Value>) {
    if let Err(status) = try_clean_up(&server, &definition).await {
        tracing::warn!(name = meta::name(&definition), %status, "cannot remove the objects of a custom resource");
    }
}

async fn try_clean_up(server: &Arc<Server>, definition: &Value) -> Result<(), Status> {
    let mut call = Call::internal(server);
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    if let Some(served) = call.catalog.stored(&group, &plural) {
        remove_all(&call, &served).await?;
    }
    // The definition itself, without the finalizer: the update that takes the last one away removes it.
    let name = meta::name(definition).to_string();
    let served = call.catalog.stored(GROUP, PLURAL).ok_or_else(Status::no_such_path)?;
    call.info.namespace = String::new();
    let update = Update {
        call: &call,
        served: &served,
        namespace: "",
        name: &name,
        part: Part::Main,
        dry_run: false,
        create: false,
    };
    let mut release = |current: Option<&Value>| {
        let mut object = current.cloned().ok_or_else(|| Status::not_found(served.about(&name)))?;
        let left: Vec<Value> =
            meta::finalizers(&object).filter(|finalizer| *finalizer != CLEANUP).map(Into::into).collect();
        meta::of(&mut object).insert("finalizers".into(), left.into());
        Ok(Changed { object, ownership: Ownership::Done })
    };
    match update::run(&update, &mut release).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// Deletes all objects of a resource, and waits until those are gone too that finalizers hold.
async fn remove_all(call: &Call, served: &Served) -> Result<(), Status> {
    let store = call.server.store();
    let prefix = served.prefix("");
    loop {
        let left = store.range(Range::prefix(prefix.clone())).await.map_err(store_failed)?;
        if left.entries.is_empty() {
            return Ok(());
        }
        let mut watch = store.watch(&prefix, left.revision).await.map_err(store_failed)?;
        let mut waits = false;
        for entry in &left.entries {
            let object = api::stored::decode(&entry.value, entry.mod_revision)?;
            let (namespace, name) = (meta::namespace(&object), meta::name(&object));
            match delete::delete(call, served, namespace, name, &DeleteOptions::default()).await {
                Ok(deleted) => waits |= !deleted.gone,
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        while waits {
            match watch.recv().await {
                Some(Ok(WatchItem::Events(events))) => waits = events.iter().all(|event| event.value.is_some()),
                Some(Ok(WatchItem::Progress(_))) => {}
                _ => break,
            }
        }
    }
}
