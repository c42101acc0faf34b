//! R11: something goes wrong behind each single effect of everything that each kind does, and it ends as if nothing had.

use sealpod_core::kubernetes::{API_KEY_SECRET_LABEL, KEY_ROTATED_AT, controls};
use sealpod_crds::{Application, Environment, SecretBinding};
use serde_json::json;

use super::super::binding::world::Death;
use super::*;

/// What keys in Secrets are worth while the operator is dead.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    Live,
    /// Whoever had them may have them no longer.
    End,
}

type Step = fn(&Stage);

struct Case {
    what: &'static str,
    before: Step,
    change: Step,
    keys: Keys,
}

/// Settled, and then changed.
async fn begun<K: Kind>(object: &str, case: &Case) -> Stage {
    let t = stage().await;
    (case.before)(&t);
    if t.world.kube.get(&at(object)).is_some() {
        t.settles::<K>(object).await;
    }
    (case.change)(&t);
    t.effects.go_on();
    t
}

async fn ends_the_same<K: Kind>(object: &str, cases: &[Case]) {
    for case in cases {
        let calm = begun::<K>(object, case).await;
        calm.settles::<K>(object).await;
        let all = calm.effects.count();
        assert!(all > 0, "{}: nothing to do", case.what);
        let wanted = calm.shape();
        for (death, count) in [Death::Killed, Death::Unheard]
            .into_iter()
            .flat_map(|d| (1..=all).map(move |n| (d, n)))
        {
            let what = format!("{}: {death:?} behind effect {count} of {all}", case.what);
            let mut t = begun::<K>(object, case).await;
            t.effects.die_after(count, death);
            // The last ones may be of a second look.
            let looks = async {
                for _ in 0..3 {
                    drop(t.looks::<K>(object).await);
                }
            };
            tokio::select! {
                () = looks => assert!(death == Death::Unheard, "{what}: it lives"),
                () = t.effects.killed() => {}
            }
            for (path, key) in t.keys() {
                assert!(case.keys == Keys::End || t.works(&key), "{what}: a dead key in {path}");
            }
            t.effects.go_on();
            if death == Death::Killed {
                t.world.restart(&t.effects);
            }
            t.settles::<K>(object).await;
            assert_eq!(t.shape(), wanted, "{what}");
        }
    }
}

#[tokio::test]
async fn an_application_that_is_made_or_changed() {
    let make: Step = |t| t.puts("applications/shop", &application());
    let cases = [
        Case {
            what: "made",
            before: |_| (),
            change: make,
            keys: Keys::Live,
        },
        Case {
            what: "edited",
            before: make,
            change: |t| {
                let less = json!([
                    {"name": "Prod", "slug": "prod", "configurations": {"REGION": "us", "NEW": "1"}}, {"name": "new"},
                ]);
                t.edits(
                    &at("applications/shop"),
                    &json!({"spec": {"displayName": "The shop", "environments": less}}),
                );
            },
            keys: Keys::Live,
        },
        Case {
            what: "its key rotated",
            before: make,
            change: |t| {
                let asked = json!({"metadata": {"annotations": {controls::ROTATE_KEY: "1"}}});
                t.edits(&at("applications/shop"), &asked);
            },
            keys: Keys::Live,
        },
        Case {
            what: "its key's Secret renamed",
            before: make,
            change: |t| {
                t.edits(
                    &at("applications/shop"),
                    &json!({"spec": {"apiKeySecretName": "other"}}),
                );
            },
            keys: Keys::Live,
        },
        Case {
            what: "its key withdrawn",
            before: make,
            change: |t| t.edits(&at("applications/shop"), &json!({"spec": {"apiKeySecretName": null}})),
            keys: Keys::Live,
        },
        Case {
            what: "its key's Secret deleted",
            before: make,
            change: |t| t.world.kube.remove(&format!("{SECRETS}key")),
            keys: Keys::Live,
        },
    ];
    ends_the_same::<Application>("applications/shop", &cases).await;
}

#[tokio::test]
async fn an_application_that_is_taken_over_or_deleted() {
    let make: Step = |t| t.puts("applications/shop", &application());
    let cases = [
        Case {
            what: "adopted",
            before: |_| (),
            change: |t| {
                let mut state = t.sealpod.state();
                state.has_application("shop", None);
                state
                    .application_keys
                    .push(("grm_of_the_former_owner".to_owned(), None));
                state.applications.get_mut("shop").unwrap()["labels"] = json!({
                    "sealpod.dev/adoptable-by": OWNER, API_KEY_SECRET_LABEL: "gone-uid/key",
                });
                drop(state);
                let mut spec = application();
                spec["adopt"] = json!(true);
                t.puts("applications/shop", &spec);
            },
            keys: Keys::Live,
        },
        Case {
            what: "deleted with all",
            before: make,
            change: |t| t.deletes("applications/shop"),
            keys: Keys::End,
        },
        Case {
            what: "released",
            before: |t| {
                let mut spec = application();
                spec["deletionPolicy"] = json!("Retain");
                t.puts("applications/shop", &spec);
            },
            change: |t| t.deletes("applications/shop"),
            keys: Keys::End,
        },
    ];
    ends_the_same::<Application>("applications/shop", &cases).await;
}

