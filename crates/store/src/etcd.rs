//! The backend for clusters of servers: an etcd cluster, spoken to directly.
//!
//! Revisions, leases and history are etcd's own. Each store watch is one stream. [`Store::changed`] cannot know what
//! happened under a prefix, so it asks the watches there for a progress notification; etcd before 3.4.25 and 3.5.8 may
//! send that before older events, so that a list from a cache can miss the newest writes there.

use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    Compare, Entry, Error, LeaseId, Op, Outcome, Range, RangeResult, Revision, Store, Txn, Watch,
    transformer::Transformer,
};

mod watch;

#[cfg(test)]
mod tests;

#[expect(clippy::all, unreachable_pub, reason = "generated from proto/etcd.proto")]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

use pb::{request_op::Request, response_op::Response};

/// Requests and answers may be this large: etcd's limit on requests is 1.5 MiB, lists are longer.
const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Where etcd is and how to reach it.
#[derive(Clone, Default)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT`; requests go to any of them.
    pub endpoints: Vec<String>,
    /// PEM files; needed with `https` only.
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub transformer: Option<Arc<dyn Transformer>>,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no etcd endpoint is given")]
    NoEndpoint,
    #[error("cannot use the etcd endpoint {endpoint}")]
    Endpoint { endpoint: String, source: tonic::transport::Error },
    #[error("cannot read {}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
}

/// A client of an etcd cluster. Connections are made when they are needed, again and again.
pub struct Etcd {
    channel: Channel,
    watches: watch::Watches,
    transformer: Option<Arc<dyn Transformer>>,
}

impl Etcd {
    /// Makes the client; whether etcd answers, the first request tells. Must be called in a runtime.
    pub fn connect(options: &Options) -> Result<Self, ConnectError> {
        let mut tls = ClientTlsConfig::new();
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|source| ConnectError::File { path: path.clone(), source });
        if let Some(path) = &options.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
        }
        if let (Some(certificate), Some(key)) = (&options.certificate_file, &options.key_file) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        let mut endpoints = Vec::new();
        for endpoint in &options.endpoints {
            let fail = |source| ConnectError::Endpoint { endpoint: endpoint.clone(), source };
            let mut made = Endpoint::from_shared(endpoint.clone())
                .map_err(fail)?
                .connect_timeout(Duration::from_secs(5))
                .http2_keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(10));
            if endpoint.starts_with("https") {
                made = made.tls_config(tls.clone()).map_err(fail)?;
            }
            endpoints.push(made);
        }
        let channel = match endpoints.as_slice() {
            [] => return Err(ConnectError::NoEndpoint),
            [one] => one.connect_lazy(),
            _ => Channel::balance_list(endpoints.into_iter()),
        };
        Ok(Self { channel, watches: watch::Watches::default(), transformer: options.transformer.clone() })
    }

    fn kv(&self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn lease(&self) -> pb::lease_client::LeaseClient<Channel> {
        pb::lease_client::LeaseClient::new(self.channel.clone())
    }

    async fn read(&self, request: pb::RangeRequest) -> Result<RangeResult, Error> {
        let wanted = request.revision as Revision;
        let response = match self.kv().range(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(self.revision_error(&status, wanted).await),
        };
        let transformer = self.transformer.as_deref();
        let entries = response.kvs.into_iter().map(|kv| entry(kv, transformer)).collect::<Result<_, Error>>()?;
        Ok(RangeResult { entries, count: response.count as usize, revision: revision(response.header) })
    }

    /// What an error about a revision means.
    async fn revision_error(&self, status: &Status, requested: Revision) -> Error {
        if status.code() == Code::OutOfRange && status.message().contains("has been compacted") {
            // etcd does not say where its history begins: not before the next one.
            return Error::Compacted { requested, oldest: requested + 1 };
        }
        if status.code() == Code::OutOfRange && status.message().contains("future revision") {
            return match self.revision().await {
                Ok(current) => Error::Future { requested, current },
                Err(error) => error,
            };
        }
        failure(status)
    }
}

fn revision(header: Option<pb::ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision as Revision)
}

/// An error that is about no revision.
fn failure(status: &Status) -> Error {
    match status.code() {
        Code::ResourceExhausted if status.message().contains("database space exceeded") => Error::DiskFull,
        Code::InvalidArgument => Error::Invalid(status.message().to_string()),
        _ => Error::Backend(format!("etcd: {} ({})", status.message(), status.code())),
    }
}

fn lease_failure(id: LeaseId) -> impl Fn(Status) -> Error {
    move |status| match status.code() {
        Code::NotFound => Error::NoSuchLease(id),
        _ => failure(&status),
    }
}

fn plain(key: &str, sealed: Bytes, transformer: Option<&dyn Transformer>) -> Result<Bytes, Error> {
    match transformer.map(|transformer| transformer.open(key, &sealed)) {
        None => Ok(sealed),
        Some(Ok(Cow::Owned(value))) => Ok(value.into()),
        Some(Ok(Cow::Borrowed(value))) => Ok(Bytes::copy_from_slice(value)),
        Some(Err(why)) => Err(Error::Backend(format!("cannot decrypt the stored value of {key}: {why}"))),
    }
}

