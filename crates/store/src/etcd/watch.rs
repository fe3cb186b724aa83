//! Watches: one stream each, with a progress notification on demand.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{MAX_MESSAGE_BYTES, entry, failure, key_text, pb, plain, revision, start_key};
use crate::{Entry, Error, Event, Revision, Watch, WatchItem, prefix_end, transformer::Transformer};

/// Items that may wait in a watch's channel.
const CHANNEL: usize = 16;
/// etcd leaves a request for progress unanswered while a watch is behind: it is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// One watch, as seen by those who want to know how far it is.
#[derive(Debug)]
struct Handle {
    prefix: String,
    wanted: AtomicU64,
    wake: Notify,
}

/// The running watches of a store.
#[derive(Debug, Default)]
pub(super) struct Watches {
    handles: Mutex<Vec<Weak<Handle>>>,
}

impl Watches {
    /// Makes the watches on `prefix` yield a progress of at least `revision`.
    pub(super) fn want_progress(&self, prefix: &str, revision: Revision) {
        self.handles.lock().retain(|handle| {
            let Some(handle) = handle.upgrade() else { return false };
            if handle.prefix == prefix {
                handle.wanted.fetch_max(revision, Ordering::AcqRel);
                handle.wake.notify_one();
            }
            true
        });
    }

    pub(super) async fn start(
        &self,
        channel: Channel,
        prefix: &str,
        after: Revision,
        transformer: Option<Arc<dyn Transformer>>,
    ) -> Result<Watch, Error> {
        let (requests, receiver) = mpsc::channel(4);
        let create = pb::WatchCreateRequest {
            key: start_key(prefix),
            range_end: prefix_end(prefix).into(),
            start_revision: after as i64 + 1,
            progress_notify: true,
            prev_kv: true,
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        // The channel is empty and its other end is here.
        let _ = requests.try_send(pb::WatchRequest { request_union: Some(create) });
        let mut client = pb::watch_client::WatchClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let stream = client.watch(ReceiverStream::new(receiver)).await.map_err(|status| failure(&status))?;
        let handle = Arc::new(Handle { prefix: prefix.to_string(), wanted: 0.into(), wake: Notify::new() });
        self.handles.lock().push(Arc::downgrade(&handle));
        let (sender, items) = mpsc::channel(CHANNEL);
        let task = Task { stream: stream.into_inner(), requests, handle, reached: after, after, transformer };
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                error = task.run(&sender) => {
                    // The reader may be gone already: there is nobody else to tell.
                    let _ = sender.send(Err(error)).await;
                }
            }
        });
        Ok(items)
    }
}

struct Task {
    stream: Streaming<pb::WatchResponse>,
    requests: mpsc::Sender<pb::WatchRequest>,
    handle: Arc<Handle>,
    /// Everything up to here was handed on.
    reached: Revision,
    /// Where the watch began.
    after: Revision,
    transformer: Option<Arc<dyn Transformer>>,
}

impl Task {
    /// Runs until the watch fails.
    async fn run(mut self, sender: &mpsc::Sender<Result<WatchItem, Error>>) -> Error {
        loop {
            let behind = self.handle.wanted.load(Ordering::Acquire) > self.reached;
            if behind {
                let ask = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                // A full channel holds such a request already.
                let _ = self.requests.try_send(pb::WatchRequest { request_union: Some(ask) });
            }
            let message = tokio::select! {
                message = self.stream.message() => message,
                () = self.handle.wake.notified() => continue,
                () = sleep(ASK_AGAIN), if behind => continue,
            };
            let item = match message {
                Ok(Some(response)) => self.item(response),
                Ok(None) => Err(Error::Backend("etcd ended a watch".to_string())),
                Err(status) => Err(failure(&status)),
            };
            match item {
                Ok(None) => {}
                Ok(Some(item)) => {
                    if sender.send(Ok(item)).await.is_err() {
                        return Error::Closed;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    fn item(&mut self, response: pb::WatchResponse) -> Result<Option<WatchItem>, Error> {
        if response.compact_revision > 0 {
            return Err(Error::Compacted { requested: self.after, oldest: response.compact_revision as Revision });
        }
        if response.canceled {
            return Err(Error::Backend(format!("etcd canceled a watch: {}", response.cancel_reason)));
        }
        if response.created {
            return Ok(None);
        }
        if response.events.is_empty() {
            self.reached = self.reached.max(revision(response.header));
            return Ok(Some(WatchItem::Progress(self.reached)));
        }
        let transformer = self.transformer.as_deref();
        let events = response.events.into_iter().map(|event| convert(event, transformer));
        let events: Arc<[Event]> = events.collect::<Result<_, Error>>()?;
        self.reached = events.last().map_or(self.reached, |event| event.revision);
        Ok(Some(WatchItem::Events(events)))
    }
}

fn convert(event: pb::Event, transformer: Option<&dyn Transformer>) -> Result<Event, Error> {
    let deleted = event.r#type() == pb::event::EventType::Delete;
    let kv = event.kv.unwrap_or_default();
    let prev: Option<Entry> = event.prev_kv.map(|kv| entry(kv, transformer)).transpose()?;
    let key: Arc<str> = match &prev {
        Some(prev) => prev.key.clone(),
        None => key_text(&kv.key)?.into(),
    };
    let created = if deleted { prev.as_ref().map(|prev| prev.create_revision) } else { None };
    let value = if deleted { None } else { Some(plain(&key, kv.value, transformer)?) };
    Ok(Event {
        key,
        revision: kv.mod_revision as Revision,
        value,
        create_revision: created.unwrap_or(kv.create_revision as Revision),
        lease: Some(kv.lease).filter(|lease| *lease != 0),
        prev,
    })
}
