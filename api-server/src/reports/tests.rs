use proptest::prelude::*;

use super::*;
use crate::audit::ActorKind;

const MINUTE: Duration = Duration::from_mins(1);

fn environment(n: u128) -> EnvironmentId {
    EnvironmentId(uuid::Uuid::from_u128(n))
}

/// Caller `caller` of pod `pod` in environment `at`, with a version of one key.
fn report(at: u128, caller: u8, pod: &str, version: u64, seen: Instant) -> Report {
    let place = Place {
        environment: environment(at),
        caller: [caller; 16],
        namespace: "shop".into(),
        pod: pod.into(),
    };
    let actor = Actor {
        kind: ActorKind::ServiceAccount,
        id: None,
        name: "ci".to_owned(),
    };
    let versions = BTreeMap::from([("db".to_owned(), version)]);
    let node = ("node-1".to_owned(), "0.1.0".to_owned());
    Report::new(place, (actor.into(), None), node, &versions, (Time::now(), seen))
}

/// Caller and pod of everything that is known of an environment, in order.
fn known(reports: &Reports, at: u128) -> Vec<(u8, String)> {
    let mut known: Vec<_> = reports
        .of(environment(at))
        .iter()
        .map(|report| (report.place.caller[0], report.place.pod.to_string()))
        .collect();
    known.sort();
    known
}

fn pods(caller: u8, names: &[&str]) -> Vec<(u8, String)> {
    names.iter().map(|name| (caller, (*name).to_owned())).collect()
}

fn consistent(state: &State) {
    assert_eq!(state.places.len(), state.live.len());
    assert_eq!(
        state.bytes,
        state.live.values().map(|report| report.bytes()).sum::<usize>()
    );
    let of_callers: usize = state.callers.values().map(|share| share.numbers.len()).sum();
    let of_environments: usize = state.environments.values().map(BTreeSet::len).sum();
    assert_eq!((of_callers, of_environments), (state.live.len(), state.live.len()));
    assert_eq!(
        state.bytes,
        state.callers.values().map(|share| share.bytes).sum::<usize>()
    );
    assert!(state.callers.values().all(|share| !share.numbers.is_empty()));
    assert!(state.environments.values().all(|numbers| !numbers.is_empty()));
}

#[test]
fn a_pod_is_known_once_by_what_was_said_last() {
    let (reports, now) = (Reports::default(), Instant::now());
    reports.put(report(1, 1, "a", 1, now));
    reports.put(report(1, 1, "a", 2, now));
    let found = reports.of(environment(1));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].versions(), BTreeMap::from([("db".to_owned(), 2)]));
    assert!(reports.of(environment(2)).is_empty());
}

#[test]
fn nobody_overwrites_or_takes_back_what_another_caller_said() {
    let (reports, now) = (Reports::default(), Instant::now());
    reports.put(report(1, 1, "a", 1, now));
    reports.put(report(1, 2, "a", 9, now));
    assert_eq!(known(&reports, 1), [(1, "a".to_owned()), (2, "a".to_owned())]);
    reports.withdraw(&report(1, 2, "a", 9, now).place);
    reports.withdraw(&report(2, 1, "a", 9, now).place);
    assert_eq!(known(&reports, 1), pods(1, &["a"]));
}

#[test]
fn what_is_not_said_again_is_forgotten() {
    let (reports, start) = (Reports::default(), Instant::now());
    reports.put(report(1, 1, "a", 1, start));
    reports.put(report(1, 1, "b", 1, start));
    reports.put(report(1, 1, "b", 1, start + 10 * MINUTE));
    reports.put(report(1, 1, "c", 1, start + 15 * MINUTE));
    let state = reports.at(start + 15 * MINUTE);
    assert_eq!(state.of(environment(1)).len(), 2, "a is 15 minutes old");
    drop(state);
    let state = reports.at(start + 30 * MINUTE);
    assert!(state.live.is_empty() && state.bytes == 0);
    consistent(&state);
}

#[test]
fn a_caller_over_its_share_makes_room_with_its_own_oldest() {
    let (now, bounds) = (Instant::now(), Bounds::default());
    let reports = Reports::within(Bounds {
        per_caller: 2,
        ..bounds
    });
    reports.put(report(1, 2, "other", 1, now));
    reports.put(report(1, 1, "a", 1, now));
    reports.put(report(2, 1, "b", 1, now));
    reports.put(report(1, 1, "a", 2, now));
    reports.put(report(1, 1, "c", 1, now));
    assert!(known(&reports, 2).is_empty(), "a was said again, so b was the oldest");
    assert_eq!(known(&reports, 1), [pods(1, &["a", "c"]), pods(2, &["other"])].concat());

    let one = report(1, 1, "a", 1, now).bytes();
    let reports = Reports::within(Bounds {
        bytes_per_caller: 2 * one,
        ..bounds
    });
    for pod in ["a", "b", "c"] {
        reports.put(report(1, 1, pod, 1, now));
        reports.put(report(1, 2, pod, 1, now));
    }
    assert_eq!(
        known(&reports, 1),
        [pods(1, &["b", "c"]), pods(2, &["b", "c"])].concat()
    );
}

