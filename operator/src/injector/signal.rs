//! `onChange.signal`: as which user the sidecar may send signals, and how it tells the containers of the pod apart.

use sealpod_core::injection::CONTAINER_VARIABLE;
use serde_json::Value;

use super::denial::Denial;
use super::pod::{Container, List, Pod, text};
use super::select::Binding;

/// Who a container runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: i64,
    /// None where the pod leaves it to the image.
    pub gid: Option<i64>,
}

/// The one user of all containers that get signals, which the sidecar then is: a process may signal those of its own user
/// without any capability, and see the environment of those of its own user and group. None where no binding of the pod
/// signals.
pub fn user(pod: Pod<'_>, chosen: &[&Binding], is_ours: fn(&str) -> bool) -> Result<Option<User>, Denial> {
    let mut first: Option<(User, &str)> = None;
    for binding in chosen {
        let Some(name) = &binding.signals else { continue };
        let user = user_of(pod, &binding.name, name, is_ours)?;
        let (known, other) = first.get_or_insert((user, name));
        if known.uid != user.uid {
            return Err(Denial::SignalUsers {
                one: (*other).to_owned(),
                other: name.clone(),
            });
        }
        // There are other ways to tell the processes apart; the user is what a signal needs.
        known.gid = known.gid.filter(|gid| user.gid == Some(*gid));
    }
    Ok(first.map(|(user, _)| user))
}

/// Who the container of that name runs as.
fn user_of(pod: Pod<'_>, binding: &str, name: &str, is_ours: fn(&str) -> bool) -> Result<User, Denial> {
    let named = |container: &Container| container.name() == name && !is_ours(container.name());
    let Some(target) = pod.all_containers().find(named) else {
        let known = pod.all_containers().filter(|container| !is_ours(container.name()));
        return Err(Denial::SignalContainer {
            binding: binding.to_owned(),
            container: name.to_owned(),
            known: known.map(|container| container.name().to_owned()).collect(),
        });
    };
    if target.list == List::Init && text(target.raw, "restartPolicy") != Some("Always") {
        return Err(Denial::SignalEnds {
            binding: binding.to_owned(),
            container: name.to_owned(),
        });
    }
    let uid = effective(pod, &target, "runAsUser").filter(|uid| *uid > 0);
    match uid {
        Some(uid) if pod.flag("shareProcessNamespace") => Ok(User {
            uid,
            gid: effective(pod, &target, "runAsGroup"),
        }),
        _ => Err(Denial::SignalNeeds {
            binding: binding.to_owned(),
            container: name.to_owned(),
            shared: pod.flag("shareProcessNamespace"),
            user: uid.is_some(),
        }),
    }
}

/// A number of the security context that a container runs with, where the pod says it.
fn effective(pod: Pod<'_>, container: &Container<'_>, field: &str) -> Option<i64> {
    let of = |object: &Value| object.get("securityContext")?.get(field)?.as_i64();
    of(container.raw).or_else(|| of(pod.spec()))
}

/// The variable by which the sidecar knows the container's main process. All containers of the pod that are the user's
/// get theirs: of processes without it nobody could say whose they are.
pub fn variable(container: &str) -> Value {
    serde_json::json!({"name": CONTAINER_VARIABLE, "value": container})
}

#[cfg(test)]
mod tests {
    use super::super::tests::binding;
    use super::*;
    use serde_json::json;

    fn signalling(name: &str, container: &str) -> Binding {
        Binding {
            signals: Some(container.to_owned()),
            ..binding(name)
        }
    }

    fn user_of(spec: &Value, bindings: &[Binding]) -> Result<Option<User>, String> {
        let pod = json!({"metadata": {}, "spec": spec});
        let chosen: Vec<&Binding> = bindings.iter().collect();
        user(Pod(&pod), &chosen, |name| name == "sealpod").map_err(|denial| denial.to_string())
    }

    fn found(spec: &Value, bindings: &[Binding]) -> Result<Option<i64>, String> {
        Ok(user_of(spec, bindings)?.map(|user| user.uid))
    }

