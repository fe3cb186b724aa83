//! `watch`: changes of the selected objects, from a revision on, as a stream of events.
//!
//! A watch without a revision (or with `sendInitialEvents`) begins with the objects there are, as `ADDED` events.
//! Bookmarks tell a client up to which revision it has seen everything.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use api::{status::Status, stored};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use rand::RngExt;
use serde_json::{Value, json};
use store::{
    Event, Revision, Watch, WatchItem,
    cache::{Filter, Kind, Scope, Start, StreamItem, WatchEvent, WatchStream},
};
use tokio::time::Instant;

use super::{caches::Attrs, options, output, select::Selection, store_failed, table, too_large_revision};
use crate::{
    body,
    catalog::Served,
    codec,
    pipeline::{
        accept::{Accepted, Format, View},
        answer::{self, Answer},
        call::Call,
    },
};

/// How often an idle watch that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` lives this long, up to twice that, so that clients do not come back all at once.
const MIN_LIFE: Duration = Duration::from_secs(1800);
/// Marks the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Frames handed to the connection at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Shared encodings of an event: three kinds as JSON, behind them three as protobuf.
const PROTOBUF_SLOTS: usize = 3;

struct WatchOptions {
    start: Start,
    not_older_than: Option<Revision>,
    /// The end of the initial events is told with a bookmark.
    mark_end: bool,
    bookmarks: bool,
    life: Duration,
}

impl WatchOptions {
    fn parse(call: &Call) -> Result<Self, Status> {
        let query = &call.query;
        let bookmarks = query.flag("allowWatchBookmarks");
        let given = options::revision(query.text("resourceVersion"))?;
        let initial = query.maybe_flag("sendInitialEvents");
        let matching = query.text("resourceVersionMatch");
        let forbidden = |field: &str, why: &str| {
            let about = api::status::About { group: "meta.k8s.io", resource: "ListOptions", name: "" };
            Err(Status::invalid(about, vec![api::status::FieldError::forbidden(field, why)]))
        };
        match (initial, matching) {
            (None, Some(_)) => {
                return forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            (Some(_), matching) if matching != Some("NotOlderThan") => {
                return forbidden(
                    "sendInitialEvents",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            _ => {}
        }
        let (start, not_older_than) = match (initial, given) {
            (Some(true), given) => (Start::Present, given),
            (Some(false), None | Some(0)) => (Start::Now, None),
            (_, None | Some(0)) => (Start::Present, None),
            (_, Some(revision)) => (Start::After(revision), None),
        };
        let life = match query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
            _ => MIN_LIFE.mul_f64(1.0 + rand::rng().random::<f64>()),
        };
        Ok(Self { start, not_older_than, mark_end: initial == Some(true) && bookmarks, bookmarks, life })
    }
}

pub(crate) async fn handle(call: &Call, served: &Served) -> Answer {
    let accepted = call.negotiate(output::offer(served))?;
    let options = WatchOptions::parse(call)?;
    let namespace = if served.resource.namespaced { call.info.namespace.as_str() } else { "" };
    let name = if call.info.name_from_selector { "" } else { call.info.path_name() };
    let prefix = served.prefix(namespace);
    let selection = Selection::parse(&call.query, served)?;
    let store = call.server.store();
    let (_, current) = store.changed(&prefix).await.map_err(store_failed)?;
    if let Some(least) = options.not_older_than.filter(|least| *least > current) {
        return Err(too_large_revision(least, current));
    }
    let encoder = Encoder { served: served.clone(), accepted, table: table_of(call, served, accepted)? };
    let mut watcher = Watcher {
        source: Source::Over,
        only: (!name.is_empty()).then(|| format!("{prefix}{name}")),
        selection,
        encoder,
        frames: VecDeque::new(),
        seen: 0,
        told: 0,
        mark_end: options.mark_end,
        bookmarks: options.bookmarks,
        bookmark_at: Instant::now() + BOOKMARK_EVERY,
        end_at: Instant::now() + options.life,
        draining: call.server.draining().clone(),
        over: false,
    };
    watcher.source = match watcher.open(call, &prefix, options.start).await {
        Ok(source) => source,
        Err(store::Error::Compacted { requested, oldest }) => {
            watcher.fail(&Status::expired(format!("too old resource version: {requested} ({oldest})")))?;
            Source::Over
        }
        Err(error) => return Err(store_failed(error)),
    };
    let chunks = stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok(chunk), watcher))
    });
    let mut response = Response::new(body::stream(chunks));
    let media_type = HeaderValue::from_static(answer::watch_media_type(accepted));
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn table_of(call: &Call, served: &Served, accepted: Accepted) -> Result<Option<table::Table>, Status> {
    match accepted.view {
        View::Table(version) => table::Table::new(call, served, version, &call.query).map(Some),
        _ => Ok(None),
    }
}

/// Where a watch's events come from.
enum Source {
    /// The resource's cache.
    Cache(Box<WatchStream<Attrs>>),
    /// The store itself, for what happened before the cache began to remember.
    Store(Watch),
    Over,
}

