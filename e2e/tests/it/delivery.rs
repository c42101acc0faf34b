//! Values reach the files of running pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use sealpod_core::kubernetes::{HEALTH_PORT, SIDECAR_UID};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{Sandbox, eventually, on_cluster, on_cluster_alone, pods};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep, timeout};

/// From the server's answer to the app reading the new value.
const UPDATE_TARGET: Duration = Duration::from_secs(2);

#[test]
fn a_pod_reads_its_value() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "correct horse\nbattery staple\n").await?;
        // The first thing that the app does: no value, no start.
        let path = file("db", "password");
        let pod = t
            .running_app("app", &format!("cat {path} || exit 1; {}", pods::SLEEP))
            .await?;
        assert_eq!(pods::restarts(&pod), 0, "the app started before its file was there");
        assert_eq!(
            t.exec("app", "app", &format!("cat {path}")).await?,
            "correct horse\nbattery staple\n"
        );
        let written = t
            .exec(
                "app",
                "app",
                &format!("echo other 2>/dev/null > {path} || echo refused"),
            )
            .await?;
        assert_eq!(written, "refused\n", "the app can only read");
        let mount = t
            .exec("app", "app", "grep ' /var/run/secrets/sealpod.dev/db ' /proc/mounts")
            .await?;
        assert!(mount.starts_with("tmpfs "), "values are in memory only: {mount}");
        Ok(())
    })
}

#[test]
fn an_update_arrives_in_the_running_pod() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "value 0").await?;
        let before = t.running_app("app", pods::SLEEP).await?;
        let mut took = Vec::new();
        for round in 1..=5 {
            took.push(update(t, &format!("value {}", round - 1), &format!("value {round}")).await?);
            // At a random phase of whatever goes round in the sidecar.
            sleep(Duration::from_millis(
                u64::from(Instant::now().elapsed().subsec_nanos()) % 700,
            ))
            .await;
        }
        took.sort();
        println!("updates arrived after {took:?}");
        assert!(
            took[2] <= UPDATE_TARGET,
            "the median of {took:?} is over {UPDATE_TARGET:?}"
        );
        let after = t.until_running("app").await?;
        assert_eq!(before.metadata.uid, after.metadata.uid, "the same pod");
        assert_eq!(pods::restarts(&after), 0, "nothing was started again");
        Ok(())
    })
}

/// Sets a value and waits until the app sees it; how long that took after the server's answer.
async fn update(t: &Sandbox, old: &str, new: &str) -> Result<Duration> {
    let path = file("db", "password");
    // Reads as fast as it can, so that an empty or half-written file would be seen too.
    let script = format!(
        "echo watching; while value=$(cat {path}) && [ \"$value\" = '{old}' ]; do sleep 0.01; done; echo \"$value\""
    );
    let mut watcher = t.shell("app", "app", &script).spawn()?;
    let mut lines = BufReader::new(watcher.stdout.take().context("its stdout is a pipe")?).lines();
    ensure!(
        lines.next_line().await?.as_deref() == Some("watching"),
        "the watcher did not start"
    );
    t.set("prod", "password", new).await?;
    let answered = Instant::now();
    let seen = timeout(Duration::from_mins(1), lines.next_line()).await;
    let seen = seen.context("the new value did not arrive within 60 s")??;
    assert_eq!(
        seen.as_deref(),
        Some(new),
        "the app sees the old value or the new one, nothing else"
    );
    Ok(answered.elapsed())
}

#[test]
fn containers_of_any_user_read_their_files() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "for everybody").await?;
        let path = file("db", "password");
        let check = format!("[ \"$(cat {path})\" = 'for everybody' ] || exit 1");
        let [one, other] = [10_001, 20_002].map(|user| {
            pods::container(
                &format!("user-{user}"),
                t.image(),
                user,
                &format!("{check}; {}", pods::SLEEP),
            )
        });
        let mut template = pods::template("db", &[one, other]);
        template["spec"]["initContainers"] = serde_json::json!([pods::container("first", t.image(), 30_003, &check)]);
        let pod = t.running("users", pods::pod("users", template)?).await?;
        assert_eq!(pods::restarts(&pod), 0);
        let listed = t.exec("users", "user-20002", &format!("id; ls -lnL {path}")).await?;
        assert!(
            listed.contains("-r--r-----") && listed.contains("64999"),
            "mode 0440 of the shared group: {listed}"
        );
        Ok(())
    })
}

#[test]
fn pods_of_both_shapes_wait_for_a_secret_without_a_value_and_start_once_it_is_set() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.binding("db", "prod", &["password"]).await?;
        let api = t.api::<Pod>();
        let mut made = Vec::new();
        for (name, policy) in pods::POLICIES {
            let pod = pods::pod(name, pods::of_policy(policy, t.image(), pods::SLEEP))?;
            let pod = t.create_patiently(&pod).await?;
            assert_eq!(gate(&pod), (policy == "Never").then_some("httpGet"), "{name}");
            made.push(pod);
        }
        for (name, _) in pods::POLICIES {
            pods::until_ours_runs(&api, name).await?;
        }
        // Long enough for the sidecar to have asked in vain.
        sleep(Duration::from_secs(3)).await;
        for (name, _) in pods::POLICIES {
            let waiting = api.get(name).await?;
            assert!(pods::ready(&waiting).is_err(), "the app runs without its secret");
            assert_eq!(pods::restarts(&waiting), 0, "it waits in one go");
        }
        t.set("prod", "password", "late").await?;
        for ((name, _), pod) in pods::POLICIES.iter().zip(made) {
            let running = t.until_running(name).await?;
            assert_eq!(running.metadata.uid, pod.metadata.uid);
            assert_eq!(pods::restarts(&running), 0);
            let read = format!("cat {}", file("db", "password"));
            assert_eq!(t.exec(name, "app", &read).await?, "late");
        }
        Ok(())
    })
}