fn key_text(key: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(key).map_err(|_| Error::Backend(format!("a key is not text: {}", key.escape_ascii())))
}

fn entry(kv: pb::KeyValue, transformer: Option<&dyn Transformer>) -> Result<Entry, Error> {
    let key = key_text(&kv.key)?;
    Ok(Entry {
        key: key.into(),
        value: plain(key, kv.value, transformer)?,
        create_revision: kv.create_revision as Revision,
        mod_revision: kv.mod_revision as Revision,
        lease: Some(kv.lease).filter(|lease| *lease != 0),
    })
}

/// etcd has no empty key: the first possible one stands for it.
fn start_key(key: &str) -> Bytes {
    if key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(key.as_bytes()) }
}

fn equals(compare: &Compare) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: Bytes::copy_from_slice(compare.key.as_bytes()),
        mod_revision: compare.mod_revision as i64,
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(RangeResult { revision: self.revision().await?, ..RangeResult::default() });
        }
        self.read(pb::RangeRequest {
            key: start_key(&range.start),
            range_end: range.end.unwrap_or_default().into(),
            limit: range.limit as i64,
            revision: range.revision.unwrap_or_default() as i64,
            count_only: range.count_only,
        })
        .await
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, Error> {
        let lease = txn.ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        let write = |op: Op| match op {
            Op::Put { key, value, lease } => {
                let sealed = self.transformer.as_ref().map(|transformer| transformer.seal(&key, &value).into_owned());
                let value = sealed.map_or(value, Bytes::from);
                operation(Request::RequestPut(pb::PutRequest { key: key.into(), value, lease: lease.unwrap_or(0) }))
            }
            Op::Delete { key } => operation(Request::RequestDeleteRange(pb::DeleteRangeRequest { key: key.into() })),
        };
        let look = |compare: &Compare| {
            let key = Bytes::copy_from_slice(compare.key.as_bytes());
            operation(Request::RequestRange(pb::RangeRequest { key, ..pb::RangeRequest::default() }))
        };
        let request = pb::TxnRequest {
            compare: txn.compare.iter().map(equals).collect(),
            failure: txn.compare.iter().map(look).collect(),
            success: txn.ops.into_iter().map(write).collect(),
        };
        let response = self.kv().txn(request).await.map_err(|status| match (status.code(), lease) {
            (Code::NotFound, Some(lease)) => Error::NoSuchLease(lease),
            _ => failure(&status),
        })?;
        let response = response.into_inner();
        let revision = revision(response.header);
        if response.succeeded {
            return Ok(Outcome::Committed(revision));
        }
        let found = response.responses.into_iter().map(|response| match response.response {
            Some(Response::ResponseRange(mut range)) => {
                range.kvs.pop().map(|kv| entry(kv, self.transformer.as_deref())).transpose()
            }
            _ => Ok(None),
        });
        Ok(Outcome::Failed { current: found.collect::<Result<_, Error>>()?, revision })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.watches.start(self.channel.clone(), prefix, after, self.transformer.clone()).await
    }

    async fn changed(&self, prefix: &str) -> Result<(Revision, Revision), Error> {
        let current = self.revision().await?;
        self.watches.want_progress(prefix, current);
        Ok((current, current))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        match self.kv().compact(pb::CompactionRequest { revision: revision as i64 }).await {
            Ok(_) => Ok(()),
            Err(status) => Err(self.revision_error(&status, revision).await),
        }
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = pb::LeaseGrantRequest { ttl: seconds.max(1) as i64 };
        let granted = self.lease().lease_grant(request).await.map_err(|status| failure(&status))?.into_inner();
        match granted.error.as_str() {
            "" => Ok(granted.id),
            error => Err(Error::Backend(format!("etcd grants no lease: {error}"))),
        }
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<(), Error> {
        let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let mut answers = self.lease().lease_keep_alive(request).await.map_err(lease_failure(id))?.into_inner();
        match answers.message().await.map_err(lease_failure(id))? {
            Some(answer) if answer.ttl > 0 => Ok(()),
            Some(_) => Err(Error::NoSuchLease(id)),
            None => Err(Error::Backend("etcd: no answer to a keep-alive".to_string())),
        }
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.lease().lease_revoke(pb::LeaseRevokeRequest { id }).await.map_err(lease_failure(id))?;
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let nothing = pb::RangeRequest { key: start_key(""), count_only: true, ..pb::RangeRequest::default() };
        Ok(self.read(nothing).await?.revision)
    }

    async fn size(&self) -> Result<u64, Error> {
        let mut client = pb::maintenance_client::MaintenanceClient::new(self.channel.clone());
        let status = client.status(pb::StatusRequest {}).await.map_err(|status| failure(&status))?;
        Ok(status.into_inner().db_size as u64)
    }
}
