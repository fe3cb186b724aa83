//! Who has an address and port when several Services want it (external addresses can be given twice): the first one,
//! until it lets go.

use std::collections::{BTreeSet, HashMap};

use client::Key;

use super::model::Desired;

#[derive(Default)]
pub(super) struct Claims {
    owner: HashMap<String, Key>,
    owned: HashMap<Key, BTreeSet<String>>,
    waiting: HashMap<String, BTreeSet<Key>>,
}

impl Claims {
    /// Takes out of `desired` what others have. Gives the Services that waited for what this one has let go of.
    pub(super) fn settle(&mut self, key: &Key, desired: &mut Desired) -> BTreeSet<Key> {
        let wanted = desired.places();
        let mut freed = BTreeSet::new();
        for place in self.owned.remove(key).unwrap_or_default().difference(&wanted) {
            self.owner.remove(place);
            freed.extend(self.waiting.remove(place).into_iter().flatten());
        }
        let mut own = BTreeSet::new();
        for place in wanted {
            match self.owner.get(&place) {
                Some(owner) if owner != key => {
                    tracing::warn!(service = %key, %owner, place, "another Service has this address and port");
                    desired.give_up(&place);
                    self.waiting.entry(place).or_default().insert(key.clone());
                }
                _ => {
                    self.owner.insert(place.clone(), key.clone());
                    own.insert(place);
                }
            }
        }
        if !own.is_empty() {
            self.owned.insert(key.clone(), own);
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(places: &[&str]) -> Desired {
        let mut desired = Desired::default();
        for place in places {
            desired.services.insert((*place).into(), "ep-1".into());
            desired.endpoints.insert(format!("{place} . 0"), "10.42.0.2 . 80".into());
        }
        desired
    }

    #[test]
    fn the_first_has_it_until_it_lets_go() {
        let (a, b) = (Key::new("n", "a"), Key::new("n", "b"));
        let mut claims = Claims::default();
        assert!(claims.settle(&b, &mut wants(&["x", "shared"])).is_empty());
        let mut second = wants(&["y", "shared"]);
        assert!(claims.settle(&a, &mut second).is_empty());
        assert_eq!(second, wants(&["y"]));
        assert_eq!(claims.settle(&b, &mut wants(&["x"])), [a.clone()].into());
        let mut again = wants(&["y", "shared"]);
        assert!(claims.settle(&a, &mut again).is_empty());
        assert_eq!(again, wants(&["y", "shared"]));
        assert!(claims.settle(&a, &mut Desired::default()).is_empty());
        assert!(claims.owner.values().all(|owner| *owner == b));
    }
}
