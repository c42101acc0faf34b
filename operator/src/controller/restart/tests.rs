use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::{reflector, watcher};
use sealpod_core::kubernetes::{BINDING_UID_LABEL, ROLLED_OUT_FOR, controls};
use serde_json::{Value, json};

use super::super::binding::world::{SECRET, World, object, world};
use super::run::{self, handle};
use super::*;
use crate::tolerant::Tolerant;

const APPS: &str = "/apis/apps/v1/namespaces/shop";
const ROLLOUTS: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts";

fn binding() -> SecretBinding {
    let mut binding = object();
    binding.spec.on_change = Some(serde_json::from_value(json!({"restart": "Rollout"})).unwrap());
    binding
}

/// A world with the binding, its key Secret, and a workload of each kind: injected, using all of the Secret, using the
/// entry `x` of it, and a Rollout that uses all.
async fn with_workloads() -> World {
    let mut world = world().await;
    let secret = json!({"kind": "Secret", "metadata": {"name": "db-sealpod-key", "uid": "key", "labels": {BINDING_UID_LABEL: "uid"}}});
    world.kube.put(SECRET, secret);
    sees(&mut world, binding());
    let workload = |name: &str, labels: &Value, spec: &Value| {
        json!({
            "metadata": {"name": name, "uid": format!("uid-of-{name}")},
            "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}},
        })
    };
    let all = json!({"containers": [{"name": "app", "envFrom": [{"secretRef": {"name": "copy"}}]}]});
    let one = json!({"volumes": [{"secret": {"secretName": "copy", "items": [{"key": "x", "path": "x"}]}}]});
    let injected = json!({"sealpod.dev/inject": "true"});
    let plain = json!({"containers": [{"name": "app"}]});
    for (path, workload) in [
        (
            format!("{APPS}/deployments/injected"),
            workload("injected", &injected, &plain),
        ),
        (
            format!("{APPS}/deployments/other"),
            workload("other", &json!({}), &plain),
        ),
        (format!("{APPS}/statefulsets/all"), workload("all", &json!({}), &all)),
        (format!("{APPS}/daemonsets/one"), workload("one", &json!({}), &one)),
        (format!("{ROLLOUTS}/argo"), workload("argo", &json!({}), &all)),
    ] {
        world.kube.put(&path, workload);
    }
    world
}

fn versions(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect()
}

fn job(of: &[(&str, u64)], revisions: &[(&str, u64)]) -> Job {
    let copy = Copy {
        secret: "copy".to_owned(),
        revisions: versions(revisions),
        made_of: String::new(),
    };
    Job {
        binding: binding(),
        uid: "uid".to_owned(),
        namespace: "shop".to_owned(),
        state: State::new(versions(of), Some(copy)),
        denied: vec![],
    }
}

/// Names of the workloads that were written to.
fn rolled_out(world: &World) -> Vec<String> {
    let writes = world.kube.take_writes();
    let of_workloads = writes.iter().filter(|write| write.starts_with("PATCH /apis/a"));
    of_workloads
        .filter_map(|write| write.rsplit('/').next())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_first_sight_rolls_out_nothing_and_a_change_rolls_out_who_uses_it_once() {
    let world = with_workloads().await;
    handle(&job(&[("a", 1)], &[("x", 1), ("y", 1)]), &world.context)
        .await
        .unwrap();
    assert_eq!(rolled_out(&world), [""; 0]);
    handle(&job(&[("a", 2)], &[("x", 1), ("y", 2)]), &world.context)
        .await
        .unwrap();
    assert_eq!(
        rolled_out(&world),
        ["injected", "all", "argo"],
        "`one` does not use `y`"
    );
    handle(&job(&[("a", 2)], &[("x", 2), ("y", 2)]), &world.context)
        .await
        .unwrap();
    assert_eq!(rolled_out(&world), ["all", "one", "argo"]);
    // The same again, by a new leader.
    handle(&job(&[("a", 2)], &[("x", 2), ("y", 2)]), &world.context)
        .await
        .unwrap();
    assert_eq!(rolled_out(&world), [""; 0]);
    let injected = world.kube.get(&format!("{APPS}/deployments/injected")).unwrap();
    let marks = injected["spec"]["template"]["metadata"]["annotations"]
        .as_object()
        .unwrap();
    assert_eq!(marks.keys().collect::<Vec<_>>(), ["restart.sealpod.dev/db"]);
    let told = world.kube.events();
    assert!(told.iter().all(|event| event["reason"] == "RolledOut"), "{told:?}");
    let notes = json!(told).to_string();
    assert!(notes.contains("`a` of SecretBinding db changed"), "{notes}");
}

#[tokio::test]
async fn a_crash_before_the_record_is_written_rolls_out_nobody_twice() {
    let world = with_workloads().await;
    handle(&job(&[("a", 1)], &[("x", 1)]), &world.context).await.unwrap();
    let before = world.kube.get(SECRET).unwrap();
    handle(&job(&[("a", 2)], &[("x", 2)]), &world.context).await.unwrap();
    assert_eq!(rolled_out(&world).len(), 4);
    world.kube.put(SECRET, before);
    handle(&job(&[("a", 2)], &[("x", 2)]), &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), [""; 0]);
    // And what changed in between counts.
    handle(&job(&[("a", 3)], &[("x", 2)]), &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), ["injected"]);
}