enum Item {
    Cached(Option<Result<StreamItem<Attrs>, store::Error>>),
    Stored(Option<Result<WatchItem, store::Error>>),
}

impl Source {
    async fn next(&mut self) -> Item {
        match self {
            Self::Cache(stream) => Item::Cached(stream.next().await),
            Self::Store(watch) => Item::Stored(watch.recv().await),
            Self::Over => Item::Stored(None),
        }
    }
}

/// One client's watch.
struct Watcher {
    source: Source,
    selection: Selection,
    /// The one key that is watched, when the path names an object.
    only: Option<String>,
    encoder: Encoder,
    frames: VecDeque<Bytes>,
    /// Everything up to here was looked at.
    seen: Revision,
    /// The revision that the client heard of last.
    told: Revision,
    /// The end of the initial events is told.
    mark_end: bool,
    bookmarks: bool,
    bookmark_at: Instant,
    end_at: Instant,
    draining: tokio_util::sync::CancellationToken,
    over: bool,
}

impl Watcher {
    /// Begins to watch, in the cache where it remembers far enough back.
    async fn open(&mut self, call: &Call, prefix: &str, start: Start) -> Result<Source, store::Error> {
        let served = &self.encoder.served;
        let scope = match (&self.only, self.selection.index()) {
            (Some(key), _) => Scope::Key(key.clone()),
            (None, Some((field, value))) => Scope::Index(field, value.into()),
            (None, None) if prefix == served.prefix("") => Scope::All,
            (None, None) => Scope::Directory(prefix.into()),
        };
        // An index spans namespaces.
        let within = matches!(scope, Scope::Index(..)) && prefix != served.prefix("");
        let filter = (!self.selection.is_empty() || within).then(|| {
            let (selection, prefix) = (self.selection.clone(), prefix.to_string());
            let filter = move |attrs: &Attrs| attrs.key().starts_with(&prefix) && selection.matches_cached(attrs);
            Arc::new(filter) as Filter<Attrs>
        });
        let cache = call.server.caches().of(served);
        match (cache.watch(scope, start, filter).await, start) {
            (Ok(stream), _) => Ok(Source::Cache(Box::new(stream))),
            (Err(store::Error::Compacted { .. }), Start::After(after)) => {
                self.seen = after;
                call.server.store().watch(prefix, after).await.map(Source::Store)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn selects(&self, key: &str, bytes: &[u8]) -> bool {
        self.only.as_deref().is_none_or(|only| only == key) && self.selection.matches(key, bytes)
    }

    /// The next bytes for the client; `None`: the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(batch) = self.batch() {
                return Some(batch);
            }
            if self.over {
                return None;
            }
            let item = tokio::select! {
                item = self.source.next() => item,
                () = tokio::time::sleep_until(self.bookmark_at), if self.bookmarks => {
                    self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    self.ask_bookmark().await;
                    continue;
                }
                () = tokio::time::sleep_until(self.end_at) => {
                    // What a client has not heard of by the end of its watch it would have to read again.
                    self.bookmark();
                    self.over = true;
                    continue;
                }
                () = self.draining.cancelled() => return None,
            };
            self.handle(item);
        }
    }

    fn handle(&mut self, item: Item) {
        let taken = match item {
            Item::Cached(Some(Ok(item))) => self.take_cached(item),
            Item::Stored(Some(Ok(WatchItem::Events(events)))) => self.take(&events),
            Item::Stored(Some(Ok(WatchItem::Progress(revision)))) => {
                self.seen = self.seen.max(revision);
                Ok(())
            }
            Item::Cached(Some(Err(store::Error::Compacted { requested, oldest })))
            | Item::Stored(Some(Err(store::Error::Compacted { requested, oldest }))) => {
                Err(Status::expired(format!("too old resource version: {requested} ({oldest})")))
            }
            // A client that reads too slowly is cut off; it comes back with the revision that it has seen.
            Item::Cached(Some(Err(_)) | None) | Item::Stored(Some(Err(_)) | None) => {
                self.over = true;
                Ok(())
            }
        };
        if let Err(status) = taken {
            self.end(&status);
        }
    }

    fn take_cached(&mut self, item: StreamItem<Attrs>) -> Result<(), Status> {
        match item {
            StreamItem::Event(event) => {
                self.seen = event.event.revision;
                self.told = self.seen;
                let frame = self.encoder.cached(&event)?;
                self.frames.push_back(frame);
            }
            StreamItem::InitialEnd(revision) => {
                self.seen = revision;
                if self.mark_end {
                    let frame = self.encoder.bookmark(revision, true)?;
                    self.frames.push_back(frame);
                    self.told = revision;
                }
            }
            StreamItem::Bookmark(revision) => {
                self.seen = self.seen.max(revision);
                self.bookmark();
            }
        }
        Ok(())
    }

    async fn ask_bookmark(&mut self) {
        match &mut self.source {
            Source::Cache(stream) => {
                // A watch that has ended says so with its next item.
                let _ = stream.request_bookmark().await;
            }
            _ => self.bookmark(),
        }
    }

