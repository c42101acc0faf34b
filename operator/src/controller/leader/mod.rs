//! Leader election by a Lease: one replica works, the others wait.
//!
//! Two rules make it safe. Every write carries the `resourceVersion` that was read, so of two candidates one gets a
//! conflict. And no clock is compared with another machine's: a lease has expired when *this* process has watched the
//! record stay unchanged for its duration. A holder whose renewals fail gives up before any other may take over, and
//! giving up means that the process ends: work that goes on without the lease would be done twice.

mod election;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::describe;
use election::{Election, Step};

/// Name of the Lease in the operator's namespace.
pub const LEASE: &str = "sealpod-controller";
/// Durations of an election.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// How long others wait after the last change of the record.
    duration: Duration,
    /// How long after its last success a holder gives up.
    renew_deadline: Duration,
    /// Time between two attempts.
    retry: Duration,
}

const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

/// The lease is gone; the process must end at once.
#[derive(Debug, thiserror::Error)]
#[error("the lease {LEASE} is lost ({0}); ending, so that no two replicas work at once")]
pub struct Lost(String);

/// A candidate, and after [`Leader::acquire`] the holder.
pub struct Leader {
    api: Api<Lease>,
    election: Election,
    timing: Timing,
    /// When the request was sent that last wrote our name into the record.
    renewed: Instant,
}

/// How one attempt ended.
enum Attempt {
    Held,
    /// Another holds it.
    Refused(String),
    /// Nobody knows: the API could not be asked.
    Failed(String),
}