#[tokio::test]
async fn one_that_cannot_be_rolled_out_stops_no_other_and_is_tried_again() {
    let world = with_workloads().await;
    handle(&job(&[("a", 1)], &[("x", 1)]), &world.context).await.unwrap();
    rolled_out(&world);
    let refused = format!("PATCH {APPS}/statefulsets/all");
    world.kube.refuse(&refused, 403, "Forbidden");
    let next = job(&[("a", 2)], &[("x", 2)]);
    assert!(handle(&next, &world.context).await.is_err());
    assert_eq!(rolled_out(&world), ["injected", "all", "one", "argo"]);
    let failed: Vec<_> = world
        .kube
        .events()
        .into_iter()
        .filter(|e| e["reason"] == "RolloutFailed")
        .collect();
    let about: Vec<_> = failed
        .iter()
        .map(|e| e["regarding"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(about, ["StatefulSet", "SecretBinding"], "{failed:?}");
    world.kube.allow();
    handle(&next, &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), ["all"], "the others have their mark");
}

#[tokio::test]
async fn a_cluster_without_argo_rollouts_is_none_the_worse() {
    let world = with_workloads().await;
    world.kube.remove(&format!("{ROLLOUTS}/argo"));
    handle(&job(&[("a", 1)], &[("x", 1)]), &world.context).await.unwrap();
    handle(&job(&[("a", 1)], &[("x", 2)]), &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), ["all", "one"]);
}

#[tokio::test]
async fn a_secret_that_goes_and_comes_again_has_changed_but_a_right_that_does_has_not() {
    let world = with_workloads().await;
    handle(&job(&[("a", 1), ("b", 1)], &[]), &world.context).await.unwrap();
    let mut without = job(&[("a", 1)], &[]);
    without.denied = vec!["b".to_owned()];
    handle(&without, &world.context).await.unwrap();
    handle(&job(&[("a", 1), ("b", 1)], &[]), &world.context).await.unwrap();
    handle(&job(&[("a", 1)], &[]), &world.context).await.unwrap();
    assert_eq!(
        rolled_out(&world),
        [""; 0],
        "to lose a value is no reason to start again"
    );
    handle(&job(&[("a", 1), ("b", 1)], &[]), &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), ["injected"]);
}

#[tokio::test]
async fn without_a_key_secret_of_the_binding_nothing_is_done() {
    let world = with_workloads().await;
    handle(&job(&[("a", 1)], &[]), &world.context).await.unwrap();
    let mut secret = world.kube.get(SECRET).unwrap();
    assert!(secret["metadata"]["annotations"][ROLLED_OUT_FOR].is_string());
    secret["metadata"]["labels"][BINDING_UID_LABEL] = json!("of-another");
    world.kube.put(SECRET, secret);
    assert!(handle(&job(&[("a", 2)], &[]), &world.context).await.is_err());
    world.kube.remove(SECRET);
    assert!(handle(&job(&[("a", 2)], &[]), &world.context).await.is_err());
    assert_eq!(rolled_out(&world), [""; 0], "and both are tried again");
}

/// One turn of the task, whenever it comes.
async fn turn(world: &World) {
    let late = Instant::now() + Duration::from_hours(1);
    let job = world.context.restarts.next(late).unwrap();
    run::turn(&job, &world.context).await;
}

/// The binding as it is from now on.
fn sees(world: &mut World, binding: SecretBinding) {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&watcher::Event::Apply(Tolerant(binding).into()));
    Arc::get_mut(&mut world.context).unwrap().bindings = store;
}

