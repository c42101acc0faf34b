//! What workloads follow, whatever becomes of the copy.

use sealpod_core::kubernetes::{BINDING_UID_LABEL, ROLLED_OUT_FOR};

use super::super::super::world::SECRET;
use super::*;
use crate::controller::restart::{ALL, State as Followed};

/// Workloads were rolled out for this copy, as the key Secret says.
fn rolled_out(world: &World, copy: Copy) {
    let state = Followed::new(BTreeMap::new(), Some(copy));
    let record = serde_json::to_string(&state).unwrap();
    let secret = json!({"metadata": {
        "name": "db-sealpod-key", "labels": {BINDING_UID_LABEL: "uid"}, "annotations": {ROLLED_OUT_FOR: record},
    }});
    world.kube.put(SECRET, secret);
}

async fn copy(world: &World, object: &SecretBinding) -> Copy {
    look(world, object).await.unwrap().unwrap().copy.unwrap()
}

#[tokio::test]
async fn a_copy_that_is_made_again_has_changed_only_if_what_it_is_made_of_has() {
    let world = world().await;
    let object = binding(&json!({"name": "copy"}));
    for (etag, version) in [("e1", 1), ("e2", 2), ("e3", 3)] {
        has(&world, etag, &[("a", etag, version), ("b", "1", 1)]).await;
        rolled_out(&world, copy(&world, &object).await);
    }
    let before = copy(&world, &object).await;
    assert_eq!(before.revisions["a"], 3);
    // By this process, and by a new leader, which remembers nothing.
    for forgets in [false, true] {
        world.kube.remove(COPY);
        if forgets {
            world.context.copies.compared.forget("uid");
        }
        assert_eq!(copy(&world, &object).await, before, "forgets: {forgets}");
        let mut secret = world.kube.get(COPY).unwrap();
        secret["metadata"]["annotations"][COPY_STATE] = json!("{}");
        world.kube.put(COPY, secret);
        if forgets {
            world.context.copies.compared.forget("uid");
        }
        assert_eq!(copy(&world, &object).await, before, "stripped, forgets: {forgets}");
    }
    // Another value while it is gone.
    world.kube.remove(COPY);
    world.context.copies.compared.forget("uid");
    has(&world, "e4", &[("a", "4", 4), ("b", "1", 1)]).await;
    let now = copy(&world, &object).await;
    assert_eq!(now.revisions["a"], 4);
    // And where nobody has rolled out for it yet.
    let mut secret = world.kube.get(COPY).unwrap();
    secret["metadata"]["annotations"][COPY_STATE] = json!("{}");
    world.kube.put(COPY, secret);
    world.context.copies.compared.forget("uid");
    assert_eq!(copy(&world, &object).await.revisions["a"], 4);
}

#[tokio::test]
async fn the_count_of_another_copy_is_not_gone_on_with() {
    let world = world().await;
    let object = binding(&json!({"name": "copy"}));
    has(&world, "e1", &[("a", "1", 1)]).await;
    let mut other = copy(&world, &object).await;
    other.secret = "other".to_owned();
    other.revisions.insert("a".to_owned(), 7);
    rolled_out(&world, other);
    world.kube.remove(COPY);
    world.context.copies.compared.forget("uid");
    assert_eq!(copy(&world, &object).await.revisions["a"], 1);
}

#[tokio::test]
async fn entries_by_the_thousand_are_counted_together_and_fit_into_annotations() {
    let world = world().await;
    let object = binding(&json!({"name": "copy"}));
    let names: Vec<String> = (0..3_000).map(|n| format!("{n:090}")).collect();
    let mut secrets: Vec<_> = names.iter().map(|name| (name.as_str(), "1", 1)).collect();
    has(&world, "e1", &secrets).await;
    let outcome = look(&world, &object).await.unwrap().unwrap();
    assert!(
        outcome.condition.message.contains("3000 entries"),
        "{}",
        outcome.condition.message
    );
    let annotations = world.kube.get(COPY).unwrap()["metadata"]["annotations"].to_string();
    assert!(annotations.len() < 1_024, "{} bytes", annotations.len());
    assert_eq!(outcome.copy.unwrap().revisions[ALL], 1);
    // At rest it is known without the values, by a new leader, too.
    let before = reads(&world).await;
    world.context.copies.compared.forget("uid");
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    assert_eq!(reads(&world).await, before);
    world.kube.edit_secret(COPY, &names[7], "edited");
    assert_eq!(copy(&world, &object).await.revisions[ALL], 1);
    assert_eq!(text(&world, &names[7]).as_deref(), Some("1"));
    secrets[7].1 = "2";
    has(&world, "e2", &secrets).await;
    assert_eq!(copy(&world, &object).await.revisions[ALL], 2);
    // Few again: the count goes on.
    has(&world, "e3", &secrets[7..8]).await;
    assert_eq!(copy(&world, &object).await.revisions[&names[7]], 2);
}
