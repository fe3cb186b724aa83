//! `update`, and the read-modify-write loop under every change of an existing object.
//!
//! A change is a function from the object as it is to the object as it should be. When the object changed meanwhile
//! and the client did not name the revision it had seen, the function runs again on the newer object.

use api::{
    kind::Part,
    status::{FieldError, Status},
    stored,
    validation::metadata,
};
use bytes::Bytes;
use serde_json::Value;
use store::{Compare, Entry, Op, Outcome, Txn};

use super::{Written, create, input, meta, options, output, read, store_failed};
use crate::{
    admission::{self, Attributes, Operation},
    allocator,
    body::Body,
    catalog::Served,
    managed,
    pipeline::{answer::Answer, call::Call},
};

/// Why a write lost against another one; clients match on these words.
pub(crate) const LOST: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// A change that loses this often in a row is given up.
const ATTEMPTS: usize = 100;

/// One change of one object.
pub(crate) struct Update<'a> {
    pub(crate) call: &'a Call,
    pub(crate) served: &'a Served,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    pub(crate) dry_run: bool,
    /// The change may create the object.
    pub(crate) create: bool,
}

/// What becomes of the fields' ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Changed fields become the request's field manager's.
    Track,
    /// The change wrote `managedFields` itself.
    Done,
}

/// A change's result: the new object in the request's version.
pub(crate) struct Changed {
    pub(crate) object: Value,
    pub(crate) ownership: Ownership,
}

pub(crate) async fn handle(call: &Call, served: &Served, name: &str, body: Body) -> Answer {
    put(call, served, name, body, Part::Main).await
}

/// PUT of an object or of one of its parts.
pub(crate) async fn put(call: &Call, served: &Served, name: &str, body: Body, part: Part) -> Answer {
    call.negotiate(output::offer(served))?;
    let dry_run = options::dry_run(&call.query, "UpdateOptions")?;
    let mut object = input::object(call, served, body, "UpdateOptions").await?;
    meta::check_type(&mut object, &served.api_version(), &served.resource.kind)?;
    meta::check_namespace(served, &mut object, &call.info.namespace)?;
    let given = meta::name(&object);
    if given.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let update = Update {
        call,
        served,
        namespace: &call.info.namespace,
        name,
        part,
        dry_run,
        create: part == Part::Main && served.resource.hooks.create_on_update(),
    };
    let mut change = |_: Option<&Value>| Ok(Changed { object: object.clone(), ownership: Ownership::Track });
    let (written, created) = run(&update, &mut change).await?;
    output::written(call, served, if created { 201 } else { 200 }, written)
}

/// The function of a change; called with the object in the request's version, or `None` when there is none yet.
pub(crate) type Change<'a> = dyn FnMut(Option<&Value>) -> Result<Changed, Status> + Send + 'a;

/// Runs a change until it is stored. The flag tells whether the object was created.
pub(crate) async fn run(update: &Update<'_>, change: &mut Change<'_>) -> Result<(Written, bool), Status> {
    let Update { call, served, .. } = *update;
    let key = served.key(update.namespace, update.name);
    let mut entry = read::find(&call.server, &key).await?;
    for _ in 0..ATTEMPTS {
        let Some(current) = entry else {
            if !update.create {
                return Err(Status::not_found(served.about(update.name)));
            }
            let changed = change(None)?;
            match create::create(call, served, changed.object, update.dry_run, changed.ownership).await {
                // Somebody else created it: go on as an update of that.
                Err(status) if status.reason == "AlreadyExists" => {
                    entry = read::find(&call.server, &key).await?;
                    continue;
                }
                created => return created.map(|written| (written, true)),
            }
        };
        match once(update, change, &key, &current).await? {
            Attempt::Stored(written) => return Ok((written, false)),
            Attempt::Lost(newer) => entry = newer,
            Attempt::Gone => entry = None,
        }
    }
    Err(Status::conflict(served.about(update.name), LOST))
}

enum Attempt {
    Stored(Written),
    /// The object changed meanwhile, and the change may be made again.
    Lost(Option<Entry>),
    Gone,
}

