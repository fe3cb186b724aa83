//! What every backend must do, as checks that are generic over it. For tests: a failed check panics.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use crate::{Compare, Entry, Error, Event, LeaseId, Op, Outcome, Range, Revision, Store, Txn, Watch, WatchItem};

/// No check waits longer than this for something that a backend owes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs all checks, each on a new, empty store from `open`.
pub async fn all<S: Store, F: Future<Output = S>>(open: impl Fn() -> F) {
    writes_and_reads(&open().await).await;
    ranges(&open().await).await;
    history(&open().await).await;
    transactions(&open().await).await;
    watches(&open().await).await;
    watches_of_the_past(&open().await).await;
    changes(&open().await).await;
    leases(&open().await).await;
    concurrent_writers(Arc::new(open().await)).await;
}

/// A transaction that puts one key.
pub fn put(key: &str, value: impl Into<Bytes>) -> Txn {
    put_leased(key, value, None)
}

fn put_leased(key: &str, value: impl Into<Bytes>, lease: Option<LeaseId>) -> Txn {
    Txn { compare: Vec::new(), ops: vec![Op::Put { key: key.to_string(), value: value.into(), lease }] }
}

/// A transaction that deletes one key.
pub fn delete(key: &str) -> Txn {
    Txn { compare: Vec::new(), ops: vec![Op::Delete { key: key.to_string() }] }
}

/// The same, if `key` was last written at `mod_revision`.
pub fn when(mut txn: Txn, key: &str, mod_revision: Revision) -> Txn {
    txn.compare.push(Compare { key: key.to_string(), mod_revision });
    txn
}

/// Commits a transaction that must succeed.
pub async fn commit(store: &impl Store, txn: Txn) -> Revision {
    match store.txn(txn.clone()).await {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("{txn:?} should commit, but: {other:?}"),
    }
}

async fn get(store: &impl Store, key: &str) -> Option<Entry> {
    store.range(Range::key(key)).await.unwrap().entries.pop()
}

async fn keys(store: &impl Store, range: Range) -> Vec<String> {
    store.range(range).await.unwrap().entries.iter().map(|entry| entry.key.to_string()).collect()
}

/// The next `count` events of a watch.
pub async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut found = Vec::new();
    while found.len() < count {
        match timeout(PATIENCE, watch.recv()).await {
            Ok(Some(Ok(WatchItem::Events(events)))) => found.extend(events.iter().cloned()),
            Ok(Some(Ok(WatchItem::Progress(_)))) => {}
            other => panic!("wanted {count} events, have {found:?}, then {other:?}"),
        }
    }
    assert_eq!(found.len(), count, "too many events: {found:?}");
    found
}

async fn writes_and_reads(store: &impl Store) {
    let start = store.revision().await.unwrap();
    assert!(start >= 1, "an empty store has revision 1 or later");
    assert_eq!(get(store, "/a").await, None);
    let first = commit(store, put("/a", "1")).await;
    assert_eq!(first, start + 1);
    let second = commit(store, put("/a", "2")).await;
    assert_eq!(second, first + 1);
    let entry = get(store, "/a").await.unwrap();
    let expected =
        Entry { key: "/a".into(), value: "2".into(), create_revision: first, mod_revision: second, lease: None };
    assert_eq!(entry, expected);
    assert_eq!(commit(store, delete("/a")).await, second + 1);
    assert_eq!(get(store, "/a").await, None);
    assert_eq!(commit(store, delete("/a")).await, second + 1, "deleting nothing takes no revision");
    let again = commit(store, put("/a", "3")).await;
    assert_eq!(get(store, "/a").await.unwrap().create_revision, again, "a deleted key starts anew");
    assert_eq!(store.revision().await.unwrap(), again);
    commit(store, put("/empty", "")).await;
    assert_eq!(get(store, "/empty").await.unwrap().value, "");
    assert!(store.size().await.unwrap() > 0);
}

async fn ranges(store: &impl Store) {
    for key in ["/p/b", "/p/a/x", "/p/a", "/q/a", "/p/c"] {
        commit(store, put(key, key.to_string())).await;
    }
    assert_eq!(keys(store, Range::prefix("/p/")).await, ["/p/a", "/p/a/x", "/p/b", "/p/c"]);
    assert_eq!(keys(store, Range::key("/p/a")).await, ["/p/a"]);
    let limited = store.range(Range { limit: 2, ..Range::prefix("/p/") }).await.unwrap();
    assert_eq!((limited.entries.len(), limited.count), (2, 4));
    let next = Range { start: "/p/a/x\0".to_string(), ..Range::prefix("/p/") };
    let rest = store.range(next).await.unwrap();
    assert_eq!((rest.entries.len(), rest.count), (2, 2));
    let counted = store.range(Range { count_only: true, ..Range::prefix("/") }).await.unwrap();
    assert_eq!((counted.entries.len(), counted.count), (0, 5));
    assert_eq!(counted.revision, store.revision().await.unwrap());
    let empty = Range { start: "/z".to_string(), end: Some("/a".to_string()), ..Range::default() };
    assert_eq!(keys(store, empty).await, [""; 0]);
}