#[test]
fn a_full_environment_takes_from_those_who_have_before_it_takes_from_others() {
    let now = Instant::now();
    let reports = Reports::within(Bounds {
        per_environment: 3,
        ..Bounds::default()
    });
    reports.put(report(1, 1, "quiet", 1, now));
    reports.put(report(2, 2, "elsewhere", 1, now));
    for pod in ["a", "b", "c", "d", "e"] {
        reports.put(report(1, 2, pod, 1, now));
    }
    assert_eq!(
        known(&reports, 1),
        [pods(1, &["quiet"]), pods(2, &["d", "e"])].concat(),
        "however much one says, the other keeps what it said"
    );
    reports.put(report(1, 3, "new", 1, now));
    assert_eq!(known(&reports, 1), [pods(2, &["d", "e"]), pods(3, &["new"])].concat());
    assert_eq!(known(&reports, 2), pods(2, &["elsewhere"]));
}

#[test]
fn all_reports_together_take_a_bounded_memory() {
    let now = Instant::now();
    let one = report(1, 1, "a", 1, now).bytes();
    let reports = Reports::within(Bounds {
        bytes: 4 * one,
        ..Bounds::default()
    });
    for n in 0..4 {
        reports.put(report(u128::from(n), n, "a", 1, now));
    }
    for pod in ["b", "c", "d"] {
        reports.put(report(9, 9, pod, 1, now));
    }
    assert!(known(&reports, 0).is_empty(), "the oldest made room for a newcomer");
    assert_eq!(known(&reports, 9), pods(9, &["d"]), "who then takes from itself");
    assert_eq!(reports.size(), (4, 4 * one));
}

#[test]
fn the_largest_report_fits_into_what_one_caller_may_take() {
    use sealpod_core::names::{MAX_ACCOUNT_NAME, MAX_DNS_NAME, MAX_LABEL, MAX_PROGRAM_VERSION};
    use sealpod_core::wire::consumers::MAX_REPORT_BYTES;
    // Each character of a name has at most 4 bytes; JSON as we write it is no longer than JSON as anybody may.
    let texts = 2 * MAX_DNS_NAME + MAX_LABEL + MAX_PROGRAM_VERSION + 4 * MAX_ACCOUNT_NAME;
    let (largest, bounds) = (OVERHEAD + texts + MAX_REPORT_BYTES, Bounds::default());
    assert!(10 * largest < bounds.bytes_per_caller && bounds.bytes_per_caller < bounds.bytes);
}

proptest! {
    /// Whatever is said in whatever order, no bound is broken and no map forgets what another one knows.
    #[test]
    fn the_bounds_hold_whatever_is_said(
        steps in prop::collection::vec((0..3_u128, 0..4_u8, 0..6_u8, any::<bool>(), 0..30_u64), 0..200),
    ) {
        let mut now = Instant::now();
        let one = report(1, 1, "0", 1, now).bytes();
        let bounds = Bounds {
            per_caller: 4, bytes_per_caller: 5 * one, per_environment: 5, bytes: 9 * one, age: Duration::from_mins(3),
        };
        let reports = Reports::within(bounds);
        for (at, caller, pod, is_said, seconds) in steps {
            now += Duration::from_secs(seconds);
            let said = report(at, caller, &pod.to_string(), u64::from(pod) + 1, now);
            let place = Arc::clone(&said.place);
            if is_said {
                reports.put(said);
            } else {
                reports.at(now).drop_at(&place);
            }
            let state = reports.at(now);
            consistent(&state);
            prop_assert_eq!(state.places.contains_key(&place), is_said);
            prop_assert!(state.bytes <= bounds.bytes);
            let is_within = |share: &Share| {
                share.numbers.len() <= bounds.per_caller && share.bytes <= bounds.bytes_per_caller
            };
            prop_assert!(state.callers.values().all(is_within));
            prop_assert!(state.environments.values().all(|numbers| numbers.len() <= bounds.per_environment));
            prop_assert!(state.live.values().all(|report| now - report.seen < bounds.age));
        }
    }
}
