//! What a candidate does about the record it has just read. No I/O and no clock of its own.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::LEASE;

pub struct Election {
    identity: String,
    duration: Duration,
    seen: Option<Seen>,
}

/// A record of another holder, and since when it has not changed, by this machine's monotonic clock.
struct Seen {
    version: Option<String>,
    since: Instant,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    /// There is none.
    Create(Box<Lease>),
    /// It is ours, free, or expired. Carries the `resourceVersion` that was read.
    Replace(Box<Lease>),
    Wait {
        holder: String,
    },
}

impl Election {
    pub fn new(identity: &str, duration: Duration) -> Self {
        Self {
            identity: identity.to_owned(),
            duration,
            seen: None,
        }
    }

    /// `now` and `wall` are the same moment; `wall` is written for people to read.
    pub fn step(&mut self, lease: Option<Lease>, now: Instant, wall: MicroTime) -> Step {
        let Some(mut lease) = lease else {
            let metadata = ObjectMeta {
                name: Some(LEASE.to_owned()),
                ..ObjectMeta::default()
            };
            let spec = Some(self.record(None, wall));
            return Step::Create(Box::new(Lease { metadata, spec }));
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.expired(&lease, &spec, now) {
            return Step::Wait { holder };
        }
        lease.spec = Some(self.record(Some(spec), wall));
        Step::Replace(Box::new(lease))
    }

    /// The record without a holder, if it is ours.
    pub fn released(&self, mut lease: Lease, wall: MicroTime) -> Option<Lease> {
        let spec = lease.spec.as_mut()?;
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return None;
        }
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(wall);
        Some(lease)
    }

    /// Whether the record has stayed as it is for the duration that its holder wrote into it.
    fn expired(&mut self, lease: &Lease, spec: &LeaseSpec, now: Instant) -> bool {
        let version = lease.metadata.resource_version.clone();
        match &self.seen {
            Some(seen) if seen.version == version => {
                let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
                let duration = seconds.map_or(self.duration, Duration::from_secs);
                now.duration_since(seen.since) >= duration
            }
            _ => {
                self.seen = Some(Seen { version, since: now });
                false
            }
        }
    }

    fn record(&self, before: Option<LeaseSpec>, wall: MicroTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: before
                .acquire_time
                .clone()
                .filter(|_| ours)
                .or_else(|| Some(wall.clone())),
            renew_time: Some(wall),
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..before
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    const DURATION: Duration = Duration::from_secs(15);

    fn wall(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    fn held_by(holder: &str, version: &str) -> Lease {
        let mut election = Election::new(holder, DURATION);
        let Step::Create(mut lease) = election.step(None, Instant::now(), wall(0)) else {
            panic!("there is no lease")
        };
        lease.metadata.resource_version = Some(version.to_owned());
        *lease
    }

    fn replaced(step: Step) -> LeaseSpec {
        match step {
            Step::Replace(lease) => {
                assert!(
                    lease.metadata.resource_version.is_some(),
                    "a write without a version can overwrite another's"
                );
                lease.spec.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_holder_renews_and_keeps_the_time_of_its_acquisition() {
        let mut a = Election::new("a", DURATION);
        let spec = replaced(a.step(Some(held_by("a", "1")), Instant::now(), wall(5)));
        assert_eq!((spec.acquire_time, spec.renew_time), (Some(wall(0)), Some(wall(5))));
        assert_eq!(spec.lease_transitions, Some(1));
    }

    #[test]
    fn another_takes_over_only_after_the_record_stood_still_for_its_duration() {
        let mut b = Election::new("b", DURATION);
        let start = Instant::now();
        let wait = Step::Wait { holder: "a".to_owned() };
        let mut at = |seconds, version| {
            b.step(
                Some(held_by("a", version)),
                start + Duration::from_secs(seconds),
                wall(9),
            )
        };
        assert_eq!(at(0, "1"), wait);
        assert_eq!(at(14, "1"), wait);
        // A renewal starts the count again, however old its times look: no clock is compared with another's.
        assert_eq!(at(15, "2"), wait);
        assert_eq!(at(29, "2"), wait);
        let spec = replaced(at(30, "2"));
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!((spec.acquire_time, spec.lease_transitions), (Some(wall(9)), Some(2)));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let a = Election::new("a", DURATION);
        let free = a.released(held_by("a", "1"), wall(7)).unwrap();
        let mut b = Election::new("b", DURATION);
        let spec = replaced(b.step(Some(free), Instant::now(), wall(8)));
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
    }

    #[test]
    fn nobody_releases_what_another_holds() {
        assert!(
            Election::new("b", DURATION)
                .released(held_by("a", "1"), wall(1))
                .is_none()
        );
    }
}
