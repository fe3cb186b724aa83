use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::time::timeout;

use super::*;
use crate::{
    Embedded, Op, Outcome, Txn,
    conformance::{commit, delete, put},
    embedded::Options,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Values are `node color`.
#[derive(Debug)]
struct Attrs {
    node: String,
    color: String,
}

impl Attributes for Attrs {
    fn of(_key: &str, value: &Bytes) -> Self {
        let text = String::from_utf8(value.to_vec()).unwrap();
        let (node, color) = text.split_once(' ').unwrap_or((&text, ""));
        Self { node: node.to_string(), color: color.to_string() }
    }

    fn indexed(&self, visit: &mut dyn FnMut(&'static str, &str)) {
        visit("node", &self.node);
    }
}

struct Bench {
    store: Embedded,
    cache: Cache<Attrs>,
    _dir: tempfile::TempDir,
}

fn bench(limits: Limits) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let cache = Cache::new(Arc::new(store.clone()), "/p/", limits, Metrics::default());
    Bench { store, cache, _dir: dir }
}

/// The next items, as text: kind, key and color; `|` ends initial events, `^` is a bookmark.
async fn read(stream: &mut WatchStream<Attrs>, count: usize) -> Vec<String> {
    let mut out = Vec::new();
    while out.len() < count {
        let item = timeout(PATIENCE, stream.next()).await;
        out.push(match item {
            Ok(Some(Ok(StreamItem::Event(event)))) => {
                let sign = match event.kind {
                    Kind::Added => '+',
                    Kind::Modified => '~',
                    Kind::Deleted => '-',
                };
                format!("{sign}{} {}", event.event.key, event.object().unwrap().attrs.color)
            }
            Ok(Some(Ok(StreamItem::InitialEnd(_)))) => "|".to_string(),
            Ok(Some(Ok(StreamItem::Bookmark(_)))) => "^".to_string(),
            other => panic!("wanted {count} items, have {out:?}, then {other:?}"),
        });
    }
    assert!(stream.try_next().is_none(), "more than {count} items");
    out
}

fn color(color: &'static str) -> Option<Filter<Attrs>> {
    Some(Arc::new(move |attrs: &Attrs| attrs.color == color))
}

#[tokio::test]
async fn lists_see_every_write_that_was_acknowledged() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    for round in 0..50 {
        let revision = commit(&store, put(&format!("/p/ns/{round}"), "n red")).await;
        let other = commit(&store, put("/q/x", "n red")).await;
        let (items, at) = cache.list("/p/ns/").await.unwrap();
        assert_eq!((items.len(), at), (round + 1, other));
        assert_eq!(items.iter().map(|item| item.entry.mod_revision).max(), Some(revision));
    }
    assert_eq!(cache.get("/p/ns/7").await.unwrap().unwrap().attrs.color, "red");
    let current = store.revision().await.unwrap();
    cache.wait_for(current).await.unwrap();
    assert!(matches!(cache.wait_for(current + 1).await, Err(Error::Future { .. })));
    assert_eq!(cache.list_any("/p/").await.unwrap().0.len(), 50);
}

