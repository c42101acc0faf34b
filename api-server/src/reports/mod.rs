//! What sidecars say that their pods have loaded.
//!
//! Kept in memory only, and gone with a restart: sidecars say it again as soon as the server answers (see
//! `sealpod_core::wire::consumers`). It is what callers say of themselves, so it decides nothing. Entries are found by
//! ids, so a renamed project keeps them; those of something that was deleted are never asked for, and age out.
//!
//! Whoever is over a limit makes room with its own oldest entry. Only who has none to give takes the place of the oldest
//! of all, so that no caller can push out the others by talking much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealpod_core::Time;
use sealpod_core::wire::consumers::REPORT_AGE_SECONDS;

use crate::audit::Actor;
use crate::ids::EnvironmentId;
use crate::store::Subject;

/// What one server keeps at most. A report of 20 keys takes some 1.3 KiB, so [`Bounds::bytes`] is room for
/// 25,000 pods.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Reports of one caller, in all environments, and what they take.
    pub per_caller: usize,
    pub bytes_per_caller: usize,
    /// Reports in one environment.
    pub per_environment: usize,
    /// What all reports together take.
    pub bytes: usize,
    /// How long a report is kept.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            per_caller: 1_000,
            bytes_per_caller: 4 * 1024 * 1024,
            per_environment: 10_000,
            bytes: 32 * 1024 * 1024,
            age: Duration::from_secs(REPORT_AGE_SECONDS),
        }
    }
}

/// What a report is about, and who makes it: nobody overwrites what another caller said of the same pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub environment: EnvironmentId,
    /// See [`crate::auth::Caller::identity`].
    pub caller: [u8; 16],
    pub namespace: Box<str>,
    pub pod: Box<str>,
}

#[derive(Debug, Clone)]
pub struct Report {
    pub place: Arc<Place>,
    pub actor: Arc<Actor>,
    /// Who has to belong to the organization still for the report to be shown; none for superadmins.
    pub subject: Option<Subject>,
    pub node: Box<str>,
    pub agent_version: Box<str>,
    /// A JSON object of version numbers by key: one block of memory, however many keys there are.
    loaded: Box<str>,
    /// When it was made, as people are told it.
    pub seen_at: Time,
    /// The same moment by the clock that nobody sets: what it ages by.
    seen: Instant,
}

/// Most of what a report takes beside its texts: its own fields, its places in four maps, and what the allocator adds.
const OVERHEAD: usize = 640;

impl Report {
    pub fn new(
        place: Place,
        (actor, subject): (Arc<Actor>, Option<Subject>),
        (node, agent_version): (String, String),
        versions: &BTreeMap<String, u64>,
        (seen_at, seen): (Time, Instant),
    ) -> Self {
        let loaded = serde_json::to_string(versions).expect("text and numbers are always JSON");
        Self {
            place: Arc::new(place),
            actor,
            subject,
            node: node.into(),
            agent_version: agent_version.into(),
            loaded: loaded.into(),
            seen_at,
            seen,
        }
    }

    /// Loaded versions by key, as JSON: equal where they are equal.
    pub fn loaded(&self) -> &str {
        &self.loaded
    }

