//! What a tenant tries in order to keep a right that others have ended.

use std::sync::Arc;

use super::*;
use crate::controller::scope::Scope;

const VICTIMS: &str = "/apis/sealpod.dev/v1alpha1/namespaces/victim/applications/shop";

/// A binding that reads an Application of `victim`, whose namespace admits that of the binding, and an Application of
/// its own namespace that is not on the server.
async fn guest() -> Test {
    let test = test().await;
    let kube = &test.world.kube;
    kube.put(
        "/api/v1/namespaces/victim",
        json!({"metadata": {"name": "victim", "uid": "victim-uid"}}),
    );
    let spec = json!({"allowedNamespaces": {"from": "All"}});
    kube.put(
        VICTIMS,
        json!({"metadata": {"name": "shop", "namespace": "victim"}, "spec": spec}),
    );
    test.sealpod
        .state()
        .is_owned_by("shop", Some("cluster/victim/victim-uid/shop"));
    test.edit(BINDING, |binding| {
        binding["spec"]["applicationRef"]["namespace"] = json!("victim");
    });
    test.look().await.unwrap();
    test.assert_whole("admitted");
    test
}

/// The server has one application: from here on it is another, which the guest owns.
fn own_application(test: &Test) {
    let mut state = test.sealpod.state();
    state.is_owned_by("shop", Some(OWNER));
    state.is_another("shop");
    drop(state);
    test.edit(BINDING, |binding| {
        binding["spec"]["applicationRef"] = json!({"name": "shop"});
    });
}

#[tokio::test]
async fn no_right_outlasts_its_application_by_a_reference_to_another_and_a_spec_that_cannot_be_acted_on() {
    type Edit = fn(&Test);
    let ways: [(&str, Edit, &str); 3] = [
        (
            "an invalid spec",
            |test| {
                test.edit(BINDING, |binding| {
                    let secrets = json!([{"name": "a", "path": "x"}, {"name": "b", "path": "x/y"}]);
                    binding["spec"]["secrets"] = secrets;
                });
            },
            "PathCollision",
        ),
        (
            "a Secret in the way",
            |test| {
                test.world
                    .kube
                    .put(SECRET, json!({"metadata": {"name": "db-sealpod-key"}}));
            },
            "SecretNotOwned",
        ),
        (
            "a pause",
            |test| {
                test.edit(BINDING, |binding| {
                    binding["metadata"]["annotations"] = json!({"sealpod.dev/paused": "true"});
                });
            },
            "Paused",
        ),
    ];
    for (what, way, reason) in ways {
        let test = guest().await;
        way(&test);
        test.look().await.unwrap();
        assert_eq!(test.reason(), reason, "{what}");
        assert_eq!(test.sealpod.state().rules.len(), 1, "{what} alone ends nothing");
        own_application(&test);
        test.look().await.unwrap();
        assert_eq!(test.reason(), reason, "{what}");
        assert!(test.sealpod.state().rules.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn no_right_lives_on_by_a_reference_that_nobody_can_follow() {
    let watched = || Scope::new(vec!["shop".to_owned(), "victim".to_owned()]);
    for (scope, reference) in [
        (Scope::default(), json!({"name": "a b"})),
        (Scope::default(), json!({"name": "?watch=true&timeoutSeconds=86400"})),
        (Scope::default(), json!({"name": "shop", "namespace": "a b"})),
        (Scope::default(), json!({"name": "shop", "namespace": "../secrets"})),
        (watched(), json!({"name": "shop", "namespace": "unwatched"})),
    ] {
        for paused in ["false", "true"] {
            let mut test = guest().await;
            Arc::get_mut(&mut test.world.context).unwrap().scope = scope.clone();
            // As a real one refuses what its roles do not give.
            let call = "GET /api/v1/namespaces/unwatched";
            test.world.kube.refuse(call, 403, "Forbidden");
            test.edit(BINDING, |binding| {
                binding["spec"]["applicationRef"] = reference.clone();
                binding["metadata"]["annotations"] = json!({"sealpod.dev/paused": paused});
            });
            test.world.kube.take_calls();
            test.look().await.unwrap();
            assert!(test.sealpod.state().rules.is_empty(), "{reference}, paused: {paused}");
            let asked = test.world.kube.take_calls();
            let strange = |call: &&String| call.contains("applications") || call.contains("unwatched");
            assert_eq!(asked.iter().find(strange), None, "{reference}");
        }
    }
}

#[tokio::test]
async fn no_right_lives_on_because_nothing_can_be_written_to_the_binding() {
    for (call, paused) in [
        (format!("PATCH {BINDING}/status"), "true"),
        (format!("PATCH {BINDING}"), "false"),
    ] {
        let test = guest().await;
        test.edit(BINDING, |binding| {
            binding["metadata"]["annotations"] = json!({"sealpod.dev/paused": paused});
            binding["metadata"]["finalizers"] = json!([]);
        });
        test.edit(VICTIMS, |application| application["spec"] = json!({}));
        // As for an object that is as large as etcd takes.
        test.world.kube.refuse(&call, 413, "RequestEntityTooLarge");
        test.look().await.unwrap_err();
        assert!(test.sealpod.state().rules.is_empty(), "{call}");
    }
}
