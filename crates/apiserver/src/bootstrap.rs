//! What a cluster has from its first second: namespaces, roles, classes and the `kubernetes` Service.
//!
//! Everything is reconciled at each start: what is missing is made, default roles get back the rules they lost, and what
//! users changed otherwise stays. All that is missing is written in one transaction.

mod roles;
mod seeds;

use std::sync::Arc;

use api::{kind::Part, status::Status, stored};
use serde_json::Value;
use store::{Compare, Op, Outcome, Range, Txn};

use crate::{
    admission, allocator,
    authz::{node::NodeAuthorizer, rbac::Rbac},
    catalog::Served,
    crd,
    pipeline::call::Call,
    registry::{meta, rewrite},
    server::{Error, Server},
};

/// An object that every cluster has. Namespace and name are in its metadata.
pub(super) struct Seed {
    group: &'static str,
    plural: &'static str,
    object: Value,
    reconcile: Reconcile,
}

/// What is done about a seed that exists already.
#[derive(Clone, Copy)]
enum Reconcile {
    /// It is the users'.
    Keep,
    /// Brings the stored object (second) up to date with the seed (first).
    With(fn(&Value, &mut Value)),
}

impl Server {
    /// Learns what is stored and makes what every cluster has. To be called once, before users' requests.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), Error> {
        let mut seeds = seeds::all(self.config());
        seeds.extend(roles::all()?);
        self.plant(&seeds).await?;
        Rbac::start(self).await;
        NodeAuthorizer::start(self).await;
        admission::start(self).await;
        allocator::start(self).await;
        crd::start(self).await;
        Ok(())
    }

    async fn plant(self: &Arc<Self>, seeds: &[Seed]) -> Result<(), Error> {
        let call = Call::internal(self);
        let fail = |seed: &Seed, status| Error::Bootstrap {
            object: format!("{} {}", seed.plural, meta::name(&seed.object)),
            status,
        };
        let mut missing: Vec<(&Seed, String, Served)> = Vec::new();
        for seed in seeds {
            let served =
                call.catalog.stored(seed.group, seed.plural).ok_or_else(|| fail(seed, Status::no_such_path()))?;
            let (namespace, name) = (meta::namespace(&seed.object), meta::name(&seed.object));
            let key = served.key(namespace, name);
            let found = self
                .store()
                .range(Range::key(key.clone()))
                .await
                .map_err(|source| Error::Store { doing: "reading what every cluster has", source })?;
            match (found.entries.is_empty(), seed.reconcile) {
                (true, _) => missing.push((seed, key, served)),
                (false, Reconcile::Keep) => {}
                (false, Reconcile::With(change)) => {
                    let mut change = |object: &mut Value| {
                        change(&seed.object, object);
                        Ok(())
                    };
                    rewrite::rewrite(&call, &served, namespace, name, false, &mut change)
                        .await
                        .map_err(|status| fail(seed, status))?;
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut txn = Txn::default();
        for (seed, key, served) in missing {
            let bytes = encode(&call, &served, &seed.object).map_err(|status| fail(seed, status))?;
            txn.compare.push(Compare { key: key.clone(), mod_revision: 0 });
            txn.ops.push(Op::Put { key, value: bytes.into(), lease: None });
        }
        let outcome = self
            .store()
            .txn(txn)
            .await
            .map_err(|source| Error::Store { doing: "writing what every cluster has", source })?;
        if let Outcome::Failed { .. } = outcome {
            // Another server of the same cluster was faster: look again at what is left to do.
            return Box::pin(self.plant(seeds)).await;
        }
        Ok(())
    }
}

/// The stored form of a new object.
fn encode(call: &Call, served: &Served, object: &Value) -> Result<Vec<u8>, Status> {
    let mut object = object.clone();
    meta::check_type(&mut object, &served.storage_api_version(), &served.resource.kind)?;
    let status = object["status"].take();
    let version = served.storage_version().name.clone();
    let context = call.context(&version, Part::Main);
    meta::fill(&mut object, call);
    served.resource.hooks.default(&mut object, &context);
    served.resource.hooks.prepare_create(&mut object, &context);
    if !status.is_null() {
        object["status"] = status;
    }
    meta::tidy(&mut object);
    stored::encode(&object)
}
