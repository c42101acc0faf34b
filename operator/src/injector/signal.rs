//! `onChange.signal`: which containers get a signal from the sidecar, and as which user it may send one.

use sealpod_core::injection::CONTAINER_VARIABLE;
use serde_json::Value;

use super::denial::Denial;
use super::plan::Shape;
use super::pod::{Container, List, Pod};
use super::select::Binding;

/// Containers that get signals, and the one user of all of them, which the sidecar then is: a process may signal those of
/// its own user without any capability.
#[derive(Debug)]
pub struct Signals<'a> {
    pub uid: i64,
    pub containers: Vec<Container<'a>>,
}

/// None where no binding of the pod signals, or where nothing stays in the pod that could: then it needs nothing for it.
pub fn of<'a>(
    pod: Pod<'a>,
    chosen: &[&Binding],
    shape: Shape,
    is_ours: fn(&str) -> bool,
) -> Result<Option<Signals<'a>>, Denial> {
    let mut signals: Option<Signals<'a>> = None;
    for binding in chosen.iter().filter(|_| shape != Shape::Init) {
        let Some(name) = &binding.signals else { continue };
        let (target, uid) = target(pod, &binding.name, name, is_ours)?;
        let known = signals.get_or_insert(Signals {
            uid,
            containers: vec![],
        });
        if let Some(other) = known.containers.first().filter(|_| known.uid != uid) {
            return Err(Denial::SignalUsers {
                one: other.name().to_owned(),
                other: name.clone(),
            });
        }
        if !known.containers.iter().any(|other| other.name() == name) {
            known.containers.push(target);
        }
    }
    Ok(signals)
}

/// The container and the user that it runs as.
fn target<'a>(
    pod: Pod<'a>,
    binding: &str,
    name: &str,
    is_ours: fn(&str) -> bool,
) -> Result<(Container<'a>, i64), Denial> {
    let named = |container: &Container| container.name() == name && !is_ours(container.name());
    let Some(target) = pod.all_containers().find(named) else {
        let known = pod.all_containers().filter(|container| !is_ours(container.name()));
        return Err(Denial::SignalContainer {
            binding: binding.to_owned(),
            container: name.to_owned(),
            known: known.map(|container| container.name().to_owned()).collect(),
        });
    };
    if target.list == List::Init && !target.stays() {
        return Err(Denial::SignalEnds {
            binding: binding.to_owned(),
            container: name.to_owned(),
        });
    }
    let uid = uid(pod, &target).filter(|uid| *uid > 0);
    match uid {
        Some(uid) if pod.flag("shareProcessNamespace") => Ok((target, uid)),
        _ => Err(Denial::SignalNeeds {
            binding: binding.to_owned(),
            container: name.to_owned(),
            shared: pod.flag("shareProcessNamespace"),
            user: uid.is_some(),
        }),
    }
}

/// The user that a container runs as, where the pod says it.
fn uid(pod: Pod<'_>, container: &Container<'_>) -> Option<i64> {
    let of = |object: &Value| object.get("securityContext")?.get("runAsUser")?.as_i64();
    of(container.raw).or_else(|| of(pod.spec()))
}

/// The variable with the name of a container that gets signals, for nodes where its mounts do not tell it.
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

    fn found(spec: &Value, bindings: &[Binding]) -> Result<Option<i64>, String> {
        let pod = json!({"metadata": {}, "spec": spec});
        let chosen: Vec<&Binding> = bindings.iter().collect();
        let signals = of(Pod(&pod), &chosen, Shape::Sidecar, |name| name == "sealpod");
        let signals = signals.map_err(|denial| denial.to_string())?;
        Ok(signals.map(|signals| signals.uid))
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
