//! A disk without room, or with faults: nothing acknowledged is lost, nothing refused appears, writing resumes.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

use super::*;
use crate::conformance::{commit, put};

/// Takes what fits and refuses the rest of a write; can refuse to sync and to truncate.
struct Faulty {
    room: AtomicI64,
    syncs: AtomicBool,
    truncates: AtomicBool,
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self { room: i64::MAX.into(), syncs: true.into(), truncates: true.into() })
    }
}

impl disk::Disk for Faulty {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        let room = self.room.fetch_sub(bytes.len() as i64, Ordering::SeqCst);
        if room >= bytes.len() as i64 {
            return file.write_all(bytes);
        }
        self.room.store(0, Ordering::SeqCst);
        file.write_all(&bytes[..room.max(0) as usize])?;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if !self.syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("cable pulled"));
        }
        file.sync_data()
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        if !self.truncates.load(Ordering::SeqCst) {
            return Err(io::Error::other("cable pulled"));
        }
        file.set_len(len)
    }
}

fn open_on(dir: &tempfile::TempDir, disk: &Arc<Faulty>) -> Embedded {
    let options = Options { snapshot_min_bytes: 20_000, ..Options::default() };
    Embedded::open_on(dir.path(), options, disk.clone()).unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Faulty::new());
    let store = open_on(&dir, &disk);
    let mut expected = Vec::new();
    for round in 0..60 {
        // Room for some writes, a part of one, then none.
        disk.room.store([i64::MAX, 2500, 700, 3, 0][round % 5], Ordering::SeqCst);
        for index in 0..3 {
            let key = format!("/{round:03}-{index}");
            match store.txn(put(&key, vec![b'x'; 900])).await {
                Ok(Outcome::Committed(revision)) => expected.push((key, revision)),
                Err(Error::DiskFull) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    disk.room.store(i64::MAX, Ordering::SeqCst);
    expected.push(("/z".to_string(), commit(&store, put("/z", "x")).await));
    assert!(expected.len() > 60 && expected.len() < 160, "{}", expected.len());
    for _ in 0..2 {
        let found = store.range(Range::prefix("/")).await.unwrap();
        let found: Vec<_> = found.entries.iter().map(|entry| (entry.key.to_string(), entry.mod_revision)).collect();
        assert_eq!(found, expected);
    }
    drop(store);
    let (revision, all) = dump(&open(&dir).await).await;
    assert_eq!((revision, all.len()), (expected.len() as u64 + 1, expected.len()));
}

#[tokio::test]
async fn a_failed_sync_is_undone_before_the_next_write() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Faulty::new());
    let store = open_on(&dir, &disk);
    commit(&store, put("/a", "1")).await;
    disk.syncs.store(false, Ordering::SeqCst);
    for truncates in [true, false, true] {
        disk.truncates.store(truncates, Ordering::SeqCst);
        assert!(matches!(store.txn(put("/a", "2")).await, Err(Error::Backend(_))));
        assert_eq!(dump(&store).await.1, ["/a=1"], "what failed is not visible");
    }
    disk.syncs.store(true, Ordering::SeqCst);
    commit(&store, put("/b", "1")).await;
    drop(store);
    assert_eq!(dump(&open(&dir).await).await.1, ["/a=1", "/b=1"]);
}
