use std::fs;

use super::*;
use crate::conformance;

mod disk_full;
mod model;
mod recovery;

async fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(dir.path(), Options::default()).unwrap()
}

/// Everything in the store, as `key=value` at the store's revision.
async fn dump(store: &Embedded) -> (Revision, Vec<String>) {
    let all = store.range(Range::prefix("")).await.unwrap();
    let text = |entry: &crate::Entry| format!("{}={}", entry.key, entry.value.escape_ascii());
    (all.revision, all.entries.iter().map(text).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite() {
    let dirs = Mutex::new(Vec::new());
    conformance::all(async || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        dirs.lock().push(dir);
        store
    })
    .await;
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let error = Embedded::open(dir.path(), Options::default()).err().unwrap();
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    drop(store);
    open(&dir).await;
}

#[tokio::test]
async fn a_closed_store_answers_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let mut watch = store.watch("/", 1).await.unwrap();
    store.close();
    assert!(matches!(store.txn(conformance::put("/a", "1")).await, Err(Error::Closed)));
    assert!(matches!(watch.recv().await, Some(Err(Error::Closed))));
    assert!(matches!(store.watch("/", 1).await, Err(Error::Closed)));
}

#[tokio::test]
async fn history_is_bounded_by_bytes_and_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history_bytes: 100_000, ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    for _ in 0..300 {
        conformance::commit(&store, conformance::put("/a", vec![b'x'; 1000])).await;
    }
    // Each event counts with its replaced value and some overhead.
    let past = |revision| store.range(Range { revision: Some(revision), ..Range::key("/a") });
    assert!(past(301 - 60).await.is_ok());
    assert!(matches!(past(301 - 120).await, Err(Error::Compacted { .. })));
    let mut state = store.inner.state.write();
    let later = std::time::Instant::now() + Duration::from_secs(400);
    assert!(state.trim_due(Duration::from_secs(300)).is_some_and(|due| due < later));
    state.trim(later, Duration::from_secs(300), 100_000);
    assert_eq!((state.oldest, state.history_bytes()), (301, 0));
    assert_eq!(state.trim_due(Duration::from_secs(300)), None, "an idle store has nothing to wake up for");
}

#[tokio::test]
async fn a_small_update_writes_few_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { snapshot_min_bytes: 64 << 10, ..Options::default() };
    let metrics = options.metrics.clone();
    let store = Embedded::open(dir.path(), options).unwrap();
    const UPDATES: u64 = 1000;
    for round in 0..UPDATES {
        let key = format!("/registry/core/pods/default/web-{}", round % 20);
        conformance::commit(&store, conformance::put(&key, vec![b'x'; 1000])).await;
    }
    let each = metrics.written_bytes.get() / UPDATES;
    // Key, value, a frame's head, tags and numbers; snapshots of a state that is smaller than the log add a part.
    assert!(each < 1600, "{each} bytes for an update of 1,000");
    assert!(metrics.snapshots.get() > 0);
    assert!(store.size().await.unwrap() < 256 << 10, "old segments are removed");
}

/// Encrypts nothing but what is secret, and that badly.
struct Rot;

impl Transformer for Rot {
    fn seal<'a>(&self, key: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
        if !key.contains("secret") {
            return value.into();
        }
        value.iter().map(|byte| byte ^ 0x55).collect::<Vec<u8>>().into()
    }

    fn open<'a>(&self, key: &str, sealed: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        match self.seal(key, sealed) {
            plain if plain.contains(&b'?') => Err("wrong key".to_string()),
            plain => Ok(plain),
        }
    }
}

#[tokio::test]
async fn values_are_sealed_on_disk_and_plain_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { transformer: Some(Arc::new(Rot)), snapshot_min_bytes: 4096, ..Options::default() };
    for round in 0..3 {
        let store = Embedded::open(dir.path(), options.clone()).unwrap();
        for index in 0..20 {
            let value = format!("do not tell {}", "x".repeat(100));
            conformance::commit(&store, conformance::put(&format!("/secrets/{round}-{index}"), value)).await;
            conformance::commit(&store, conformance::put("/pods/a", "everyone may know ".repeat(20))).await;
        }
        let (_, all) = dump(&store).await;
        assert_eq!(all.len(), (round + 1) * 20 + 1);
        assert!(all.iter().skip(1).all(|entry| entry.contains("do not tell")), "{all:?}");
    }
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.iter().any(|path| path.to_string_lossy().contains("snapshot-")), "{files:?}");
    let holds = |text: &[u8]| {
        let in_file = |path| fs::read::<&PathBuf>(path).unwrap().windows(text.len()).any(|window| window == text);
        files.iter().any(in_file)
    };
    assert!(holds(b"everyone may know"));
    assert!(!holds(b"do not tell"));
    let store = Embedded::open(dir.path(), options.clone()).unwrap();
    conformance::commit(&store, conformance::put("/secrets/bad", "?")).await;
    drop(store);
    let error = Embedded::open(dir.path(), options).err().unwrap();
    assert!(error.to_string().contains("/secrets/bad: wrong key"), "{error}");
}
