//! Pods that wait for a node.
//!
//! ```text
//! active        most important first, then oldest: what the loop takes
//! back-off      failed a moment ago; active again at a time of its own
//! unschedulable refused; an event that one of the refusing plugins waits for moves it on
//! ```
//!
//! Invariant: a pod is in exactly one of the three or in the hands of the loop. Events that arrive while the loop holds
//! a pod count for it when it comes back.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    cluster::PodInfo,
    plugin::{Event, Plugin},
    plugins::PLUGINS,
};

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A refused pod is tried again after this long even when nothing happened that it waits for.
const RETRY_AFTER: Duration = Duration::from_secs(300);

/// Order of the active pods: priority, then age.
type Rank = (Reverse<i32>, Instant, u64);

#[derive(Default)]
struct State {
    active: BTreeMap<Rank, Arc<PodInfo>>,
    waiting: HashMap<String, Waiting>,
    /// When waiting pods move on by themselves.
    timers: BTreeSet<(Instant, String)>,
    /// Rank of each active pod, by UID.
    ranks: HashMap<String, Rank>,
    attempts: HashMap<String, u32>,
    in_hand: Option<(String, Vec<Event>)>,
    /// Gone or placed while the loop held it.
    dropped: bool,
    sequence: u64,
}

struct Waiting {
    pod: Arc<PodInfo>,
    at: Instant,
    /// `None`: backing off, nothing to wait for but time.
    refused_by: Option<BTreeSet<&'static str>>,
    backoff_until: Instant,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl State {
    fn activate(&mut self, pod: Arc<PodInfo>) {
        self.sequence += 1;
        let rank = (Reverse(pod.priority), Instant::now(), self.sequence);
        self.ranks.insert(pod.uid.clone(), rank);
        self.active.insert(rank, pod);
    }

    fn take_out(&mut self, uid: &str) -> bool {
        if let Some(rank) = self.ranks.remove(uid) {
            self.active.remove(&rank);
            return true;
        }
        match self.waiting.remove(uid) {
            Some(waiting) => self.timers.remove(&(waiting.at, uid.to_string())),
            None => false,
        }
    }

    fn wait(&mut self, pod: Arc<PodInfo>, refused_by: Option<BTreeSet<&'static str>>, backoff_until: Instant) {
        let at = if refused_by.is_some() { Instant::now() + RETRY_AFTER } else { backoff_until };
        self.timers.insert((at, pod.uid.clone()));
        self.waiting.insert(pod.uid.clone(), Waiting { pod, at, refused_by, backoff_until });
    }
}

fn wakes(refused_by: &BTreeSet<&'static str>, event: Event) -> bool {
    let refusing = |plugin: &&&dyn Plugin| refused_by.contains(plugin.name());
    PLUGINS.iter().filter(refusing).any(|plugin| plugin.wakes(event))
}

impl Queue {
    /// Takes in a new pod, or a changed one wherever it is: a change may make it schedulable.
    pub(crate) fn add(&self, pod: Arc<PodInfo>) {
        let mut state = self.state.lock();
        if state.in_hand.as_ref().is_some_and(|(uid, _)| *uid == pod.uid) {
            return;
        }
        state.take_out(&pod.uid);
        state.activate(pod);
        drop(state);
        self.changed.notify_one();
    }

    /// Refreshes a pod without moving it: nothing changed that scheduling looks at.
    pub(crate) fn refresh(&self, pod: Arc<PodInfo>) {
        let mut state = self.state.lock();
        if let Some(rank) = state.ranks.get(&pod.uid).copied() {
            state.active.insert(rank, pod);
        } else if let Some(waiting) = state.waiting.get_mut(&pod.uid) {
            waiting.pod = pod;
        }
    }