async fn history(store: &impl Store) {
    let first = commit(store, put("/a", "1")).await;
    let second = commit(store, put("/a", "2")).await;
    let third = commit(store, put("/b", "1")).await;
    let fourth = commit(store, delete("/a")).await;
    let at = async |revision| {
        let result = store.range(Range { revision: Some(revision), ..Range::prefix("/") }).await?;
        let text: Vec<String> =
            result.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value.escape_ascii())).collect();
        Ok::<String, Error>(text.join(" "))
    };
    let expected = [(first, "/a=1"), (second, "/a=2"), (third, "/a=2 /b=1"), (fourth, "/b=1")];
    for (revision, state) in expected {
        assert_eq!(at(revision).await.unwrap(), state, "at {revision}");
    }
    assert!(matches!(at(fourth + 1).await, Err(Error::Future { .. })));
    store.compact(third).await.unwrap();
    assert!(matches!(at(second).await, Err(Error::Compacted { .. })));
    for (revision, state) in &expected[2..] {
        assert_eq!(at(*revision).await.unwrap(), *state, "at {revision} after compaction");
    }
    assert!(matches!(store.compact(second).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(fourth + 1).await, Err(Error::Future { .. })));
    store.compact(fourth).await.unwrap();
    assert_eq!(at(fourth).await.unwrap(), "/b=1");
}

async fn transactions(store: &impl Store) {
    let first = commit(store, when(put("/a", "1"), "/a", 0)).await;
    let failed = store.txn(when(put("/a", "2"), "/a", 0)).await.unwrap();
    let Outcome::Failed { current, revision } = failed else { panic!("a key that exists was created: {failed:?}") };
    assert_eq!(revision, first);
    assert_eq!(current[0].as_ref().unwrap().mod_revision, first);
    let second = commit(store, when(put("/a", "2"), "/a", first)).await;
    let stale = store.txn(when(when(delete("/a"), "/a", first), "/b", 0)).await.unwrap();
    let Outcome::Failed { current, .. } = stale else { panic!("a stale write went through: {stale:?}") };
    assert_eq!(current.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false], "in the order of the compares");
    let mut both = when(put("/b", "1"), "/a", second);
    both.ops.push(Op::Delete { key: "/a".to_string() });
    let third = commit(store, both).await;
    assert_eq!(third, second + 1, "one revision for a transaction");
    assert_eq!(keys(store, Range::prefix("/")).await, ["/b"]);
    let mut twice = put("/b", "2");
    twice.ops.push(Op::Put { key: "/b".to_string(), value: "3".into(), lease: None });
    assert!(matches!(store.txn(twice).await, Err(Error::Invalid(_))));
    assert_eq!(store.revision().await.unwrap(), third);
}

async fn watches(store: &impl Store) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("/p/", start).await.unwrap();
    let mut other = store.watch("/other/", start).await.unwrap();
    let first = commit(store, put("/p/a", "1")).await;
    commit(store, put("/q/a", "1")).await;
    let mut both = put("/p/a", "2");
    both.ops.push(Op::Put { key: "/p/b".to_string(), value: "1".into(), lease: None });
    let second = commit(store, both).await;
    let third = commit(store, delete("/p/a")).await;
    let seen = events(&mut watch, 4).await;
    let text: Vec<String> = seen
        .iter()
        .map(|event| {
            let value = |value: Option<&Bytes>| value.map_or("-".to_string(), |value| value.escape_ascii().to_string());
            let prev = value(event.prev.as_ref().map(|prev| &prev.value));
            format!("{} {} {prev}>{}", event.revision - start, event.key, value(event.value.as_ref()))
        })
        .collect();
    assert_eq!(text, ["1 /p/a ->1", "3 /p/a 1>2", "3 /p/b ->1", "4 /p/a 2>-"]);
    assert_eq!(seen[1].create_revision, first);
    assert_eq!(seen[3].create_revision, first);
    assert_eq!((seen[1].revision, seen[3].revision), (second, third));
    commit(store, put("/other/a", "1")).await;
    assert_eq!(&*events(&mut other, 1).await[0].key, "/other/a");
}