    /// Frames that are ready, joined up to a sensible size.
    fn batch(&mut self) -> Option<Bytes> {
        let first = self.frames.pop_front()?;
        if self.frames.is_empty() || first.len() >= BATCH_BYTES {
            return Some(first);
        }
        let mut out = first.to_vec();
        while out.len() < BATCH_BYTES
            && let Some(frame) = self.frames.pop_front()
        {
            out.extend_from_slice(&frame);
        }
        Some(out.into())
    }

    fn take(&mut self, events: &[Event]) -> Result<(), Status> {
        for event in events {
            self.seen = event.revision;
            let was = event.prev.as_ref().filter(|prev| self.selects(&event.key, &prev.value));
            let is = event.value.as_ref().filter(|value| self.selects(&event.key, value));
            let frame = match (was, is) {
                (None, None) => continue,
                (None, Some(value)) => self.encoder.frame("ADDED", value, event.revision)?,
                (Some(_), Some(value)) => self.encoder.frame("MODIFIED", value, event.revision)?,
                (Some(prev), None) => self.encoder.frame("DELETED", &prev.value, event.revision)?,
            };
            self.told = event.revision;
            self.frames.push_back(frame);
        }
        Ok(())
    }

    fn bookmark(&mut self) {
        if self.bookmarks
            && self.seen > self.told
            && let Ok(frame) = self.encoder.bookmark(self.seen, false)
        {
            self.told = self.seen;
            self.frames.push_back(frame);
        }
    }

    fn end(&mut self, status: &Status) {
        if self.fail(status).is_err() {
            tracing::error!(%status, "cannot tell a watch why it ends");
        }
        self.over = true;
    }

    /// Queues an `ERROR` event, the last one.
    fn fail(&mut self, status: &Status) -> Result<(), Status> {
        self.over = true;
        let frame = self.encoder.wrap("ERROR", &status.to_value())?;
        self.frames.push_back(frame);
        Ok(())
    }
}

/// Makes events out of stored bytes.
struct Encoder {
    served: Served,
    accepted: Accepted,
    table: Option<table::Table>,
}

impl Encoder {
    /// The frame of an event from the cache: encoded once for all watches that want the same form.
    fn cached(&mut self, watched: &WatchEvent<Attrs>) -> Result<Bytes, Status> {
        let (kind, slot) = match watched.kind {
            Kind::Added => ("ADDED", 0),
            Kind::Modified => ("MODIFIED", 1),
            Kind::Deleted => ("DELETED", 2),
        };
        let event = &watched.event;
        let item = watched.object().ok_or_else(|| Status::internal("a watched change without an object"))?;
        let slot = if output::verbatim(&self.served, self.accepted) {
            slot
        } else if self.accepted.format == Format::Protobuf
            && self.accepted.view == View::Full
            && !self.served.converts()
        {
            slot + PROTOBUF_SLOTS
        } else {
            return self.frame(kind, &item.entry.value, event.revision);
        };
        if let Some(frame) = event.encoded[slot].get() {
            return Ok(frame.clone());
        }
        let frame = self.frame(kind, &item.entry.value, event.revision)?;
        Ok(event.encoded[slot].get_or_init(|| frame).clone())
    }

    fn frame(&mut self, kind: &str, bytes: &[u8], revision: Revision) -> Result<Bytes, Status> {
        if output::verbatim(&self.served, self.accepted) {
            let mut out = Vec::with_capacity(bytes.len() + 80);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            stored::splice(bytes, revision, &mut out);
            out.extend_from_slice(b"}\n");
            return Ok(out.into());
        }
        let object = output::decode(&self.served, bytes, revision)?;
        let shown = self.view(object);
        self.wrap(kind, &shown)
    }

    fn view(&mut self, object: Value) -> Value {
        match (self.accepted.view, &mut self.table) {
            (View::Metadata(version), _) => output::partial(object, version),
            (View::Table(_), Some(table)) => {
                let revision = object["metadata"]["resourceVersion"].clone();
                let rows = vec![table.row(&object)];
                let document = table.document(rows, json!({"resourceVersion": revision}));
                // Only the first table of a stream says what its columns are.
                table.headless();
                document
            }
            _ => object,
        }
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Result<Bytes, Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let (kind, api_version) = match self.accepted.view {
            View::Metadata(version) => ("PartialObjectMetadata".to_string(), format!("meta.k8s.io/{version}")),
            _ => (self.served.resource.kind.clone(), self.served.api_version()),
        };
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        let shown = match (self.accepted.view, &mut self.table) {
            (View::Table(_), Some(table)) => {
                table.document(vec![table.bare_row(&object)], json!({"resourceVersion": revision.to_string()}))
            }
            _ => object,
        };
        self.wrap("BOOKMARK", &shown)
    }

    fn wrap(&self, kind: &str, object: &Value) -> Result<Bytes, Status> {
        match self.accepted.format {
            Format::Protobuf => codec::protobuf_event(kind, object),
            Format::Yaml => {
                let mut out = b"---\n".to_vec();
                out.extend_from_slice(&codec::encode(&json!({"type": kind, "object": object}), Format::Yaml, false)?);
                Ok(out.into())
            }
            Format::Json => Ok(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()),
        }
    }
}