    /// The pod is gone, or placed.
    pub(crate) fn remove(&self, uid: &str) {
        let mut state = self.state.lock();
        state.take_out(uid);
        state.attempts.remove(uid);
        if state.in_hand.as_ref().is_some_and(|(held, _)| held == uid) {
            state.dropped = true;
        }
    }

    /// Something happened in the cluster: pods whose refusing plugins care are tried again, after their back-off.
    pub(crate) fn happened(&self, event: Event) {
        let mut state = self.state.lock();
        if let Some((_, events)) = &mut state.in_hand
            && !events.contains(&event)
        {
            events.push(event);
        }
        let woken: Vec<String> = state
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.refused_by.as_ref().is_some_and(|by| wakes(by, event)))
            .map(|(uid, _)| uid.clone())
            .collect();
        let now = Instant::now();
        for uid in &woken {
            if let Some(waiting) = state.waiting.remove(uid) {
                state.timers.remove(&(waiting.at, uid.clone()));
                if waiting.backoff_until <= now {
                    state.activate(waiting.pod);
                } else {
                    state.wait(waiting.pod, None, waiting.backoff_until);
                }
            }
        }
        drop(state);
        if !woken.is_empty() {
            self.changed.notify_one();
        }
    }

    /// The next pod; the caller gives it back with [`Queue::refused`], [`Queue::failed`] or [`Queue::placed`].
    pub(crate) async fn next(&self) -> Arc<PodInfo> {
        loop {
            let timer = {
                let mut state = self.state.lock();
                let now = Instant::now();
                while let Some((at, uid)) = state.timers.first().cloned().filter(|(at, _)| *at <= now) {
                    state.timers.remove(&(at, uid.clone()));
                    if let Some(waiting) = state.waiting.remove(&uid) {
                        state.activate(waiting.pod);
                    }
                }
                if let Some((_, pod)) = state.active.pop_first() {
                    state.ranks.remove(&pod.uid);
                    state.in_hand = Some((pod.uid.clone(), Vec::new()));
                    state.dropped = false;
                    *state.attempts.entry(pod.uid.clone()).or_default() += 1;
                    return pod;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match timer {
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// The pod that was in hand has a node.
    pub(crate) fn placed(&self, pod: &PodInfo) {
        let mut state = self.state.lock();
        state.in_hand = None;
        state.attempts.remove(&pod.uid);
    }

    /// No node fits: wait for an event that one of `plugins` cares about.
    pub(crate) fn refused(&self, pod: Arc<PodInfo>, plugins: BTreeSet<&'static str>) {
        self.give_back(pod, Some(plugins));
    }

    /// The attempt failed for another reason: try again after a back-off. Also for pods no longer in hand.
    pub(crate) fn failed(&self, pod: Arc<PodInfo>) {
        self.give_back(pod, None);
    }

    fn give_back(&self, pod: Arc<PodInfo>, refused_by: Option<BTreeSet<&'static str>>) {
        let mut state = self.state.lock();
        let held = state.in_hand.take_if(|(uid, _)| *uid == pod.uid);
        if held.is_some() && std::mem::take(&mut state.dropped) {
            state.attempts.remove(&pod.uid);
            return;
        }
        let attempts = *state.attempts.entry(pod.uid.clone()).or_insert(1);
        let backoff = BACKOFF_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(4)).min(BACKOFF_MAX);
        let until = Instant::now() + backoff;
        let missed = held.map(|(_, events)| events).unwrap_or_default();
        let refused_by = refused_by.filter(|by| !missed.iter().any(|event| wakes(by, *event)));
        state.wait(pod, refused_by, until);
        drop(state);
        self.changed.notify_one();
    }

    /// Pods by state: active, backing off, unschedulable.
    pub(crate) fn depths(&self) -> [usize; 3] {
        let state = self.state.lock();
        let refused = state.waiting.values().filter(|waiting| waiting.refused_by.is_some()).count();
        [state.active.len(), state.waiting.len() - refused, refused]
    }
}

#[cfg(test)]
mod tests;
