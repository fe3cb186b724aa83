//! `create`: a new object, with a generated name where one is asked for.

use api::{kind::Part, status::Status, stored, validation::metadata};
use serde_json::Value;
use store::{Compare, Op, Outcome, Txn};

use super::{Written, input, meta, options, output, store_failed, update::Ownership};
use crate::{
    admission::{self, Attributes, Operation},
    allocator,
    body::Body,
    catalog::Served,
    managed,
    pipeline::{answer::Answer, call::Call},
};

/// How often a generated name that is taken is generated again.
const NAME_ATTEMPTS: usize = 8;

pub(crate) async fn handle(call: &Call, served: &Served, body: Body) -> Answer {
    call.negotiate(output::offer(served))?;
    let dry_run = options::dry_run(&call.query, "CreateOptions")?;
    let object = input::object(call, served, body, "CreateOptions").await?;
    let written = create(call, served, object, dry_run, Ownership::Track).await?;
    output::written(call, served, 201, written)
}

/// Creates an object that is in the request's version.
pub(crate) async fn create(
    call: &Call,
    served: &Served,
    mut object: Value,
    dry_run: bool,
    ownership: Ownership,
) -> Result<Written, Status> {
    meta::check_type(&mut object, &served.api_version(), &served.resource.kind)?;
    meta::check_namespace(served, &mut object, &call.info.namespace)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(Status::failure(500, "", "resourceVersion should not be set on objects to be created"));
    }
    meta::wipe(&mut object);
    served.to_storage(&mut object)?;
    let version = served.storage_version().name.clone();
    served.resource.hooks.default(&mut object, &call.context(&version, Part::Main));
    let generated = !meta::text(&object, "generateName").is_empty() && meta::name(&object).is_empty();
    let mut attempts = if generated { NAME_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let attempt = if attempts == 0 { std::mem::take(&mut object) } else { object.clone() };
        match store_new(call, served, attempt, dry_run, ownership).await {
            Err(status) if generated && status.reason == "AlreadyExists" => {
                if attempts == 0 {
                    let mut status = status;
                    status.message += ", the server was not able to generate a unique name for the object";
                    return Err(status);
                }
            }
            other => return other,
        }
    }
}

/// Admits, validates and stores a defaulted object in its storage version.
async fn store_new(
    call: &Call,
    served: &Served,
    mut object: Value,
    dry_run: bool,
    ownership: Ownership,
) -> Result<Written, Status> {
    let hooks = &served.resource.hooks;
    let version = served.storage_version().name.clone();
    let context = call.context(&version, Part::Main);
    meta::fill(&mut object, call);
    hooks.prepare_create(&mut object, &context);
    if ownership == Ownership::Track {
        managed::created(call, served, &mut object);
    }

    let namespace = meta::namespace(&object).to_string();
    let attributes = Attributes::new(call, served, Operation::Create, &namespace, meta::name(&object), dry_run);
    if admission::mutate(&attributes, &mut object).await? {
        hooks.default(&mut object, &context);
        hooks.prepare_create(&mut object, &context);
    }
    if meta::generate_name(&mut object) {
        hooks.prepare_create(&mut object, &context);
    }
    meta::tidy(&mut object);
    let attributes = Attributes { name: meta::name(&object).to_string(), ..attributes };

    let mut errors =
        metadata::create(&object, served.resource.namespaced, |name, prefix| hooks.validate_name(name, prefix));
    errors.extend(hooks.validate(&object, &context));
    let name = attributes.name.clone();
    if !errors.is_empty() {
        return Err(Status::invalid(served.about_kind(&name), errors));
    }
    for warning in hooks.warnings(&object, None) {
        call.warn(warning);
    }
    let claim = allocator::claim(call, served, &mut object, None, dry_run).await?;
    let committed = admission::validate(&attributes, Some(&object)).await?;

    let bytes = bytes::Bytes::from(stored::encode(&object)?);
    if dry_run {
        // The object must still not exist.
        if super::read::find(&call.server, &served.key(&namespace, &name)).await?.is_some() {
            return Err(Status::already_exists(served.about(&name)));
        }
        return Ok(Written { object, bytes: None, revision: 0 });
    }
    let key = served.key(&namespace, &name);
    let lease = call.server.leases().for_resource(served).await?;
    let txn = Txn {
        compare: vec![Compare { key: key.clone(), mod_revision: 0 }],
        ops: vec![Op::Put { key, value: bytes.clone(), lease }],
    };
    match call.server.store().txn(txn).await.map_err(store_failed)? {
        Outcome::Committed(revision) => {
            claim.keep();
            committed.keep();
            meta::of(&mut object).insert("resourceVersion".into(), revision.to_string().into());
            Ok(Written { object, bytes: Some(bytes), revision })
        }
        Outcome::Failed { .. } => Err(Status::already_exists(served.about(&name))),
    }
}
