//! What becomes of a Secret that the spec no longer names, and of the policy that says so.

use super::*;
use crate::controller::binding::world::listed;
use kube::runtime::watcher::Event;

/// The watch has seen the Secret.
fn watched(world: &mut World) {
    let secret = serde_json::from_value(world.kube.get(COPY).unwrap()).unwrap();
    let (store, _) = listed(&[secret]);
    std::sync::Arc::get_mut(&mut world.context).unwrap().copies = Copies::new(store);
}

#[tokio::test]
async fn the_former_secret_goes_or_stays_as_its_policy_says() {
    for (policy, stays) in [("Delete", false), ("Retain", true)] {
        let mut world = world().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        let native = |name: &str| binding(&json!({"name": name, "deletionPolicy": policy}));
        look(&world, &native("copy")).await.unwrap();
        watched(&mut world);
        look(&world, &native("other")).await.unwrap();
        assert!(world.kube.get("/api/v1/namespaces/shop/secrets/other").is_some());
        assert_eq!(world.kube.get(COPY).is_some(), stays, "{policy}, renamed");
    }
    for (policy, stays) in [("Delete", false), ("Retain", true)] {
        let mut world = world().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        let native = binding(&json!({"name": "copy", "deletionPolicy": policy}));
        look(&world, &native).await.unwrap();
        watched(&mut world);
        assert!(look(&world, &object()).await.unwrap().is_none());
        assert_eq!(world.kube.get(COPY).is_some(), stays, "{policy}, taken out");
    }
    for (policy, stays) in [("Delete", false), ("Retain", true)] {
        let world = world().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        let native = binding(&json!({"name": "copy", "deletionPolicy": policy}));
        look(&world, &native).await.unwrap();
        clean_up(&native, &world.context).await.unwrap();
        assert_eq!(world.kube.get(COPY).is_some(), stays, "{policy}, the binding deleted");
    }
}

#[tokio::test]
async fn an_edit_of_the_policy_reaches_the_secret_before_it_is_needed() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy"}))).await.unwrap();
    look(&world, &binding(&json!({"name": "copy", "deletionPolicy": "Delete"})))
        .await
        .unwrap();
    let secret = world.kube.get(COPY).unwrap();
    assert_eq!(secret["metadata"]["annotations"][COPY_DELETION_POLICY], "Delete");
    assert!(
        secret["metadata"]["annotations"][COPY_STATE]
            .as_str()
            .unwrap()
            .contains("\"a\":1")
    );
}

#[tokio::test]
async fn a_binding_is_not_let_go_before_its_former_secrets_are_known() {
    let mut world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let native = |name: &str| binding(&json!({"name": name, "deletionPolicy": "Delete"}));
    look(&world, &native("copy")).await.unwrap();
    // Renamed while no operator ran, and deleted before one has listed anything.
    let (store, mut writer) = kube::runtime::reflector::store();
    std::sync::Arc::get_mut(&mut world.context).unwrap().copies = Copies::new(store);
    let error = clean_up(&native("other"), &world.context).await.unwrap_err();
    assert!(error.to_string().contains("not listed yet"), "{error}");
    assert!(world.kube.get(COPY).is_some());
    let secret = serde_json::from_value(world.kube.get(COPY).unwrap()).unwrap();
    for event in [Event::Init, Event::InitApply(secret), Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    clean_up(&native("other"), &world.context).await.unwrap();
    assert!(world.kube.get(COPY).is_none());
}
