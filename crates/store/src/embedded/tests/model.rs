//! Random requests against a model: one map per revision.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::conformance::{commit, delete, put, when};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    Delete(u8),
    /// Put if the key is as the model says (or wrongly, as asked).
    Swap(u8, bool),
    /// One transaction over several keys.
    Many(Vec<(u8, Option<u16>)>),
    Compact,
    Reopen,
    Read {
        revision: u8,
        from: u8,
        to: u8,
        limit: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..8_u8;
    prop_oneof![
        6 => (key.clone(), 0..600_u16).prop_map(|(key, len)| Step::Put(key, len)),
        3 => key.clone().prop_map(Step::Delete),
        3 => (key.clone(), any::<bool>()).prop_map(|(key, right)| Step::Swap(key, right)),
        2 => prop::collection::btree_map(key.clone(), prop::option::of(0..600_u16), 1..5)
            .prop_map(|many| Step::Many(many.into_iter().collect())),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        4 => (any::<u8>(), key.clone(), key, 0..5_u8)
            .prop_map(|(revision, from, to, limit)| Step::Read { revision, from, to, limit }),
    ]
}

type State = BTreeMap<String, (Bytes, Revision, Revision)>;

#[derive(Default)]
struct Model {
    /// By revision, beginning with revision 1.
    states: Vec<State>,
}

impl Model {
    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn write(&mut self, writes: &[(String, Option<Bytes>)]) {
        let (mut next, revision) = (self.now().clone(), self.revision() + 1);
        for (key, value) in writes {
            match value {
                Some(value) => {
                    let created = next.get(key).map_or(revision, |(_, created, _)| *created);
                    next.insert(key.clone(), (value.clone(), created, revision));
                }
                None => _ = next.remove(key),
            }
        }
        if next != *self.now() {
            self.states.push(next);
        }
    }
}

fn name(key: u8) -> String {
    format!("/{key}")
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { snapshot_min_bytes: 3000, ..Options::default() };
    let mut store = Embedded::open(dir.path(), options()).unwrap();
    let mut model = Model { states: vec![State::new()] };
    let mut oldest = 1;
    for (index, step) in steps.iter().enumerate() {
        let value = |len: u16| Bytes::from(format!("{index}:{}", "x".repeat(len.into())));
        match step.clone() {
            Step::Put(key, len) => {
                let revision = commit(&store, put(&name(key), value(len))).await;
                model.write(&[(name(key), Some(value(len)))]);
                assert_eq!(revision, model.revision());
            }
            Step::Delete(key) => {
                let revision = commit(&store, delete(&name(key))).await;
                model.write(&[(name(key), None)]);
                assert_eq!(revision, model.revision());
            }
            Step::Swap(key, right) => {
                let known = model.now().get(&name(key)).map_or(0, |(_, _, modified)| *modified);
                let txn = when(put(&name(key), value(1)), &name(key), if right { known } else { known + 1 });
                match store.txn(txn).await.unwrap() {
                    Outcome::Committed(_) => {
                        assert!(right);
                        model.write(&[(name(key), Some(value(1)))]);
                    }
                    Outcome::Failed { current, .. } => {
                        assert!(!right);
                        assert_eq!(current[0].as_ref().map_or(0, |entry| entry.mod_revision), known);
                    }
                }
            }
            Step::Many(many) => {
                let writes: Vec<_> = many.iter().map(|(key, len)| (name(*key), len.map(value))).collect();
                let op = |(key, value): (String, Option<Bytes>)| match value {
                    Some(value) => Op::Put { key, value, lease: None },
                    None => Op::Delete { key },
                };
                let ops = writes.iter().cloned().map(op).collect();
                commit(&store, Txn { compare: Vec::new(), ops }).await;
                model.write(&writes);
            }
            Step::Compact => {
                store.compact(model.revision()).await.unwrap();
                oldest = store.inner.state.read().oldest;
            }
            Step::Reopen => {
                drop(store);
                store = Embedded::open(dir.path(), options()).unwrap();
                oldest = store.inner.state.read().oldest;
            }
            Step::Read { revision, from, to, limit } => {
                let revision = 1 + Revision::from(revision) % model.revision();
                let range = Range {
                    start: name(from),
                    end: Some(name(to)),
                    revision: Some(revision),
                    limit: limit.into(),
                    count_only: false,
                };
                let result = store.range(range).await;
                if revision < oldest {
                    assert!(matches!(result, Err(Error::Compacted { .. })), "{revision} of {oldest}: {result:?}");
                    continue;
                }
                let result = result.unwrap();
                let state = &model.states[revision as usize - 1];
                let expected: Vec<_> =
                    state.iter().filter(|(key, _)| **key >= name(from) && **key < name(to)).collect();
                assert_eq!(result.count, expected.len());
                let shown = if limit == 0 { expected.len() } else { expected.len().min(limit.into()) };
                assert_eq!(result.entries.len(), shown);
                for (entry, (key, (value, created, modified))) in result.entries.iter().zip(expected) {
                    let found = (&*entry.key, &entry.value, entry.create_revision, entry.mod_revision);
                    assert_eq!(found, (key.as_str(), value, *created, *modified));
                }
            }
        }
    }
    let (revision, _) = dump(&store).await;
    assert_eq!(revision, model.revision());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_with_history(steps in prop::collection::vec(step(), 1..120)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