#[tokio::test]
async fn a_filter_turns_changes_into_additions_and_deletions() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    commit(&store, put("/p/ns/old", "n red")).await;
    commit(&store, put("/p/ns/other", "n blue")).await;
    let mut stream = cache.watch(Scope::All, Start::Present, color("red")).await.unwrap();
    for (key, value) in [("a", "n blue"), ("a", "n red"), ("a", "m red"), ("a", "n blue"), ("b", "n red")] {
        commit(&store, put(&format!("/p/ns/{key}"), value)).await;
    }
    commit(&store, delete("/p/ns/b")).await;
    commit(&store, delete("/p/ns/a")).await;
    let seen = read(&mut stream, 7).await;
    let expected =
        ["+/p/ns/old red", "|", "+/p/ns/a red", "~/p/ns/a red", "-/p/ns/a red", "+/p/ns/b red", "-/p/ns/b red"];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn watches_hear_only_of_their_scope() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = || {
        let calls = calls.clone();
        let filter: Filter<Attrs> = Arc::new(move |_: &Attrs| calls.fetch_add(1, Ordering::Relaxed) < usize::MAX);
        Some(filter)
    };
    let mut idle = Vec::new();
    for index in 0..100 {
        for scope in [Scope::Index("node", format!("idle{index}")), Scope::Directory(format!("/p/idle{index}/"))] {
            idle.push(cache.watch(scope, Start::Now, counted()).await.unwrap());
        }
    }
    let mut on_n = cache.watch(Scope::Index("node", "n".into()), Start::Now, None).await.unwrap();
    let mut on_m = cache.watch(Scope::Index("node", "m".into()), Start::Now, None).await.unwrap();
    let mut in_one = cache.watch(Scope::Directory("/p/one/".into()), Start::Now, None).await.unwrap();
    let mut only_b = cache.watch(Scope::Key("/p/two/b".into()), Start::Now, None).await.unwrap();
    let start = store.revision().await.unwrap();
    for (key, value) in [("/p/one/a", "n 1"), ("/p/one/a", "n 2"), ("/p/one/a", "m 3"), ("/p/two/b", "m 4")] {
        commit(&store, put(key, value)).await;
    }
    let both =
        Txn { ops: ["/p/one/a", "/p/two/b"].map(|key| Op::Delete { key: key.to_string() }).to_vec(), ..Txn::default() };
    assert!(matches!(store.txn(both).await, Ok(Outcome::Committed(_))));
    let expected = [
        (&mut on_n, Scope::Index("node", "n".into()), vec!["+/p/one/a 1", "~/p/one/a 2", "-/p/one/a 2"]),
        (&mut on_m, Scope::Index("node", "m".into()), vec!["+/p/one/a 3", "+/p/two/b 4", "-/p/one/a 3", "-/p/two/b 4"]),
        (
            &mut in_one,
            Scope::Directory("/p/one/".into()),
            vec!["+/p/one/a 1", "~/p/one/a 2", "~/p/one/a 3", "-/p/one/a 3"],
        ),
        (&mut only_b, Scope::Key("/p/two/b".into()), vec!["+/p/two/b 4", "-/p/two/b 4"]),
    ];
    for (stream, scope, events) in expected {
        assert_eq!(read(stream, events.len()).await, events, "live {scope:?}");
        let mut replayed = cache.watch(scope.clone(), Start::After(start), None).await.unwrap();
        assert_eq!(read(&mut replayed, events.len()).await, events, "replayed {scope:?}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0, "a watch elsewhere costs nothing, not even its filter");
    drop(idle);
    assert_eq!(cache.shared.state.read().registry.len(), 4);
}

#[tokio::test]
async fn a_slow_watch_is_cut_and_the_others_go_on() {
    let Bench { store, cache, _dir } = bench(Limits { pending: 4, ..Limits::default() });
    let mut slow = cache.watch(Scope::All, Start::Now, None).await.unwrap();
    let mut quick = cache.watch(Scope::All, Start::Now, None).await.unwrap();
    for round in 0..8 {
        commit(&store, put("/p/ns/a", format!("n {round}"))).await;
        read(&mut quick, 1).await;
    }
    for _ in 0..4 {
        assert!(matches!(slow.next().await, Some(Ok(StreamItem::Event(_)))));
    }
    assert!(matches!(slow.next().await, Some(Err(Error::Slow))));
    assert!(slow.next().await.is_none());
    assert_eq!(cache.shared.state.read().registry.len(), 1);
}

#[tokio::test]
async fn the_past_is_bounded() {
    let Bench { store, cache, _dir } = bench(Limits { ring_events: 10, ..Limits::default() });
    cache.list("/p/").await.unwrap();
    let mut revisions = Vec::new();
    for round in 0..20 {
        revisions.push(commit(&store, put("/p/ns/a", format!("n {round}"))).await);
    }
    cache.list("/p/").await.unwrap();
    let mut stream = cache.watch(Scope::All, Start::After(revisions[9]), None).await.unwrap();
    assert_eq!(read(&mut stream, 10).await[0], "~/p/ns/a 10");
    let too_old = cache.watch(Scope::All, Start::After(revisions[8]), None).await;
    assert!(matches!(too_old, Err(Error::Compacted { oldest, .. }) if oldest == revisions[9]));
    let future = cache.watch(Scope::All, Start::After(revisions[19] + 5), None).await;
    assert!(matches!(future, Err(Error::Future { .. })));
}

#[tokio::test]
async fn bookmarks_come_behind_the_events_that_they_cover() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    let mut stream = cache.watch(Scope::Directory("/p/ns/".into()), Start::Present, None).await.unwrap();
    commit(&store, put("/p/ns/a", "n red")).await;
    let current = commit(&store, put("/elsewhere", "n red")).await;
    stream.request_bookmark().await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(StreamItem::InitialEnd(_)))));
    assert!(matches!(stream.next().await, Some(Ok(StreamItem::Event(_)))));
    let Some(Ok(StreamItem::Bookmark(revision))) = stream.next().await else { panic!("no bookmark") };
    assert_eq!(revision, current);
}

#[tokio::test]
async fn a_thousand_watches_share_one_encoding() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(cache.watch(Scope::All, Start::Now, None).await.unwrap());
    }
    commit(&store, put("/p/ns/a", "n red")).await;
    let mut encodings = 0;
    for stream in &mut streams {
        let Some(Ok(StreamItem::Event(event))) = timeout(PATIENCE, stream.next()).await.unwrap() else { panic!() };
        event.event.encoded[0].get_or_init(|| {
            encodings += 1;
            "encoded".into()
        });
    }
    assert_eq!(encodings, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_rebuild_the_state_while_writers_run() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..200 {
                    let key = format!("/p/ns/{writer}-{}", round % 7);
                    let txn = if round % 3 == 2 { delete(&key) } else { put(&key, format!("n {round}")) };
                    store.txn(txn).await.unwrap();
                }
            })
        })
        .collect();
    let mut stream = cache.watch(Scope::All, Start::Present, None).await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let (items, revision) = cache.list("/p/").await.unwrap();
    let mut seen = BTreeMap::new();
    let mut last = 0;
    stream.request_bookmark().await.unwrap();
    loop {
        match timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap() {
            StreamItem::Event(event) => {
                let initial = event.event.prev.is_none() && last == 0;
                assert!(initial || event.event.revision >= last, "out of order");
                match event.kind {
                    Kind::Deleted => _ = seen.remove(&event.event.key),
                    _ => _ = seen.insert(event.event.key.clone(), event.event.revision),
                }
            }
            StreamItem::InitialEnd(revision) => last = revision,
            StreamItem::Bookmark(at) => {
                assert_eq!(at, revision);
                break;
            }
        }
    }
    let expected: BTreeMap<_, _> = items.iter().map(|item| (item.entry.key.clone(), item.entry.mod_revision)).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_closed_store_ends_watches() {
    let Bench { store, cache, _dir } = bench(Limits::default());
    let mut stream = cache.watch(Scope::All, Start::Now, None).await.unwrap();
    // The cache holds the store too: end the store's watches as its own end does.
    store.close();
    assert!(matches!(timeout(PATIENCE, stream.next()).await.unwrap(), Some(Err(Error::Closed))));
    assert!(matches!(cache.list("/p/").await, Err(Error::Closed)));
}
