//! `list`: objects at a revision, whole or in pages, streamed as they are stored.

use api::{status::Status, stored};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use store::{Entry, Range, Revision, prefix_end};

use super::{
    options::{self, ListOptions},
    output,
    select::Selection,
    store_failed, table, too_large_revision,
};
use crate::{
    body,
    catalog::Served,
    gzip,
    pipeline::{
        accept::{self, Accepted, View},
        answer::{self, Answer},
        call::Call,
    },
};

/// Entries read at once when a selector picks from them.
const SCAN: usize = 500;
/// Size of the pieces in which a list is sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// Selected entries and what the list's metadata says.
struct Page {
    entries: Vec<Entry>,
    metadata: Map<String, Value>,
}

/// A list as objects in their storage version.
pub(crate) struct Items {
    pub(crate) items: Vec<Value>,
    pub(crate) metadata: Map<String, Value>,
}

pub(crate) async fn handle(call: &Call, served: &Served) -> Answer {
    let accepted = call.negotiate(output::offer(served))?;
    let page = read(call, served).await?;
    if output::verbatim(served, accepted) {
        return Ok(streamed(call, served, page));
    }
    let items = page
        .entries
        .iter()
        .map(|entry| stored::decode(&entry.value, entry.mod_revision))
        .collect::<Result<Vec<Value>, Status>>()?;
    answer_items(call, served, items, page.metadata, accepted)
}

/// The objects that the request selects.
pub(crate) async fn collect(call: &Call, served: &Served) -> Result<Items, Status> {
    let page = read(call, served).await?;
    let items = page
        .entries
        .iter()
        .map(|entry| stored::decode(&entry.value, entry.mod_revision))
        .collect::<Result<Vec<Value>, Status>>()?;
    Ok(Items { items, metadata: page.metadata })
}

/// Answers with objects that are in their storage version.
pub(crate) fn answer_items(
    call: &Call,
    served: &Served,
    mut items: Vec<Value>,
    metadata: Map<String, Value>,
    accepted: Accepted,
) -> Answer {
    for item in &mut items {
        served.from_storage(item)?;
    }
    let document = match accepted.view {
        View::Full => json!({
            "kind": served.resource.list_kind,
            "apiVersion": served.api_version(),
            "metadata": metadata,
            "items": items,
        }),
        View::Metadata(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "items": items.into_iter().map(|item| output::partial(item, version)).collect::<Vec<_>>(),
        }),
        View::Table(version) => {
            let table = table::Table::new(call, served, version, &call.query)?;
            let rows = items.iter().map(|item| table.row(item)).collect();
            table.document(rows, metadata.into())
        }
    };
    let response = answer::value(200, &document, accepted)?;
    Ok(gzip::maybe(call, response))
}

