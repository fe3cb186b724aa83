//! A writer process is killed hundreds of times under load; whatever it was told to be durable must be there.
//!
//! The test starts its own binary again, with a data directory in the environment, as the writer. Each of its tasks
//! counts: operation `n` of task `w` writes or deletes one key and, in the same transaction, `/w/n`. What it prints is
//! acknowledged. After a kill the state must be exactly that of `n` operations, the last acknowledged one or the one
//! that was under way.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use navarch_store::{Embedded, Op, Outcome, Range, Store, Txn, embedded::Options};

const DIR: &str = "NAVARCH_STORE_CRASH_TEST_DIR";
const WRITERS: usize = 8;
const KILLS: u64 = 250;

fn options() -> Options {
    // Small, so that snapshots and rotations happen all the time.
    Options { snapshot_min_bytes: 30_000, ..Options::default() }
}

fn value(n: u64) -> String {
    format!("{n} {}", "x".repeat((n % 50 * 20) as usize))
}

fn operation(writer: usize, n: u64) -> Vec<Op> {
    let key = format!("/{writer}/key-{}", n % 5);
    let write = match n % 7 {
        0 => Op::Delete { key },
        _ => Op::Put { key, value: value(n).into(), lease: None },
    };
    vec![write, Op::Put { key: format!("/{writer}/n"), value: n.to_string().into(), lease: None }]
}

/// A writer's keys after `n` operations.
fn expected(writer: usize, n: u64) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    // Only the last few operations on each of five keys matter.
    for op in (n.saturating_sub(80).max(1)..=n).flat_map(|n| operation(writer, n)) {
        match op {
            Op::Put { key, value, .. } => _ = state.insert(key, String::from_utf8(value.to_vec()).unwrap()),
            Op::Delete { key } => _ = state.remove(&key),
        }
    }
    state
}

async fn state(store: &Embedded, writer: usize) -> BTreeMap<String, String> {
    let found = store.range(Range::prefix(format!("/{writer}/"))).await.unwrap();
    let text = |entry: navarch_store::Entry| (entry.key.to_string(), String::from_utf8(entry.value.to_vec()).unwrap());
    found.entries.into_iter().map(text).collect()
}

fn count(state: &BTreeMap<String, String>, writer: usize) -> u64 {
    state.get(&format!("/{writer}/n")).map_or(0, |n| n.parse().unwrap())
}

#[tokio::main]
async fn write(dir: PathBuf) {
    let store = Embedded::open(dir, options()).unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut n = count(&state(&store, writer).await, writer);
            loop {
                n += 1;
                let txn = Txn { compare: Vec::new(), ops: operation(writer, n) };
                let Outcome::Committed(revision) = store.txn(txn).await.unwrap() else { panic!("no comparison") };
                println!("ack {writer} {n} {revision}");
            }
        })
    });
    // Only a failure ends one.
    futures::future::select_all(writers).await.0.unwrap();
}

/// Kills a writer once it has acknowledged `enough` operations. Returns all that it acknowledged: the last operation of
/// each writer, and the last revision.
fn run_and_kill(dir: &Path, enough: u64) -> (BTreeMap<usize, u64>, u64) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "no_acknowledged_write_is_lost", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (mut acknowledged, mut last, mut seen) = (BTreeMap::new(), 0, 0);
    if enough == 0 {
        child.kill().unwrap();
    }
    for line in output.lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        // The last line may be cut: `ack 1 23 4`. A cut number is smaller, which asks for less.
        if let ["ack", writer, n, revision] = words[..]
            && let (Ok(writer), Ok(n), Ok(revision)) = (writer.parse(), n.parse(), revision.parse::<u64>())
        {
            acknowledged.insert(writer, n);
            last = last.max(revision);
            seen += 1;
            if seen == enough {
                child.kill().unwrap();
            }
        }
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the writer ended by itself: {status}");
    (acknowledged, last)
}

#[test]
fn no_acknowledged_write_is_lost() {
    if let Ok(dir) = env::var(DIR) {
        return write(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut known: BTreeMap<usize, u64> = BTreeMap::new();
    let mut total = 0;
    for kill in 0..KILLS {
        let (acknowledged, last_revision) = run_and_kill(dir.path(), kill * 7919 % 150);
        let store = Embedded::open(dir.path(), options()).unwrap();
        runtime.block_on(async {
            let revision = store.revision().await.unwrap();
            assert!(revision >= last_revision, "kill {kill}: revision {revision}, acknowledged {last_revision}");
            for writer in 0..WRITERS {
                let least = acknowledged.get(&writer).or(known.get(&writer)).copied().unwrap_or_default();
                let found = state(&store, writer).await;
                let n = count(&found, writer);
                assert!(n == least || n == least + 1, "kill {kill}, writer {writer}: {n}, acknowledged {least}");
                assert_eq!(found, expected(writer, n), "kill {kill}, writer {writer} after {n} operations");
                known.insert(writer, n);
            }
        });
        total = known.values().sum();
    }
    assert!(total > KILLS * WRITERS as u64, "the writers hardly ran: {total} operations");
}
