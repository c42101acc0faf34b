//! Controllers that have lost a pod, and whether another one may go: pure.

use std::collections::{HashMap, HashSet, VecDeque};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::NEW;
use super::judge::Without;

/// For how long a controller is remembered that has no pods without injection: its next one may be made without it.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);
/// Pods of one controller that are looked at, those that were heard of last: one that becomes ready is heard of.
const MOST_NEXT: usize = 5;

/// What each controller has made since it lost a pod.
#[derive(Debug, Default)]
pub struct Evicted(HashMap<String, Lost>);

#[derive(Debug)]
struct Lost {
    at: Timestamp,
    /// When it had a pod without injection last.
    seen: Timestamp,
    /// UIDs of pods that stood for an eviction before, and so not for this one.
    before: Vec<String>,
    next: VecDeque<Next>,
    /// Whether one of them was seen ready.
    helped: bool,
}

/// A pod that was made with injection since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

impl Evicted {
    /// Whether it may help. Of a controller one pod goes, and another when the next was seen ready with injection: else
    /// what refuses that one, keeps it from starting, or makes it as the one before, would cost the controller every pod
    /// that it has.
    pub fn helps(&self, pod: &Without) -> bool {
        let controller = pod.controller.as_ref();
        controller.is_some_and(|controller| self.0.get(controller).is_none_or(|lost| lost.helped))
    }

    pub fn note(&mut self, pod: &Without, now: Timestamp) {
        let Some(controller) = &pod.controller else { return };
        let before = self.0.remove(controller).into_iter().flat_map(|lost| lost.next);
        let lost = Lost {
            at: now,
            seen: now,
            before: before.map(|next| next.uid).collect(),
            next: VecDeque::new(),
            helped: false,
        };
        self.0.insert(controller.clone(), lost);
    }

    /// A pod of this controller has our annotation. One that was made before says nothing of the next, unless it was a
    /// moment before: times of pods are in whole seconds, and of another clock.
    pub fn injected(&mut self, controller: &str, made: Timestamp, next: Next) {
        let Some(lost) = self.0.get_mut(controller) else { return };
        let is_new = made.duration_since(lost.at) > -NEW && !lost.before.contains(&next.uid);
        if lost.helped || !is_new {
            return;
        }
        lost.next.retain(|known| known.uid != next.uid);
        lost.next.push_back(next);
        if lost.next.len() > MOST_NEXT {
            lost.next.pop_front();
        }
    }

    /// Pods that have to become ready before another one of their controllers goes, of these controllers.
    pub fn awaited(&self, of: &HashSet<String>) -> Vec<(String, Next)> {
        let lost = of
            .iter()
            .filter_map(|controller| Some((controller, self.0.get(controller)?)));
        let lost = lost.filter(|(_, lost)| !lost.helped);
        lost.flat_map(|(controller, lost)| lost.next.iter().map(|next| (controller.clone(), next.clone())))
            .collect()
    }

    /// A pod of this controller is ready.
    pub fn helped(&mut self, controller: &str) {
        if let Some(lost) = self.0.get_mut(controller) {
            lost.helped = true;
        }
    }

    /// It will never be ready.
    pub fn gone(&mut self, controller: &str, uid: &str) {
        if let Some(lost) = self.0.get_mut(controller) {
            lost.next.retain(|next| next.uid != uid);
        }
    }

    /// Forgets what has no pods without injection any more but `present`, after a while.
    pub fn forget(&mut self, present: &HashSet<String>, now: Timestamp) {
        self.0.retain(|controller, lost| {
            if present.contains(controller) {
                lost.seen = now;
            }
            now.duration_since(lost.seen).abs() < REMEMBERED
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(controller: &str) -> Without {
        Without {
            controller: Some(controller.to_owned()),
        }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn next(uid: &str) -> Next {
        Next {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: uid.to_owned(),
        }
    }

    fn all() -> HashSet<String> {
        HashSet::from(["rs".to_owned()])
    }

    fn awaited(evicted: &Evicted) -> Vec<String> {
        let awaited = evicted.awaited(&all());
        awaited.into_iter().map(|(_, next)| next.uid).collect()
    }

    #[test]
    fn a_controller_whose_new_pods_are_no_better_loses_no_more_as_long_as_it_has_some() {
        let (mut evicted, now) = (Evicted::default(), at("2026-01-02T00:00:00Z"));
        evicted.note(&of("rs"), now);
        assert!(!evicted.helps(&of("rs")), "its old siblings wait for the next");
        assert!(evicted.helps(&of("other")));
        for hour in 0..100 {
            evicted.forget(&all(), now + SignedDuration::from_hours(hour));
            assert!(!evicted.helps(&of("rs")), "{hour}");
        }
    }

    #[test]
    fn a_controller_whose_new_pod_is_ready_is_not_kept() {
        let (mut evicted, now) = (Evicted::default(), at("2026-01-02T00:00:00Z"));
        evicted.note(&of("rs"), now);
        evicted.injected("rs", at("2026-01-01T23:00:00Z"), next("old"));
        evicted.injected("other", at("2026-01-02T00:05:00Z"), next("theirs"));
        assert_eq!(awaited(&evicted), [""; 0], "an older pod says nothing of the next");
        evicted.injected("rs", at("2026-01-02T00:05:00Z"), next("one"));
        assert_eq!(awaited(&evicted), ["one"]);
        assert!(!evicted.helps(&of("rs")), "it may never start");
        evicted.helped("rs");
        assert!(evicted.helps(&of("rs")) && awaited(&evicted).is_empty());
        // Each stands for one.
        evicted.note(&of("rs"), at("2026-01-02T00:05:30Z"));
        evicted.injected("rs", at("2026-01-02T00:05:00Z"), next("one"));
        assert!(!evicted.helps(&of("rs")) && awaited(&evicted).is_empty());
        evicted.injected("rs", at("2026-01-02T00:05:31Z"), next("two"));
        assert_eq!(awaited(&evicted), ["two"]);
        evicted.gone("rs", "two");
        assert!(awaited(&evicted).is_empty());
    }

    #[test]
    fn the_next_pod_is_known_though_its_time_has_no_fractions_and_is_of_another_clock() {
        for made in ["2026-01-02T00:00:00Z", "2026-01-01T23:59:57Z"] {
            let mut evicted = Evicted::default();
            evicted.note(&of("rs"), at("2026-01-02T00:00:00.9Z"));
            evicted.injected("rs", at(made), next("one"));
            assert_eq!(awaited(&evicted), ["one"], "{made}");
        }
    }

    #[test]
    fn of_many_new_pods_those_are_looked_at_that_were_heard_of_last() {
        let (mut evicted, now) = (Evicted::default(), at("2026-01-02T00:00:00Z"));
        evicted.note(&of("rs"), now);
        for uid in ["1", "2", "3", "4", "5", "1", "6"] {
            evicted.injected("rs", now, next(uid));
        }
        assert_eq!(awaited(&evicted), ["3", "4", "5", "1", "6"]);
    }

    #[test]
    fn of_controllers_that_have_no_pods_for_an_hour_nothing_is_kept() {
        let (mut evicted, start) = (Evicted::default(), at("2026-01-02T00:00:00Z"));
        for minute in 0..300 {
            let now = start + SignedDuration::from_mins(minute);
            evicted.note(&of(&minute.to_string()), now);
            evicted.forget(&HashSet::from(["0".to_owned()]), now);
        }
        assert_eq!(evicted.0.len(), 61, "of one there are some");
    }
}