/// Reads the page that the request asks for.
async fn read(call: &Call, served: &Served) -> Result<Page, Status> {
    let namespace = if served.resource.namespaced { call.info.namespace.as_str() } else { "" };
    let prefix = served.prefix(namespace);
    let options = ListOptions::parse(&call.query, &prefix)?;
    let selection = Selection::parse(&call.query, served)?;
    if let Some(least) = options.not_older_than.or(options.exact) {
        let current = call.server.store().revision().await.map_err(store_failed)?;
        if least > current {
            return Err(too_large_revision(least, current));
        }
    }
    let end = prefix_end(&prefix);
    let mut start = options.start.clone().unwrap_or_else(|| prefix.clone());
    let mut revision = options.exact;
    if let Some(name) = selection.only_name().filter(|_| options.start.is_none())
        && (!served.resource.namespaced || !namespace.is_empty())
    {
        return single(call, &prefix, name, revision, &selection).await;
    }
    let mut entries: Vec<Entry> = Vec::new();
    let chunk = if options.limit == 0 || selection.is_empty() { options.limit } else { options.limit.max(SCAN) };
    let (mut remaining, mut more);
    loop {
        let range = Range { start: start.clone(), end: Some(end.clone()), revision, limit: chunk, count_only: false };
        let result = call.server.store().range(range).await.map_err(|error| expired(error, &options, &prefix))?;
        let at = *revision.get_or_insert(result.revision);
        let read = result.entries.len();
        remaining = result.count.saturating_sub(read);
        more = chunk > 0 && remaining > 0;
        if let Some(last) = result.entries.last() {
            start = format!("{}\0", last.key);
        }
        if selection.is_empty() {
            entries = result.entries;
        } else {
            for (index, entry) in result.entries.into_iter().enumerate() {
                if options.limit > 0 && entries.len() == options.limit {
                    // The page is full: the next one begins at this entry.
                    start = entry.key.to_string();
                    more = true;
                    remaining += read - index;
                    break;
                }
                if selection.matches(&entry.key, &entry.value) {
                    entries.push(entry);
                }
            }
        }
        let full = options.limit > 0 && entries.len() >= options.limit;
        if !more || full {
            let mut metadata = Map::new();
            metadata.insert("resourceVersion".into(), at.to_string().into());
            if more && options.limit > 0 {
                metadata.insert("continue".into(), options::continue_token(&prefix, &start, at).into());
                if selection.is_empty() {
                    metadata.insert("remainingItemCount".into(), remaining.into());
                }
            }
            return Ok(Page { entries, metadata });
        }
    }
}

/// A list that can hold one name only.
async fn single(
    call: &Call,
    prefix: &str,
    name: &str,
    revision: Option<Revision>,
    selection: &Selection,
) -> Result<Page, Status> {
    let range = Range { revision, ..Range::key(format!("{prefix}{name}")) };
    let result = call.server.store().range(range).await.map_err(store_failed)?;
    let at = revision.unwrap_or(result.revision);
    let entries = result.entries.into_iter().filter(|entry| selection.matches(&entry.key, &entry.value)).collect();
    Ok(Page { entries, metadata: Map::from_iter([("resourceVersion".to_string(), at.to_string().into())]) })
}

/// 410, with a token that goes on at the newest revision when a list was being continued.
fn expired(error: store::Error, options: &ListOptions, prefix: &str) -> Status {
    match (&error, &options.start) {
        (store::Error::Compacted { .. }, Some(start)) => {
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - \
                 objects that were created, modified, or deleted between the time the first chunk was returned and \
                 now may show up in the list.",
            );
            status.continue_token = options::inconsistent_token(prefix, start);
            status
        }
        _ => store_failed(error),
    }
}

/// The list's bytes: head, items with their revisions spliced in, tail.
fn streamed(call: &Call, served: &Served, page: Page) -> http::Response<body::Body> {
    let metadata = Value::Object(page.metadata);
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        json!(served.resource.list_kind),
        json!(served.api_version()),
    );
    let size: usize = page.entries.iter().map(|entry| entry.value.len() + 40).sum();
    let mut response;
    if size < CHUNK_BYTES {
        let mut out = Vec::with_capacity(head.len() + size + 8);
        out.extend_from_slice(head.as_bytes());
        for (index, entry) in page.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            stored::splice(&entry.value, entry.mod_revision, &mut out);
        }
        out.extend_from_slice(b"]}\n");
        response = answer::bytes(200, accept::JSON, out);
    } else {
        let pieces = Pieces { head: Some(head), entries: page.entries.into_iter(), first: true, done: false };
        response = http::Response::new(body::stream(stream::iter(pieces.map(Ok))));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(accept::JSON));
    }
    gzip::maybe(call, response)
}

/// Produces a list's bytes piece by piece, so that a slow reader costs no memory.
struct Pieces {
    head: Option<String>,
    entries: std::vec::IntoIter<Entry>,
    first: bool,
    done: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES + 4096);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while out.len() < CHUNK_BYTES {
            let Some(entry) = self.entries.next() else {
                out.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            if !std::mem::replace(&mut self.first, false) {
                out.push(b',');
            }
            stored::splice(&entry.value, entry.mod_revision, &mut out);
        }
        Some(out.into())
    }
}