    pub fn versions(&self) -> BTreeMap<String, u64> {
        serde_json::from_str(&self.loaded).expect("it was written as such a map")
    }

    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        let texts = [
            &*self.place.namespace,
            &*self.place.pod,
            &*self.actor.name,
            &*self.node,
            &*self.agent_version,
            &*self.loaded,
        ];
        OVERHEAD + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// The reports of one server; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Reports(Arc<Mutex<State>>);

impl Reports {
    #[cfg(test)]
    fn within(bounds: Bounds) -> Self {
        let state = State {
            bounds,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Keeps a report in the place of what the same caller said of the same pod before.
    pub fn put(&self, report: Report) {
        let mut state = self.at(report.seen);
        state.drop_at(&report.place);
        state.make_room(&report);
        state.keep(report);
    }

    /// Forgets what was said of a pod by the same caller, if anything was.
    pub fn withdraw(&self, place: &Place) {
        self.at(Instant::now()).drop_at(place);
    }

    /// What is known of an environment, in no order.
    pub fn of(&self, environment: EnvironmentId) -> Vec<Arc<Report>> {
        self.at(Instant::now()).of(environment)
    }

    /// How many reports there are, and what they take in bytes.
    pub fn size(&self) -> (usize, usize) {
        let state = self.at(Instant::now());
        (state.live.len(), state.bytes)
    }

    /// The state of that moment, without what is too old.
    fn at(&self, now: Instant) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic half way.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old(now);
        state
    }
}

/// Reports by a number that grows with each, and the numbers by what they are looked up by.
#[derive(Debug, Default)]
struct State {
    bounds: Bounds,
    next: u64,
    bytes: usize,
    /// Oldest first.
    live: BTreeMap<u64, Arc<Report>>,
    places: HashMap<Arc<Place>, u64>,
    callers: HashMap<[u8; 16], Share>,
    environments: HashMap<EnvironmentId, BTreeSet<u64>>,
}

/// What one caller has.
#[derive(Debug, Default)]
struct Share {
    numbers: BTreeSet<u64>,
    bytes: usize,
}

impl State {
    fn of(&self, environment: EnvironmentId) -> Vec<Arc<Report>> {
        let numbers = self.environments.get(&environment).into_iter().flatten();
        numbers.filter_map(|number| self.live.get(number)).cloned().collect()
    }

    fn keep(&mut self, report: Report) {
        let (number, bytes) = (self.next, report.bytes());
        self.next += 1;
        self.bytes += bytes;
        let place = &report.place;
        self.places.insert(Arc::clone(place), number);
        self.environments.entry(place.environment).or_default().insert(number);
        let share = self.callers.entry(place.caller).or_default();
        share.numbers.insert(number);
        share.bytes += bytes;
        self.live.insert(number, Arc::new(report));
    }

    fn forget(&mut self, number: u64) {
        let Some(report) = self.live.remove(&number) else {
            return;
        };
        let (place, bytes) = (&report.place, report.bytes());
        self.bytes -= bytes;
        self.places.remove(place);
        if let Some(numbers) = self.environments.get_mut(&place.environment) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.environments.remove(&place.environment);
            }
        }
        if let Some(share) = self.callers.get_mut(&place.caller) {
            share.numbers.remove(&number);
            share.bytes -= bytes;
            if share.numbers.is_empty() {
                self.callers.remove(&place.caller);
            }
        }
    }

    fn drop_at(&mut self, place: &Place) {
        if let Some(number) = self.places.get(place).copied() {
            self.forget(number);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((number, report)) = self.live.first_key_value()
            && now.saturating_duration_since(report.seen) >= self.bounds.age
        {
            let number = *number;
            self.forget(number);
        }
    }

    /// Forgets others until the report fits in.
    fn make_room(&mut self, report: &Report) {
        let (bounds, bytes) = (self.bounds, report.bytes());
        let (caller, environment) = (report.place.caller, report.place.environment);
        while let Some(share) = self.callers.get(&caller)
            && (share.numbers.len() >= bounds.per_caller || share.bytes + bytes > bounds.bytes_per_caller)
            && let Some(number) = share.numbers.first().copied()
        {
            self.forget(number);
        }
        while let Some(numbers) = self.environments.get(&environment)
            && numbers.len() >= bounds.per_environment
            && let Some(number) = self.oldest_of(caller, Some(environment)).or(numbers.first().copied())
        {
            self.forget(number);
        }
        while self.bytes + bytes > bounds.bytes
            && let Some(number) = self
                .oldest_of(caller, None)
                .or_else(|| self.live.keys().next().copied())
        {
            self.forget(number);
        }
    }

    /// The caller's own oldest report, in one environment or in all.
    fn oldest_of(&self, caller: [u8; 16], environment: Option<EnvironmentId>) -> Option<u64> {
        let is_there = |number: &&u64| {
            environment.is_none_or(|environment| {
                let report = self.live.get(number);
                report.is_some_and(|report| report.place.environment == environment)
            })
        };
        self.callers.get(&caller)?.numbers.iter().find(is_there).copied()
    }
}

#[cfg(test)]
mod tests;
