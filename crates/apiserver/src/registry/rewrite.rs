//! Changes that the server makes by itself: read, change, compare and swap, without hooks, defaults or admission.
//!
//! For subresources whose whole effect upstream writes in code (a binding, an eviction's bookkeeping), and for what
//! bootstrap keeps up. Whoever calls this has checked what the change needs.

use api::{status::Status, stored};
use bytes::Bytes;
use serde_json::Value;
use store::{Compare, Op, Outcome, Txn};

use super::{Written, meta, read, store_failed, update::LOST};
use crate::{catalog::Served, pipeline::call::Call};

const ATTEMPTS: usize = 100;

/// Applies `change` to the stored object until it is written; an error of `change` ends it.
pub(crate) async fn rewrite(
    call: &Call,
    served: &Served,
    namespace: &str,
    name: &str,
    dry_run: bool,
    change: &mut (dyn FnMut(&mut Value) -> Result<(), Status> + Send),
) -> Result<Written, Status> {
    let key = served.key(namespace, name);
    let mut entry = read::find(&call.server, &key).await?;
    for _ in 0..ATTEMPTS {
        let current = entry.ok_or_else(|| Status::not_found(served.about(name)))?;
        let mut object = stored::decode(&current.value, current.mod_revision)?;
        change(&mut object)?;
        let bytes = Bytes::from(stored::encode(&object)?);
        if dry_run || bytes == current.value {
            return Ok(Written { object, bytes: Some(bytes), revision: current.mod_revision });
        }
        let txn = Txn {
            compare: vec![Compare { key: key.clone(), mod_revision: current.mod_revision }],
            ops: vec![Op::Put { key: key.clone(), value: bytes.clone(), lease: current.lease }],
        };
        match call.server.store().txn(txn).await.map_err(store_failed)? {
            Outcome::Committed(revision) => {
                meta::of(&mut object).insert("resourceVersion".into(), revision.to_string().into());
                return Ok(Written { object, bytes: Some(bytes), revision });
            }
            Outcome::Failed { current, .. } => entry = current.into_iter().next().flatten(),
        }
    }
    Err(Status::conflict(served.about(name), LOST))
}
