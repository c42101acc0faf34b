//! What this pod has loaded, for the server's list of consumers. Advisory: no failure of it holds the files up.

use std::time::{Duration, Instant};

use sealpod_client::backoff::Backoff;
use sealpod_core::injection::PodIdentity;
use sealpod_core::wire::consumers::{BundleReport, MAX_REPORTED_KEYS, REPORT_INTERVAL_SECONDS};

use super::Agent;
use crate::credentials::Session;

/// Longest time that a report may hold the next question up.
const LIMIT: Duration = Duration::from_secs(3);
/// After the server was away its clients do not all report in one moment.
const SPREAD: Duration = Duration::from_secs(10);

/// When to say what has been loaded, and whether it has been said.
#[derive(Debug)]
pub(super) struct Reporter {
    pod: PodIdentity,
    random: Backoff,
    /// None while there is nothing to say, or nobody to say it to.
    due: Option<Instant>,
    /// Whether the server may have forgotten: it was away.
    lost: bool,
    /// Whether there is a report to take back.
    said: bool,
}

impl Reporter {
    pub(super) fn new(pod: PodIdentity, seed: &str) -> Self {
        let interval = Duration::from_secs(REPORT_INTERVAL_SECONDS);
        Self {
            pod,
            random: Backoff::seeded(interval, interval, seed),
            due: None,
            lost: false,
            said: false,
        }
    }

    /// Other versions are loaded.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// The server gave no answer that counts.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// The server has answered.
    pub(super) fn found(&mut self, now: Instant) {
        if std::mem::take(&mut self.lost) && self.said {
            let soon = now + self.random.jittered(SPREAD, 0.0);
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        Some(self.due.filter(|_| !self.lost)?.saturating_duration_since(now))
    }

    /// The next one, whether this one got through or not: it says the same.
    fn done(&mut self, through: bool, now: Instant) {
        let interval = Duration::from_secs(REPORT_INTERVAL_SECONDS);
        let next = if through { interval } else { interval / 5 };
        self.said |= through;
        self.due = Some(now + self.random.jittered(next, 0.8));
    }

    /// Takes the pod off the list.
    pub(super) async fn withdraw(&mut self, session: &Session) {
        if !std::mem::take(&mut self.said) {
            return;
        }
        let binding = &session.binding;
        let org = session.client.org(&binding.organization);
        let done = org.withdraw_report(
            &binding.project,
            &binding.environment,
            &self.pod.namespace,
            &self.pod.name,
        );
        if let Err(error) = done.await {
            tracing::debug!(%error, "the report of this pod could not be taken back; the server forgets it by itself");
        }
    }
}

impl Agent {
    /// Says what is loaded, where that is due.
    pub(super) async fn report(&mut self) {
        let now = Instant::now();
        let (Some(Duration::ZERO), Some(session)) = (self.reporter.due_in(now), self.session.clone()) else {
            return;
        };
        let pod = self.reporter.pod.clone();
        let versions = self.versions.iter().take(MAX_REPORTED_KEYS);
        let report = BundleReport {
            pod: pod.name,
            namespace: pod.namespace,
            node: pod.node,
            versions: versions.map(|(key, version)| (key.clone(), *version)).collect(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let binding = &session.binding;
        let org = session.client.org(&binding.organization);
        let told = tokio::time::timeout(LIMIT, org.report(&binding.project, &binding.environment, &report)).await;
        let through = matches!(told, Ok(Ok(())));
        if let Ok(Err(error)) = told {
            tracing::debug!(binding = self.mounted.name, %error, "the server did not take the report of this pod");
        }
        self.reporter.done(through, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter() -> Reporter {
        let pod = PodIdentity {
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
            node: "k".to_owned(),
        };
        Reporter::new(pod, "seed")
    }

    #[test]
    fn a_report_is_made_after_a_change_and_then_every_five_minutes() {
        let (mut reporter, now) = (reporter(), Instant::now());
        assert_eq!(reporter.due_in(now), None, "nothing is loaded");
        reporter.changed(now);
        assert_eq!(reporter.due_in(now), Some(Duration::ZERO));
        reporter.done(true, now);
        let next = reporter.due_in(now).unwrap();
        assert!(
            (Duration::from_mins(4)..=Duration::from_mins(5)).contains(&next),
            "{next:?}"
        );
        reporter.done(false, now);
        assert!(reporter.due_in(now).unwrap() <= Duration::from_mins(1));
    }

    #[test]
    fn a_server_that_was_away_is_told_again_soon() {
        let (mut reporter, now) = (reporter(), Instant::now());
        reporter.changed(now);
        reporter.done(true, now);
        reporter.lost();
        assert_eq!(reporter.due_in(now), None, "there is nobody to tell");
        reporter.found(now);
        assert!(reporter.due_in(now).unwrap() <= SPREAD);
    }
}