    #[test]
    fn the_group_is_the_containers_own_or_the_pods_where_all_that_get_signals_have_it() {
        let spec = json!({
            "shareProcessNamespace": true, "securityContext": {"runAsUser": 7, "runAsGroup": 70},
            "containers": [{"name": "app"}, {"name": "own", "securityContext": {"runAsGroup": 80}}],
        });
        let group = |bindings: &[Binding]| user_of(&spec, bindings).unwrap().unwrap().gid;
        let (app, own) = (signalling("a", "app"), signalling("b", "own"));
        assert_eq!(group(std::slice::from_ref(&app)), Some(70));
        assert_eq!(group(std::slice::from_ref(&own)), Some(80));
        assert_eq!(group(&[app.clone(), signalling("c", "app")]), Some(70));
        assert_eq!(group(&[app, own]), None);
        let unknown = json!({
            "shareProcessNamespace": true,
            "containers": [{"name": "app", "securityContext": {"runAsUser": 7}}],
        });
        let user = user_of(&unknown, &[signalling("a", "app")]).unwrap();
        assert_eq!(user, Some(User { uid: 7, gid: None }));
    }

    #[test]
    fn the_user_is_the_containers_own_or_the_pods() {
        let spec = json!({
            "shareProcessNamespace": true, "securityContext": {"runAsUser": 7},
            "containers": [{"name": "app"}, {"name": "own", "securityContext": {"runAsUser": 8}}],
        });
        let get = |container| found(&spec, &[signalling("db", container)]).unwrap().unwrap();
        assert_eq!((get("app"), get("own")), (7, 8));
        assert_eq!(found(&spec, &[binding("db")]), Ok(None));
        assert_eq!(
            found(&spec, &[signalling("a", "app"), signalling("b", "app")]),
            Ok(Some(7))
        );
        let text = found(&spec, &[signalling("a", "app"), signalling("b", "own")]).unwrap_err();
        assert!(
            text.contains("\"app\"") && text.contains("\"own\"") && text.contains("runAsUser"),
            "{text}"
        );
    }

    #[test]
    fn without_what_it_needs_the_pod_is_refused_with_what_that_is() {
        let app = |user: Value| json!([{"name": "app", "securityContext": {"runAsUser": user}}]);
        for (spec, wants) in [
            (
                json!({"containers": app(json!(7))}),
                vec!["shareProcessNamespace: true"],
            ),
            (
                json!({"shareProcessNamespace": true, "containers": app(json!(null))}),
                vec!["runAsUser"],
            ),
            (
                json!({"shareProcessNamespace": true, "containers": app(json!(0))}),
                vec!["runAsUser", "other than 0"],
            ),
            (
                json!({"containers": [{"name": "app"}]}),
                vec!["shareProcessNamespace: true", "runAsUser"],
            ),
        ] {
            let text = found(&spec, &[signalling("db", "app")]).unwrap_err();
            assert!(
                text.contains("SecretBinding \"db\"") && text.contains("onChange"),
                "{text}"
            );
            for want in wants {
                assert!(text.contains(want), "{want} is not in {text}");
            }
        }
        let shared = |init: Value| json!({"shareProcessNamespace": true, "securityContext": {"runAsUser": 7}, "containers": [{"name": "app"}, {"name": "sealpod"}], "initContainers": init});
        for absent in ["other", "sealpod"] {
            let text = found(&shared(json!([])), &[signalling("db", absent)]).unwrap_err();
            assert!(text.contains("does not have") && text.contains("\"app\""), "{text}");
        }
        let text = found(&shared(json!([{"name": "once"}])), &[signalling("db", "once")]).unwrap_err();
        assert!(text.contains("ends before"), "{text}");
        let native = shared(json!([{"name": "native", "restartPolicy": "Always"}]));
        assert!(found(&native, &[signalling("db", "native")]).unwrap().is_some());
    }
}
