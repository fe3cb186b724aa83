//! What is found again after an end of any kind.

use std::{fs, io::Write};

use super::{super::log::segment_path, *};
use crate::conformance::{commit, delete, put};

#[tokio::test]
async fn state_and_history_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let first = commit(&store, put("/a", "1")).await;
    let second = commit(&store, put("/a", "2")).await;
    commit(&store, put("/b", "1")).await;
    commit(&store, delete("/b")).await;
    let before = dump(&store).await;
    drop(store);
    let store = open(&dir).await;
    assert_eq!(dump(&store).await, before);
    let entry = store.range(Range::key("/a")).await.unwrap().entries.remove(0);
    assert_eq!((entry.create_revision, entry.mod_revision), (first, second));
    let past = store.range(Range { revision: Some(first), ..Range::key("/a") }).await.unwrap();
    assert_eq!(past.entries[0].value, "1");
    let mut watch = store.watch("/", first).await.unwrap();
    assert_eq!(conformance::events(&mut watch, 3).await.len(), 3, "a watch goes on where it was");
}

#[tokio::test]
async fn leases_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { snapshot_min_bytes: 2000, ..Options::default() };
    let store = Embedded::open(dir.path(), options()).unwrap();
    let kept = store.grant(Duration::from_secs(100)).await.unwrap();
    let gone = store.grant(Duration::from_secs(100)).await.unwrap();
    for lease in [kept, gone] {
        let op = Op::Put { key: format!("/{lease}"), value: "x".into(), lease: Some(lease) };
        commit(&store, Txn { compare: Vec::new(), ops: vec![op] }).await;
    }
    store.revoke(gone).await.unwrap();
    drop(store);
    for _ in 0..2 {
        let store = Embedded::open(dir.path(), options()).unwrap();
        assert!(matches!(store.keep_alive(gone).await, Err(Error::NoSuchLease(_))));
        {
            let state = store.inner.state.read();
            assert_eq!(state.leases.keys(kept), ["/1".into()]);
            let lease = state.leases.get(kept).unwrap();
            assert_eq!(lease.ttl, Duration::from_secs(100));
            let remaining = lease.expires - std::time::Instant::now();
            assert!(remaining > Duration::from_secs(50) && remaining <= lease.ttl, "{remaining:?}");
        }
        // The second round finds the lease in a snapshot.
        commit(&store, put("/large", vec![b'x'; 4000])).await;
        commit(&store, put("/large", vec![b'x'; 4000])).await;
        commit(&store, put("/large", vec![b'x'; 4000])).await;
    }
    let store = Embedded::open(dir.path(), options()).unwrap();
    assert!(store.grant(Duration::from_secs(1)).await.unwrap() > gone, "ids are never given twice");
    store.revoke(kept).await.unwrap();
    assert!(store.range(Range::key("/1")).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_log_cut_anywhere_gives_a_prefix_of_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let segment = segment_path(dir.path(), 1);
    let mut states = vec![(fs::metadata(&segment).unwrap().len(), dump(&store).await)];
    for round in 0..12 {
        let key = format!("/{}", round % 3);
        commit(&store, if round % 4 == 3 { delete(&key) } else { put(&key, format!("v{round}")) }).await;
        states.push((fs::metadata(&segment).unwrap().len(), dump(&store).await));
    }
    drop(store);
    let whole = fs::read(&segment).unwrap();
    for len in 0..=whole.len() {
        let garbage: &[u8] = if len % 2 == 0 { b"" } else { b"\x05\0\0\0garbage" };
        let other = tempfile::tempdir().unwrap();
        let cut = [&whole[..len], if len < 8 { b"" } else { garbage }].concat();
        fs::write(segment_path(other.path(), 1), cut).unwrap();
        let store = open(&other).await;
        let expected = states.iter().rev().find(|(end, _)| *end <= len as u64).unwrap_or(&states[0]);
        assert_eq!(dump(&store).await, expected.1, "cut at {len}");
        // The end is clean again: what is written now is found after the next start.
        let revision = commit(&store, put("/new", "x")).await;
        drop(store);
        let (found, all) = dump(&open(&other).await).await;
        assert_eq!((found, all.last().map(String::as_str)), (revision, Some("/new=x")), "cut at {len}");
    }
}

#[tokio::test]
async fn damage_before_the_end_is_an_error_that_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for round in 0..5 {
        commit(&store, put("/a", format!("value {round}"))).await;
    }
    drop(store);
    let segment = segment_path(dir.path(), 1);
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let error = Embedded::open(dir.path(), Options::default()).err().unwrap().to_string();
    assert!(error.contains("is damaged at byte") && error.contains("restore the data directory"), "{error}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
    fs::write(&segment, b"something else").unwrap();
    let error = Embedded::open(dir.path(), Options::default()).err().unwrap().to_string();
    assert!(error.contains("does not begin like a log segment"), "{error}");
}

#[tokio::test]
async fn snapshots_replace_the_log_and_leftovers_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { snapshot_min_bytes: 10_000, ..Options::default() };
    let store = Embedded::open(dir.path(), options()).unwrap();
    for round in 0..200 {
        commit(&store, put(&format!("/{}", round % 10), vec![b'a' + (round % 26) as u8; 500])).await;
    }
    let before = dump(&store).await;
    drop(store);
    // A snapshot may have been under way: what it had not yet removed goes when the store is opened.
    drop(Embedded::open(dir.path(), options()).unwrap());
    let names = || {
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let files = names();
    assert!(files.len() <= 4, "lock, snapshot, one or two segments: {files:?}");
    let snapshot = files.iter().find(|name| name.starts_with("snapshot-")).unwrap().clone();
    File::create(dir.path().join("snapshot-00000000000000ff.tmp")).unwrap().write_all(b"unfinished").unwrap();
    fs::write(segment_path(dir.path(), 0), b"left behind").unwrap();
    let store = Embedded::open(dir.path(), options()).unwrap();
    assert_eq!(dump(&store).await, before);
    drop(store);
    assert_eq!(names(), files);
    let path = dir.path().join(&snapshot);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = Embedded::open(dir.path(), options()).err().unwrap().to_string();
    assert!(error.contains(&snapshot) && error.contains("checksum"), "{error}");
    bytes[middle] ^= 1;
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(Embedded::open(dir.path(), options()).is_err());
    fs::write(&path, &bytes).unwrap();
    assert_eq!(dump(&Embedded::open(dir.path(), options()).unwrap()).await, before);
    let segment = files.iter().find(|name| name.starts_with("log-")).unwrap();
    fs::remove_file(dir.path().join(segment)).unwrap();
    let error = Embedded::open(dir.path(), options()).err().unwrap().to_string();
    assert!(error.contains("is missing"), "{error}");
}
