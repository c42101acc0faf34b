//! Certificates that are renewed while they are used.

use super::super::super::certs::tests::after;
use super::caller::Registered;
use super::*;

/// A replica that serves.
struct Replica {
    keeper: Keeper,
    served: Served,
    address: SocketAddr,
    stop: CancellationToken,
    /// A connection that is never closed.
    kept: reqwest::Client,
}

impl Replica {
    async fn start(api: &FakeApi, lives: Lives, filled: &Filled, callers: Option<Callers>) -> Self {
        let keeper = Keeper::new(api.client(), names(), Source::Own(lives));
        let served = Served::new(keeper.keep(after(Duration::ZERO)).await.unwrap(), callers).unwrap();
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let webhook = Webhook::new(filled.0.clone(), settings(), metrics, Arc::clone(&served.segment));
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tls = Some(served.tls.clone());
        tokio::spawn(serve::run(
            listener,
            tls,
            router(Arc::new(webhook)),
            stop.clone(),
            DRAIN,
        ));
        let kept = Registered::read(api).client(address, after(Duration::ZERO));
        Self {
            keeper,
            served,
            address,
            stop,
            kept,
        }
    }
}

/// A CA of three minutes, certificates of one, and a cluster with a binding.
fn short_lived() -> (Lives, FakeApi, Filled) {
    let minute = Duration::from_mins(1);
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &json!({})));
    (Lives::new(Some(minute * 3), Some(minute)).unwrap(), installed(), filled)
}

#[tokio::test]
async fn whom_the_webhook_answers_is_the_same_after_its_certificate_was_renewed() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (lives, api, filled) = short_lived();
    let mut clients = Clients::new();
    let mut replica = Replica::start(&api, lives, &filled, Some(clients.callers())).await;
    for life in 0..3 {
        let now = after(Duration::from_mins(1) * life);
        let new = replica.keeper.keep(now).await.unwrap();
        if life > 0 {
            assert_ne!(new, replica.served.current);
            replica.served.take_up(new).unwrap();
        }
        answers_the_api_server_alone(&replica, &clients, &Registered::read(&api), now).await;
    }
    // So it is after the CA of its clients was, and while the file holds nothing of use.
    let (seen, now) = (Registered::read(&api), after(Duration::from_mins(2)));
    for _ in 0..2 {
        let before = clients.named("kube-apiserver", &seen, replica.address, now);
        clients.rotate();
        replica.served.follow_callers();
        answers_the_api_server_alone(&replica, &clients, &seen, now).await;
        assert!(seen.post(&before, replica.address).await.is_err());
        for of_no_use in ["", "canary"] {
            clients.hold(of_no_use);
            replica.served.follow_callers();
            answers_the_api_server_alone(&replica, &clients, &seen, now).await;
            assert!(replica.served.callers_lost);
        }
        std::fs::remove_file(clients.file()).unwrap();
        replica.served.follow_callers();
        answers_the_api_server_alone(&replica, &clients, &seen, now).await;
    }
    clients.hold(&clients.authority.certificate);
    replica.served.follow_callers();
    assert!(!replica.served.callers_lost);
    replica.stop.cancel();
}

async fn answers_the_api_server_alone(replica: &Replica, clients: &Clients, seen: &Registered, now: Timestamp) {
    let named = |name| clients.named(name, seen, replica.address, now);
    seen.ask(&named("kube-apiserver"), replica.address).await;
    for stranger in [seen.client(replica.address, now), named("kubelet")] {
        assert!(seen.post(&stranger, replica.address).await.is_err(), "{now}");
    }
}

/// Two replicas look one after the other; the API server hears of a change of its configuration one round later. In each
/// round it asks both, on a new connection and on the one that it has had since the beginning.
#[tokio::test]
async fn ca_and_certificate_change_again_and_again_under_requests_without_a_failure() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (lives, api, filled) = short_lived();
    let mut replicas = [
        Replica::start(&api, lives, &filled, None).await,
        Replica::start(&api, lives, &filled, None).await,
    ];
    let first = replicas.each_ref().map(|replica| replica.served.current.clone());
    assert_eq!(first[0], first[1]);
    let begun = Registered::read(&api);
    let (mut seen, mut bundles, mut leaves) = (begun.clone(), 0, vec![]);
    for round in 1..=240 {
        let now = after(lives.check() * round);
        let next = Registered::read(&api);
        for (turn, replica) in replicas.iter_mut().enumerate() {
            // Not in step: one of them is a round behind.
            if (round as usize + turn).is_multiple_of(2) {
                let new = replica.keeper.keep(now).await.unwrap();
                if new != replica.served.current {
                    leaves.push(new.pair.certificate.clone());
                    replica.served.take_up(new).unwrap();
                }
            }
            let fresh = seen.client(replica.address, now);
            seen.ask(&fresh, replica.address).await;
            seen.ask(&replica.kept, replica.address).await;
        }
        bundles = bundles.max(certs::count(&seen.bundle));
        seen = next;
    }
    leaves.sort();
    leaves.dedup();
    assert!(leaves.len() >= 8, "{} certificates in eight lives", leaves.len());
    assert!(
        bundles >= 2 && !seen.bundle.contains(&begun.bundle),
        "the CA changed with an overlap"
    );
    assert_eq!(seen.path, begun.path);

    // The lives are those of every day again: what is served still ends soon, and is followed in time.
    let begun = after(lives.check() * 240);
    for replica in &mut replicas {
        replica.keeper = Keeper::new(api.client(), names(), Source::Own(Lives::default()));
    }
    for round in 1..=120 {
        let now = begun.checked_add(lives.check() * round).unwrap();
        let next = Registered::read(&api);
        for replica in &mut replicas {
            let new = replica.keeper.keep(now).await.unwrap();
            if new != replica.served.current {
                replica.served.take_up(new).unwrap();
            }
            let fresh = seen.client(replica.address, now);
            seen.ask(&fresh, replica.address).await;
        }
        seen = next;
    }
    let left = replicas[0].served.current.certificate_until.as_second() - begun.as_second();
    assert!(left > 80 * 24 * 3_600, "{left} s are left");
    for replica in replicas {
        replica.stop.cancel();
    }
}
