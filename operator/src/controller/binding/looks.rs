//! When a binding that has all it needs is looked at again without anybody telling: pure.

use std::time::Duration;

use sealpod_core::Time;
use sealpod_crds::{NextChange, PodCounts};

use crate::controller::retries::Again;

/// Soonest and latest look at what pods have loaded, which nothing tells of.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_mins(5);
/// How long Kubernetes may have become willing before anybody looks: nothing tells that a Secret of somebody else is
/// gone, or that a quota or a right has changed.
const WILLING_SEEN_WITHIN: Duration = Duration::from_mins(2);
/// Of whatever the clock says.
const NEVER_SOONER: Duration = Duration::from_secs(1);

/// What the clock, or a pod, will change.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    pub rotated_at: Time,
    pub rotate_every: Duration,
    /// When a version begins or ends.
    pub next_change_at: Option<Time>,
    pub pods: Option<PodCounts>,
    /// How long neither versions nor pods have changed.
    pub unchanged_for: Duration,
    /// Whether something that Kubernetes does not let be made is waited for.
    pub awaits_kubernetes: bool,
}

pub fn next(pending: Pending, now: Time) -> Again {
    let since = |early: Time, late: Time| {
        let microseconds = late.microseconds().saturating_sub(early.microseconds());
        Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
    };
    let rotation = pending.rotate_every.saturating_sub(since(pending.rotated_at, now));
    // Before it, when what changes is asked and told; then when it has come.
    let change = pending.next_change_at.map(|time| {
        let left = since(now, time);
        let told = left.saturating_sub(NextChange::AHEAD);
        if told.is_zero() { left } else { told }
    });
    // Pods follow a change within seconds, or not for long: looked at ever more rarely.
    let of_pods = pending
        .pods
        .filter(|pods| pods.injected > 0)
        .map(|_| pending.unchanged_for.clamp(SOONEST, LATEST));
    let willing = pending.awaits_kubernetes.then_some(WILLING_SEEN_WITHIN);
    let first = [change, of_pods, willing]
        .into_iter()
        .flatten()
        .fold(rotation, Duration::min);
    Again::Within(first.max(NEVER_SOONER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_microseconds(seconds * 1_000_000).unwrap()
    }

    #[test]
    fn the_next_look_is_at_what_comes_first() {
        let day = Duration::from_hours(24);
        let quiet = Pending {
            rotated_at: at(0),
            rotate_every: day,
            next_change_at: None,
            pods: None,
            unchanged_for: Duration::from_hours(1),
            awaits_kubernetes: false,
        };
        let some = Some(PodCounts {
            injected: 2,
            up_to_date: 1,
            stale: 1,
        });
        let within = Again::Within;
        for (what, pending, now, want) in [
            ("the rotation", quiet, 600, within(Duration::from_mins(24 * 60 - 10))),
            ("a rotation that is due", quiet, 90_000, within(NEVER_SOONER)),
            (
                "a version that begins",
                Pending {
                    next_change_at: Some(at(700)),
                    ..quiet
                },
                600,
                within(Duration::from_secs(100)),
            ),
            (
                "one that has begun",
                Pending {
                    next_change_at: Some(at(500)),
                    ..quiet
                },
                600,
                within(NEVER_SOONER),
            ),
            (
                "pods after a change",
                Pending {
                    pods: some,
                    unchanged_for: Duration::ZERO,
                    ..quiet
                },
                600,
                within(SOONEST),
            ),
            (
                "pods that still follow",
                Pending {
                    pods: some,
                    unchanged_for: Duration::from_secs(30),
                    ..quiet
                },
                600,
                within(Duration::from_secs(30)),
            ),
            ("pods at rest", Pending { pods: some, ..quiet }, 600, within(LATEST)),
            (
                "a Secret that Kubernetes refuses",
                Pending {
                    awaits_kubernetes: true,
                    ..quiet
                },
                600,
                within(WILLING_SEEN_WITHIN),
            ),
            (
                "a version that begins meanwhile",
                Pending {
                    next_change_at: Some(at(650)),
                    awaits_kubernetes: true,
                    ..quiet
                },
                600,
                within(Duration::from_secs(50)),
            ),
            (
                "no pods",
                Pending {
                    pods: Some(PodCounts::default()),
                    unchanged_for: Duration::ZERO,
                    ..quiet
                },
                0,
                within(day),
            ),
        ] {
            assert_eq!(next(pending, at(now)), want, "{what}");
        }
    }

    #[test]
    fn what_changes_is_looked_for_an_hour_before_it_does() {
        let left = |seconds: i64| {
            let pending = Pending {
                rotated_at: at(0),
                rotate_every: Duration::from_hours(24),
                next_change_at: Some(at(seconds)),
                pods: None,
                unchanged_for: Duration::ZERO,
                awaits_kubernetes: false,
            };
            next(pending, at(0))
        };
        let within = |seconds: u64| Again::Within(Duration::from_secs(seconds));
        assert_eq!(left(3_600 + 50), within(50));
        assert_eq!(
            [left(3_600), left(3_599)],
            [within(3_600), within(3_599)],
            "and when it has come"
        );
    }
}