impl Leader {
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self::with(client, namespace, identity, TIMING)
    }

    fn with(client: Client, namespace: &str, identity: &str, timing: Timing) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            election: Election::new(identity, timing.duration),
            timing,
            renewed: Instant::now(),
        }
    }

    /// Waits until this process holds the lease; `None` if it is stopped before.
    pub async fn acquire(mut self, stop: &CancellationToken) -> Option<Self> {
        let mut told = String::new();
        loop {
            match self.attempt(self.timing.renew_deadline).await {
                Attempt::Held => return Some(self),
                Attempt::Refused(why) | Attempt::Failed(why) => {
                    if why != told {
                        tracing::info!(lease = LEASE, "waiting for the lease: {why}");
                        told = why;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.timing.retry) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Renews until that fails for good.
    pub async fn hold(&mut self) -> Lost {
        loop {
            tokio::time::sleep(self.timing.retry.min(self.left())).await;
            match self.attempt(self.left()).await {
                Attempt::Held => {}
                Attempt::Refused(why) => return Lost(why),
                Attempt::Failed(why) if self.left().is_zero() => return Lost(why),
                Attempt::Failed(why) => tracing::warn!(lease = LEASE, "the lease was not renewed: {why}"),
            }
        }
    }

    /// Lets the next candidate take over at once. Best effort: without it, that takes the lease's duration.
    pub async fn release(self) {
        let released = tokio::time::timeout(self.timing.retry, async {
            let lease = self.api.get_opt(LEASE).await.ok()??;
            let lease = self.election.released(lease, MicroTime(Timestamp::now()))?;
            self.api.replace(LEASE, &PostParams::default(), &lease).await.ok()
        });
        if !matches!(released.await, Ok(Some(_))) {
            tracing::warn!(lease = LEASE, "the lease was not released; it will expire");
        }
    }

    /// How long this process may go on without a renewal.
    fn left(&self) -> Duration {
        self.timing.renew_deadline.saturating_sub(self.renewed.elapsed())
    }

    async fn attempt(&mut self, deadline: Duration) -> Attempt {
        let sent = Instant::now();
        match tokio::time::timeout(deadline, self.try_once()).await {
            Ok(Ok(attempt)) => {
                if matches!(attempt, Attempt::Held) {
                    // The record counts from when the request was sent, not from when its answer came.
                    self.renewed = sent;
                }
                attempt
            }
            Ok(Err(error)) => Attempt::Failed(describe(&error)),
            Err(_) => Attempt::Failed("the Kubernetes API does not answer".to_owned()),
        }
    }

    async fn try_once(&mut self) -> kube::Result<Attempt> {
        let lease = self.api.get_opt(LEASE).await?;
        let parameters = PostParams::default();
        let now = MicroTime(Timestamp::now());
        let written = match self.election.step(lease, Instant::now(), now) {
            Step::Wait { holder } => return Ok(Attempt::Refused(format!("{holder} holds it"))),
            Step::Create(lease) => self.api.create(&parameters, &lease).await,
            Step::Replace(lease) => self.api.replace(LEASE, &parameters, &lease).await,
        };
        match written {
            Ok(_) => Ok(Attempt::Held),
            // Somebody was faster; who, the next look says.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Attempt::Failed("another replica wrote the lease first".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use futures::StreamExt;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/sealpod/leases/sealpod-controller";
    const FAST: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(1),
        retry: Duration::from_millis(100),
    };

    fn candidate(api: &FakeApi, identity: &str) -> Leader {
        Leader::with(api.client(), "sealpod", identity, FAST)
    }

    fn holder(api: &FakeApi) -> String {
        api.get(PATH).unwrap()["spec"]["holderIdentity"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[tokio::test]
    async fn of_two_candidates_one_holds_the_lease_and_hands_it_over_when_it_stops() {
        let api = FakeApi::default();
        let stop = CancellationToken::new();
        let a = candidate(&api, "a").acquire(&stop).await.unwrap();
        let waiting = candidate(&api, "b").acquire(&stop);
        let mut waiting = std::pin::pin!(waiting);
        let early = tokio::time::timeout(FAST.retry * 5, &mut waiting).await;
        assert!(early.is_err(), "both hold it");
        assert_eq!(holder(&api), "a");
        a.release().await;
        assert!(waiting.await.is_some());
        assert_eq!(holder(&api), "b");
    }

    #[tokio::test]
    async fn of_many_that_begin_at_once_exactly_one_holds_the_lease() {
        let api = FakeApi::default();
        let stop = CancellationToken::new();
        // First there is no lease, and later one that nobody holds: both are written by many at once.
        for round in 0..5 {
            let candidates = (0..10).map(|n| candidate(&api, &format!("{round}-{n}")).acquire(&stop));
            let mut candidates: futures::stream::FuturesUnordered<_> = candidates.collect();
            let first = candidates.next().await.flatten().unwrap();
            let second = tokio::time::timeout(FAST.retry * 4, candidates.next()).await;
            assert!(second.is_err(), "two hold it in round {round}");
            drop(candidates);
            first.release().await;
            assert_eq!(holder(&api), "");
        }
    }

    #[tokio::test]
    async fn a_candidate_that_is_stopped_stops_waiting() {
        let api = FakeApi::default();
        let stop = CancellationToken::new();
        let _a = candidate(&api, "a").acquire(&stop).await.unwrap();
        stop.cancel();
        assert!(candidate(&api, "b").acquire(&stop).await.is_none());
    }

    #[tokio::test]
    async fn a_holder_renews_until_it_sees_another_name() {
        let api = FakeApi::default();
        let mut a = candidate(&api, "a").acquire(&CancellationToken::new()).await.unwrap();
        let held = tokio::time::timeout(FAST.renew_deadline * 2, a.hold()).await;
        assert!(held.is_err(), "{held:?}");
        let mut lease = api.get(PATH).unwrap();
        lease["spec"]["holderIdentity"] = "b".into();
        api.put(PATH, lease);
        let lost = tokio::time::timeout(FAST.retry * 10, a.hold()).await.unwrap();
        assert!(lost.to_string().contains("b holds it"), "{lost}");
    }

    #[tokio::test]
    async fn a_holder_that_cannot_renew_gives_up_at_its_deadline() {
        let api = FakeApi::default();
        let mut a = candidate(&api, "a").acquire(&CancellationToken::new()).await.unwrap();
        let unreachable = tower::service_fn(|_: axum::http::Request<kube::client::Body>| async {
            Err::<axum::http::Response<kube::client::Body>, tower::BoxError>("cut off".into())
        });
        a.api = Api::namespaced(Client::new(unreachable, "sealpod"), "sealpod");
        let started = Instant::now();
        let lost = tokio::time::timeout(FAST.renew_deadline * 5, a.hold()).await.unwrap();
        assert!(
            started.elapsed() <= FAST.renew_deadline + FAST.retry * 3,
            "{lost} after {:?}",
            started.elapsed()
        );
        assert!(lost.to_string().contains("cut off"), "{lost}");
    }
}