async fn watches_of_the_past(store: &impl Store) {
    let first = commit(store, put("/p/a", "1")).await;
    let second = commit(store, put("/p/a", "2")).await;
    let third = commit(store, put("/p/a", "3")).await;
    let mut watch = store.watch("/p/", first).await.unwrap();
    let seen = events(&mut watch, 2).await;
    assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), [second, third]);
    let mut quiet = store.watch("/quiet/", first).await.unwrap();
    store.compact(second).await.unwrap();
    let mut watch = store.watch("/p/", second).await.unwrap();
    assert_eq!(events(&mut watch, 1).await[0].revision, third);
    // etcd counts the compacted revision itself as there.
    let too_old = match store.watch("/p/", first - 1).await {
        Err(error) => Some(error),
        Ok(mut watch) => timeout(PATIENCE, watch.recv()).await.unwrap().and_then(Result::err),
    };
    assert!(matches!(too_old, Some(Error::Compacted { .. })), "{too_old:?}");
    let now = commit(store, put("/p/a", "4")).await;
    store.compact(now).await.unwrap();
    commit(store, put("/quiet/a", "1")).await;
    assert_eq!(&*events(&mut quiet, 1).await[0].key, "/quiet/a", "a watch that missed nothing outlives compaction");
}

async fn changes(store: &impl Store) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("/p/", start).await.unwrap();
    let first = commit(store, put("/p/a", "1")).await;
    let second = commit(store, put("/q/a", "1")).await;
    let (changed, current) = store.changed("/p/").await.unwrap();
    assert_eq!(current, second);
    assert!((first..=second).contains(&changed), "{changed}");
    let mut reached = 0;
    while reached < changed {
        match timeout(PATIENCE, watch.recv()).await {
            Ok(Some(Ok(WatchItem::Events(events)))) => reached = events.last().unwrap().revision,
            Ok(Some(Ok(WatchItem::Progress(revision)))) => reached = revision,
            other => panic!("the watch should reach {changed}, has {reached}, then: {other:?}"),
        }
    }
}

async fn leases(store: &impl Store) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("/", start).await.unwrap();
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    commit(store, put_leased("/a", "1", Some(lease))).await;
    commit(store, put_leased("/b", "1", Some(lease))).await;
    assert_eq!(get(store, "/a").await.unwrap().lease, Some(lease));
    store.keep_alive(lease).await.unwrap();
    commit(store, put("/b", "2")).await;
    store.revoke(lease).await.unwrap();
    assert_eq!(keys(store, Range::prefix("/")).await, ["/b"], "a key written without the lease is free of it");
    let seen = events(&mut watch, 4).await;
    assert!(seen[3].value.is_none() && &*seen[3].key == "/a", "watchers see what a lease deletes: {seen:?}");
    assert!(matches!(store.keep_alive(lease).await, Err(Error::NoSuchLease(_))));
    assert!(matches!(store.revoke(lease).await, Err(Error::NoSuchLease(_))));
    assert!(matches!(store.txn(put_leased("/c", "1", Some(lease))).await, Err(Error::NoSuchLease(_))));
    let short = store.grant(Duration::from_secs(1)).await.unwrap();
    assert_ne!(short, lease);
    commit(store, put_leased("/short", "1", Some(short))).await;
    let seen = events(&mut watch, 2).await;
    assert!(seen[1].value.is_none() && &*seen[1].key == "/short", "{seen:?}");
    assert!(matches!(store.keep_alive(short).await, Err(Error::NoSuchLease(_))));
}

async fn concurrent_writers(store: Arc<impl Store>) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let start = store.revision().await.unwrap();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    let mut known = get(&*store, "/n").await;
                    loop {
                        let count: usize = match &known {
                            None => 0,
                            Some(entry) => std::str::from_utf8(&entry.value).unwrap().parse().unwrap(),
                        };
                        let revision = known.as_ref().map_or(0, |entry| entry.mod_revision);
                        let txn = when(put("/n", (count + 1).to_string()), "/n", revision);
                        match store.txn(txn).await.unwrap() {
                            Outcome::Committed(_) => break,
                            Outcome::Failed { mut current, .. } => known = current.remove(0),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entry = get(&*store, "/n").await.unwrap();
    assert_eq!(entry.value, (WRITERS * EACH).to_string(), "no increment is lost");
    assert_eq!(entry.mod_revision, start + (WRITERS * EACH) as u64);
}