#[tokio::test]
async fn an_environment() {
    let make: Step = |t| environment(t, "Delete");
    let cases = [
        Case {
            what: "made",
            before: |_| (),
            change: make,
            keys: Keys::Live,
        },
        Case {
            what: "edited",
            before: make,
            change: |t| {
                let spec =
                    json!({"displayName": "QA", "configurations": {"LOG_LEVEL": "debug", "REGION": null, "NEW": "1"}});
                t.edits(&at("environments/qa"), &json!({"spec": spec}));
            },
            keys: Keys::Live,
        },
        Case {
            what: "deleted",
            before: make,
            change: |t| t.deletes("environments/qa"),
            keys: Keys::Live,
        },
        Case {
            what: "released",
            before: |t| environment(t, "Retain"),
            change: |t| t.deletes("environments/qa"),
            keys: Keys::Live,
        },
    ];
    ends_the_same::<Environment>("environments/qa", &cases).await;
}

#[tokio::test]
async fn a_binding_that_is_made_or_changed() {
    let cases = [
        Case {
            what: "made",
            before: |_| (),
            change: binding,
            keys: Keys::Live,
        },
        Case {
            what: "edited",
            before: binding,
            change: |t| {
                t.sealpod.state().secrets.insert("late", "v");
                let secrets = json!([{"name": "password", "path": "db/password"}, {"name": "late"}]);
                t.edits(&at("secretbindings/db"), &json!({"spec": {"secrets": secrets}}));
            },
            keys: Keys::Live,
        },
        Case {
            what: "with configurations from now on",
            before: binding,
            change: |t| {
                let configurations = json!({"enabled": true, "format": "env"});
                t.edits(
                    &at("secretbindings/db"),
                    &json!({"spec": {"configurations": configurations}}),
                );
            },
            keys: Keys::Live,
        },
        Case {
            what: "its key due",
            before: binding,
            change: |t| {
                let old = json!({"metadata": {"annotations": {KEY_ROTATED_AT: "2026-01-01T00:00:00Z"}}});
                t.edits(&format!("{SECRETS}db-sealpod-key"), &old);
                // In whatever second it was made, the new one is another's.
                let shown = json!({"status": {"keyRotatedAt": "2026-01-01T00:00:00Z"}});
                t.edits(&at("secretbindings/db"), &shown);
            },
            keys: Keys::Live,
        },
        Case {
            what: "its key Secret deleted",
            before: binding,
            change: |t| t.world.kube.remove(&format!("{SECRETS}db-sealpod-key")),
            keys: Keys::Live,
        },
        Case {
            what: "its account lost",
            before: binding,
            change: |t| {
                let mut state = t.sealpod.state();
                state.accounts.clear();
                state.rules.clear();
            },
            keys: Keys::End,
        },
        Case {
            what: "its application another",
            before: binding,
            change: |t| t.sealpod.state().is_another("shop"),
            keys: Keys::End,
        },
    ];
    ends_the_same::<SecretBinding>("secretbindings/db", &cases).await;
}

#[tokio::test]
async fn a_copy_and_a_binding_that_is_deleted() {
    let cases = [
        Case {
            what: "a value changed",
            before: binding,
            change: |t| {
                t.sealpod.state().secrets.insert("password", "another one");
            },
            keys: Keys::Live,
        },
        Case {
            what: "the copy deleted",
            before: binding,
            change: |t| t.world.kube.remove(&format!("{SECRETS}copy")),
            keys: Keys::Live,
        },
        Case {
            what: "the copy edited",
            before: binding,
            change: |t| {
                t.world
                    .kube
                    .edit_secret(&format!("{SECRETS}copy"), "password", "edited");
            },
            keys: Keys::Live,
        },
        Case {
            what: "the copy of another type",
            before: binding,
            change: |t| {
                let data = json!([{"key": "username", "template": "app"}, {"key": "password", "secret": "password"}]);
                let native = json!({"type": "kubernetes.io/basic-auth", "data": data});
                t.edits(&at("secretbindings/db"), &json!({"spec": {"kubernetesSecret": native}}));
            },
            keys: Keys::Live,
        },
        Case {
            what: "deleted",
            before: binding,
            change: |t| t.deletes("secretbindings/db"),
            keys: Keys::End,
        },
        Case {
            what: "not admitted any more",
            before: binding,
            change: |t| t.sealpod.state().is_owned_by("shop", Some("cluster/other/uid/shop")),
            keys: Keys::Live,
        },
    ];
    ends_the_same::<SecretBinding>("secretbindings/db", &cases).await;
}