async fn once(update: &Update<'_>, change: &mut Change<'_>, key: &str, current: &Entry) -> Result<Attempt, Status> {
    let Update { call, served, name, part, dry_run, .. } = *update;
    let hooks = &served.resource.hooks;
    let old = stored::decode(&current.value, current.mod_revision)?;
    let mut shown = None;
    if served.converts() {
        let mut converted = old.clone();
        served.from_storage(&mut converted)?;
        shown = Some(converted);
    }
    let Changed { mut object, ownership } = change(Some(shown.as_ref().unwrap_or(&old)))?;
    served.to_storage(&mut object)?;
    hooks.default(&mut object, &call.context(&served.storage_version().name, part));

    let insisted = check_revision(update, &object, current.mod_revision)?;
    check_uid(update, &object, &old)?;
    meta::of(&mut object).insert("resourceVersion".into(), current.mod_revision.to_string().into());
    meta::keep(&mut object, &old, name).map_err(|errors| Status::invalid(served.about_kind(name), errors))?;
    let version = served.storage_version().name.clone();
    let context = call.context(&version, part);
    hooks.prepare_update(&mut object, &old, &context);
    match ownership {
        Ownership::Track => managed::updated(call, served, &mut object, &old, part),
        Ownership::Done => managed::settle(&mut object, &old),
    }

    let mut attributes = Attributes::new(call, served, Operation::Update, update.namespace, name, dry_run);
    attributes.old = Some(&old);
    if admission::mutate(&attributes, &mut object).await? {
        hooks.default(&mut object, &context);
        hooks.prepare_update(&mut object, &old, &context);
    }
    meta::tidy(&mut object);
    let mut errors = metadata::update(&object, &old);
    errors.extend(hooks.validate_update(&object, &old, &context));
    if !errors.is_empty() {
        return Err(Status::invalid(served.about_kind(name), errors));
    }
    for warning in hooks.warnings(&object, Some(&old)) {
        call.warn(warning);
    }
    let claim = allocator::claim(call, served, &mut object, Some(&old), dry_run).await?;
    let committed = admission::validate(&attributes, Some(&object)).await?;

    let bytes = Bytes::from(stored::encode(&object)?);
    let released = meta::is_released(served, &object, &old);
    if !released && bytes == current.value {
        meta::of(&mut object).insert("resourceVersion".into(), current.mod_revision.to_string().into());
        return Ok(Attempt::Stored(Written { object, bytes: Some(bytes), revision: current.mod_revision }));
    }
    if dry_run {
        meta::of(&mut object).insert("resourceVersion".into(), current.mod_revision.to_string().into());
        return Ok(Attempt::Stored(Written { object, bytes: None, revision: current.mod_revision }));
    }
    let op = if released {
        Op::Delete { key: key.into() }
    } else {
        let lease = call.server.leases().for_resource(served).await?;
        Op::Put { key: key.into(), value: bytes.clone(), lease }
    };
    let txn = Txn { compare: vec![Compare { key: key.into(), mod_revision: current.mod_revision }], ops: vec![op] };
    match call.server.store().txn(txn).await.map_err(store_failed)? {
        Outcome::Committed(revision) => {
            claim.keep();
            committed.keep();
            if released {
                allocator::released(call, served, &old);
                admission::deleted(call, served, &old);
            }
            meta::of(&mut object).insert("resourceVersion".into(), revision.to_string().into());
            Ok(Attempt::Stored(Written { object, bytes: Some(bytes), revision }))
        }
        Outcome::Failed { .. } if insisted => Err(Status::conflict(served.about(name), LOST)),
        Outcome::Failed { current, .. } => match current.into_iter().next().flatten() {
            Some(newer) => Ok(Attempt::Lost(Some(newer))),
            None => Ok(Attempt::Gone),
        },
    }
}

/// Whether the client insists on the revision that it saw; it must then be the current one.
fn check_revision(update: &Update<'_>, object: &Value, current: u64) -> Result<bool, Status> {
    let given = meta::text(object, "resourceVersion");
    if given.is_empty() || given == "0" {
        // A patch or a new scale is made from what is stored; only a whole object can be out of date without saying so.
        let whole = update.call.info.verb == "update" && update.call.info.subresource.is_empty();
        if whole && !update.served.resource.hooks.unconditional_update() {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(Status::invalid(update.served.about(update.name), vec![error]));
        }
        return Ok(false);
    }
    match given.parse::<u64>() {
        Ok(revision) if revision == current => Ok(true),
        Ok(_) => Err(Status::conflict(update.served.about(update.name), LOST)),
        Err(_) => {
            let error = FieldError::invalid("metadata.resourceVersion", given, "must be an unsigned integer");
            Err(Status::invalid(update.served.about_kind(update.name), vec![error]))
        }
    }
}

/// A uid in the request is a precondition.
fn check_uid(update: &Update<'_>, object: &Value, old: &Value) -> Result<(), Status> {
    let (given, own) = (meta::uid(object), meta::uid(old));
    if given.is_empty() || given == own {
        return Ok(());
    }
    Err(Status::conflict(
        update.served.about(update.name),
        format!("Precondition failed: UID in precondition: {given}, UID in object meta: {own}"),
    ))
}