#[tokio::test]
async fn a_paused_binding_rolls_out_nothing_until_the_pause_ends_and_a_deleted_one_never() {
    let mut world = with_workloads().await;
    world
        .context
        .restarts
        .consider(&binding(), &known(&[("a", 1)]), None, false);
    turn(&world).await;
    world
        .context
        .restarts
        .consider(&binding(), &known(&[("a", 2)]), None, true);
    let mut paused = binding();
    paused
        .annotations_mut()
        .insert(controls::PAUSED.to_owned(), "true".to_owned());
    sees(&mut world, paused);
    for _ in 0..2 {
        turn(&world).await;
    }
    assert_eq!(rolled_out(&world), [""; 0]);
    sees(&mut world, binding());
    let restarts = &world.context.restarts;
    assert!(restarts.next(Instant::now() + 2 * QUIET).is_err());
    restarts.consider(&binding(), &known(&[("a", 2)]), None, true);
    assert!(
        restarts.next(Instant::now() + 2 * QUIET).is_ok(),
        "the end of the pause is enough"
    );
    turn(&world).await;
    assert_eq!(rolled_out(&world), ["injected"]);
    restarts.consider(&binding(), &known(&[("a", 3)]), None, true);
    let mut deleted = binding();
    deleted.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    sees(&mut world, deleted);
    turn(&world).await;
    assert_eq!(rolled_out(&world), [""; 0]);
    assert!(world.context.restarts.bindings().is_empty());
}

#[tokio::test]
async fn a_key_secret_that_is_made_again_forgets_no_change() {
    let world = with_workloads().await;
    let new = world.kube.get(SECRET).unwrap();
    let restarts = &world.context.restarts;
    restarts.consider(&binding(), &known(&[("a", 1)]), None, false);
    turn(&world).await;
    let recorded = || world.kube.get(SECRET).unwrap()["metadata"]["annotations"][ROLLED_OUT_FOR].is_string();
    assert!(recorded());
    // The value changes while the Secret is gone.
    world.kube.remove(SECRET);
    restarts.consider(&binding(), &known(&[("a", 2)]), None, true);
    turn(&world).await;
    assert_eq!(rolled_out(&world), [""; 0]);
    world.kube.put(SECRET, new.clone());
    turn(&world).await;
    assert_eq!((rolled_out(&world), recorded()), (vec!["injected".to_owned()], true));
    // And nothing changes: what workloads follow is written on the new one for the next leader.
    world.kube.put(SECRET, new);
    restarts.consider(&binding(), &known(&[("a", 2)]), None, false);
    turn(&world).await;
    assert_eq!((rolled_out(&world), recorded()), (vec![], true));
}

#[tokio::test]
async fn a_change_that_cannot_be_written_into_the_copy_rolls_out_its_users_once_it_is() {
    let world = with_workloads().await;
    handle(&job(&[("a", 1)], &[("x", 1)]), &world.context).await.unwrap();
    let mut refused = job(&[("a", 2)], &[]);
    refused.state.copy = None;
    refused.binding.spec.kubernetes_secret = Some(serde_json::from_value(json!({"name": "copy"})).unwrap());
    handle(&refused, &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), ["injected"]);
    handle(&job(&[("a", 2)], &[("x", 2)]), &world.context).await.unwrap();
    assert_eq!(rolled_out(&world), ["all", "one", "argo"]);
}

fn known(pairs: &[(&str, u64)]) -> Known {
    Known {
        secrets: versions(pairs),
        ..Known::default()
    }
}

#[test]
fn changes_that_come_together_are_rolled_out_together_and_none_waits_for_ever() {
    let restarts = Restarts::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let set = |second, version| restarts.consider_at(at(second), &binding(), &known(&[("a", version)]), None, true);
    set(0, 1);
    assert_eq!(restarts.next(start).unwrap_err(), Some(start + QUIET));
    set(1, 2);
    assert!(restarts.next(at(2)).is_err(), "the second change counts too");
    assert_eq!(restarts.next(at(3)).unwrap().state.versions["a"], 2);
    for second in 2..12 {
        set(second, second + 1);
    }
    assert!(restarts.next(start + LONGEST).is_ok());
}

#[test]
fn what_changes_while_workloads_are_rolled_out_waits_for_its_own_turn() {
    let restarts = Restarts::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let set = |second, version| restarts.consider_at(at(second), &binding(), &known(&[("a", version)]), None, true);
    set(0, 1);
    let job = restarts.next(at(2)).unwrap();
    set(3, 2);
    restarts.done(&job, true, at(4));
    let job = restarts.next(at(6)).unwrap();
    assert_eq!(job.state.versions["a"], 2);
    restarts.done(&job, false, at(6));
    assert!(restarts.next(at(6)).unwrap_err() > Some(at(6)), "a failure waits");
    restarts.done(&restarts.next(at(600)).unwrap(), true, at(600));
    set(700, 2);
    assert_eq!(
        restarts.next(at(800)).unwrap_err(),
        None,
        "at rest there is nothing to do"
    );
}

#[test]
fn a_binding_that_asks_for_no_restart_is_forgotten() {
    let restarts = Restarts::default();
    restarts.consider(&binding(), &known(&[("a", 1)]), None, true);
    restarts.consider(&object(), &known(&[("a", 1)]), None, true);
    assert!(restarts.bindings().is_empty());
}