#[test]
fn a_guaranteed_pod_stays_guaranteed_and_reads_its_files() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "for sure").await?;
        for (name, policy) in pods::POLICIES {
            let mut template = pods::of_policy(policy, t.image(), &reads("for sure"));
            let amounts = json!({"cpu": "20m", "memory": "16Mi"});
            template["spec"]["containers"][0]["resources"] = json!({"requests": amounts, "limits": amounts});
            let pod = t.running(name, pods::pod(name, template)?).await?;
            assert_eq!(pods::restarts(&pod), 0, "{name}");
            let class = pod.status.and_then(|status| status.qos_class);
            assert_eq!(class.as_deref(), Some("Guaranteed"), "{name}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_on_the_nodes_network_gets_its_files_and_the_sidecar_opens_no_port_there() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "on the node").await?;
        t.running_app("usual", pods::SLEEP).await?;
        assert_eq!(
            listens(t, "usual").await?,
            [HEALTH_PORT],
            "where it has a port, that is seen"
        );

        // The standard that the namespace has allows no such pod.
        let namespaces: Api<Namespace> = Api::all(t.client());
        let privileged = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
        namespaces
            .patch(&t.namespace, &PatchParams::default(), &Patch::Merge(privileged))
            .await?;
        for (name, policy) in pods::POLICIES {
            let mut template = pods::of_policy(policy, t.image(), &reads("on the node"));
            template["spec"]["hostNetwork"] = json!(true);
            template["spec"]["dnsPolicy"] = json!("ClusterFirstWithHostNet");
            let pod = t.running(name, pods::pod(name, template)?).await?;
            assert_eq!(pods::restarts(&pod), 0, "{name}");
            assert_eq!(gate(&pod), (policy == "Never").then_some("exec"), "{name}");
            let status = pod.status.context("it has a status")?;
            assert_eq!(status.pod_ip, status.host_ip, "it is on the node's network");
            assert_eq!(listens(t, name).await?, Vec::<u16>::new(), "{name}");
        }
        Ok(())
    })
}

/// By what means the kubelet asks our first container whether the files are there, if it does.
fn gate(pod: &Pod) -> Option<&'static str> {
    let ours = pod.spec.as_ref()?.init_containers.as_ref()?.first()?;
    let probe = ours.startup_probe.as_ref()?;
    match (&probe.http_get, &probe.exec) {
        (Some(_), None) => Some("httpGet"),
        (None, Some(_)) => Some("exec"),
        _ => Some("neither"),
    }
}

/// The first thing that the app does: without this value it ends.
fn reads(value: &str) -> String {
    let path = file("db", "password");
    format!("[ \"$(cat {path})\" = '{value}' ] || exit 1; {}", pods::SLEEP)
}

/// Ports on which something of the sidecar's user listens in a pod's network, and its own port, whoever does.
async fn listens(t: &Sandbox, pod: &str) -> Result<Vec<u16>> {
    let sockets = t
        .exec(pod, "app", "cat /proc/net/tcp; cat /proc/net/tcp6 || true")
        .await?;
    let listening = sockets.lines().filter_map(|line| {
        // Number, local address, remote address, state, …, user as the eighth; 0A is listening.
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, port) = fields
            .get(1)
            .filter(|_| fields.get(3) == Some(&"0A"))?
            .rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let ours = fields.get(7)?.parse() == Ok(SIDECAR_UID);
        (ours || port == HEALTH_PORT).then_some(port)
    });
    Ok(listening.collect())
}

#[test]
fn a_binding_without_a_list_brings_every_secret_and_new_ones_too() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "first", "1").await?;
        let binding = serde_json::from_value(serde_json::json!({
            "apiVersion": "sealpod.dev/v1alpha1",
            "kind": "SecretBinding",
            "metadata": {"name": "db"},
            "spec": {"applicationRef": {"name": "shop"}, "environment": "prod"},
        }))?;
        t.create::<sealpod_crds::SecretBinding>(&binding).await?;
        t.running_app("app", pods::SLEEP).await?;
        let list = format!(
            "cd {} && for name in *; do echo $name=$(cat $name); done",
            file("db", "")
        );
        assert_eq!(t.exec("app", "app", &list).await?, "first=1\n");
        t.set("prod", "second", "2").await?;
        eventually("the new secret's file", Duration::from_secs(30), async || {
            let files = t.exec("app", "app", &list).await?;
            ensure!(files == "first=1\nsecond=2\n", "{files:?}");
            Ok(())
        })
        .await
    })
}
