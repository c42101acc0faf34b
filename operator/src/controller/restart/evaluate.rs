//! What has changed since workloads were last rolled out, who uses it, and the mark that rolls them out anew: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use sealpod_core::kubernetes::{INJECT_LABEL, ROLL_OUT_PREFIX};
use sealpod_crds::SecretBinding;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::injector::{Binding, Pod, select};

/// Longest record of single versions, in bytes: an object's annotations have 256 KiB together.
const MAX_RECORD: usize = 96 * 1024;
/// Stands for all keys where they are too many to be recorded one by one.
pub const ALL: &str = "*";
/// Longest name of an annotation, behind its prefix.
const MAX_NAME: usize = 63;

/// The Secret of `spec.kubernetesSecret`, as far as workloads follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    pub secret: String,
    /// How often each entry has changed, or, where they are many, [`ALL`] of them together.
    pub revisions: BTreeMap<String, u64>,
    /// What it was made of, to tell whether one that was made again holds the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub made_of: String,
}

/// What the workloads of a binding use, by versions; never a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What injected pods get.
    pub versions: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Copy>,
}

/// What of a state differs from an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names of secrets, for injected pods.
    pub versions: BTreeSet<String>,
    /// Keys of the Secret.
    pub entries: BTreeSet<String>,
}

impl State {
    pub fn new(mut versions: BTreeMap<String, u64>, copy: Option<Copy>) -> Self {
        let names: usize = versions.keys().map(|name| name.len() + 8).sum();
        if names > MAX_RECORD {
            versions = BTreeMap::from([(ALL.to_owned(), number(&versions))]);
        }
        Self { versions, copy }
    }

    /// What has changed since `before`. What is gone changes nothing: pods keep what they have, and what comes again is
    /// as new.
    pub fn since(&self, before: &Self) -> Changes {
        let newer = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let changed = now.iter().filter(|(key, version)| then.get(*key) != Some(*version));
            changed.map(|(key, _)| key.clone()).collect()
        };
        let entries = match (&self.copy, &before.copy) {
            (Some(now), Some(then)) if now.secret == then.secret => newer(&now.revisions, &then.revisions),
            // A Secret that is seen for the first time has changed for nobody.
            _ => BTreeSet::new(),
        };
        Changes {
            versions: newer(&self.versions, &before.versions),
            entries,
        }
    }

    /// A few bytes for all of it.
    pub fn number(&self) -> u64 {
        number(self)
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.entries.is_empty()
    }

    /// At most five of their names, for people.
    pub fn named(&self) -> String {
        let all: BTreeSet<&str> = self.versions.iter().chain(&self.entries).map(String::as_str).collect();
        let first: Vec<_> = all.iter().take(5).map(|name| format!("`{name}`")).collect();
        let more = all.len().saturating_sub(5);
        let first = first.join(", ");
        if more == 0 {
            first
        } else {
            format!("{first} and {more} more")
        }
    }
}

/// Which entries of a Secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Entries {
    #[default]
    None,
    Some(BTreeSet<String>),
    All,
}

/// A binding as the injector sees it, as far as it decides which pods get it.
pub fn injected(binding: &SecretBinding) -> Binding {
    let selector = binding.spec.pod_selector.clone();
    Binding {
        name: binding.name_any(),
        mount_path: binding.mount_path(),
        size_limit: binding.spec.size_limit(),
        pod_selector: selector.map(Binding::selector),
        service_accounts: binding.spec.service_account_names.clone(),
        signals: None,
        calls: false,
        not_ready: None,
        unavailable: vec![],
        changes: None,
        deleted: binding.metadata.deletion_timestamp.is_some(),
    }
}

/// What a pod template uses of a binding.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Whether its pods are injected with the binding.
    pub injected: bool,
    /// Of the Secret, those that it uses.
    pub entries: Entries,
}

impl Uses {
    /// `template` as raw JSON; `bindings` are all of the namespace, because a pod that names one that does not exist gets
    /// none.
    pub fn of(
        template: &Value,
        namespace: &str,
        binding: &str,
        bindings: &[Arc<Binding>],
        secret: Option<&str>,
    ) -> Self {
        let pod = Pod(template);
        let asks = pod.label(INJECT_LABEL) == Some("true");
        let chosen = || select(pod, namespace, bindings).is_ok_and(|all| all.iter().any(|b| b.name == binding));
        Self {
            injected: asks && chosen(),
            entries: secret.map(|secret| entries(pod.spec(), secret)).unwrap_or_default(),
        }
    }

    /// What of the changes it uses.
    pub fn changed(&self, changes: &Changes) -> Changes {
        Changes {
            versions: if self.injected {
                changes.versions.clone()
            } else {
                BTreeSet::new()
            },
            entries: match &self.entries {
                Entries::None => BTreeSet::new(),
                // Which of them is not known.
                Entries::Some(_) if changes.entries.contains(ALL) => changes.entries.clone(),
                Entries::Some(keys) => keys & &changes.entries,
                Entries::All => changes.entries.clone(),
            },
        }
    }

    /// The mark of all that it uses: the same for the same versions, so that to write it twice rolls out once.
    pub fn mark(&self, state: &State) -> String {
        let versions = self.injected.then_some(&state.versions);
        let revisions = state.copy.iter().flat_map(|copy| &copy.revisions);
        let used = |key: &String| match &self.entries {
            Entries::None => false,
            Entries::Some(keys) => key == ALL || keys.contains(key),
            Entries::All => true,
        };
        let revisions: BTreeMap<_, _> = revisions.filter(|(key, _)| used(key)).collect();
        format!("{:016x}", number(&(versions, revisions)))
    }
}

/// The keys of a Secret that a pod's containers and volumes use. Credentials for pulling images are none of the app's.
fn entries(spec: &Value, secret: &str) -> Entries {
    let mut keys = BTreeSet::new();
    let (mut any, mut all) = (false, false);
    let is = |reference: &Value, field: &str| reference[field] == secret;
    for container in ["initContainers", "containers"]
        .iter()
        .flat_map(|list| items(&spec[*list]))
    {
        for variable in items(&container["env"]) {
            let reference = &variable["valueFrom"]["secretKeyRef"];
            if is(reference, "name") {
                any = true;
                keys.extend(reference["key"].as_str().map(str::to_owned));
            }
        }
        all |= items(&container["envFrom"])
            .iter()
            .any(|from| is(&from["secretRef"], "name"));
    }
    for volume in items(&spec["volumes"]) {
        let direct = (is(&volume["secret"], "secretName")).then_some(&volume["secret"]);
        let projected = items(&volume["projected"]["sources"])
            .iter()
            .map(|source| &source["secret"]);
        for source in direct.into_iter().chain(projected.filter(|source| is(source, "name"))) {
            any = true;
            match items(&source["items"]) {
                [] => all = true,
                items => keys.extend(items.iter().filter_map(|item| item["key"].as_str()).map(str::to_owned)),
            }
        }
    }
    match (all, any) {
        (true, _) => Entries::All,
        (false, true) => Entries::Some(keys),
        (false, false) => Entries::None,
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The annotation on pod templates that is this binding's.
pub fn annotation(binding: &str) -> String {
    if binding.len() <= MAX_NAME {
        return format!("{ROLL_OUT_PREFIX}{binding}");
    }
    let (start, hash) = (&binding[..MAX_NAME - 17], number(&binding));
    format!("{ROLL_OUT_PREFIX}{start}-{hash:016x}")
}

fn number(value: &impl Serialize) -> u64 {
    let hash = Sha256::digest(serde_json::to_vec(value).expect("names and numbers are plain data"));
    let first = hash[..8].try_into().expect("a hash has more than eight bytes");
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::injector::tests::binding;
    use serde_json::json;

    fn map(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect()
    }

    fn state(versions: &[(&str, u64)], revisions: &[(&str, u64)]) -> State {
        let copy = Copy {
            secret: "copy".to_owned(),
            revisions: map(revisions),
            made_of: String::new(),
        };
        State::new(map(versions), Some(copy))
    }

    fn keys(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_newer_or_new_has_changed_and_what_is_gone_has_not() {
        let before = state(&[("a", 1), ("b", 1), ("gone", 4)], &[("x", 1), ("gone", 1)]);
        let now = state(&[("a", 1), ("b", 2), ("new", 1)], &[("x", 2)]);
        let changes = now.since(&before);
        assert_eq!((changes.versions, changes.entries), (keys(&["b", "new"]), keys(&["x"])));
        assert!(before.since(&before).is_empty());
    }

    #[test]
    fn a_secret_that_is_new_or_has_another_name_has_changed_for_nobody() {
        let without = State::new(map(&[("a", 1)]), None);
        let with = state(&[("a", 1)], &[("x", 1)]);
        assert!(with.since(&without).is_empty() && without.since(&with).is_empty());
        let mut renamed = with.clone();
        renamed.copy.as_mut().unwrap().secret = "other".to_owned();
        renamed.copy.as_mut().unwrap().revisions = map(&[("x", 9)]);
        assert!(renamed.since(&with).is_empty());
    }

    #[test]
    fn too_many_keys_are_recorded_as_one() {
        let many: BTreeMap<_, _> = (0..20_000).map(|n| (format!("key-{n}"), 1)).collect();
        let before = State::new(many.clone(), None);
        assert!(serde_json::to_string(&before).unwrap().len() < MAX_RECORD);
        assert!(State::new(many.clone(), None).since(&before).is_empty());
        let mut changed = many;
        changed.insert("key-7".to_owned(), 2);
        assert_eq!(State::new(changed, None).since(&before).versions, keys(&["*"]));
    }

    fn uses(spec: &Value) -> Entries {
        entries(spec, "copy")
    }

    #[test]
    fn every_way_to_use_a_secret_is_found() {
        let env = |name: &str| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}}]);
        let of = |spec: Value| uses(&spec);
        assert_eq!(
            of(json!({"containers": [{"env": env("copy")}]})),
            Entries::Some(keys(&["a"]))
        );
        assert_eq!(
            of(json!({"initContainers": [{"env": env("copy")}]})),
            Entries::Some(keys(&["a"]))
        );
        assert_eq!(of(json!({"containers": [{"env": env("other")}]})), Entries::None);
        assert_eq!(
            of(json!({"containers": [{"envFrom": [{"secretRef": {"name": "copy"}}]}]})),
            Entries::All
        );
        assert_eq!(
            of(json!({"volumes": [{"secret": {"secretName": "copy"}}]})),
            Entries::All
        );
        let items = json!([{"key": "b", "path": "p"}]);
        assert_eq!(
            of(json!({"volumes": [{"secret": {"secretName": "copy", "items": items}}]})),
            Entries::Some(keys(&["b"]))
        );
        let projected =
            |source: Value| json!({"volumes": [{"projected": {"sources": [{"configMap": {"name": "copy"}}, source]}}]});
        assert_eq!(of(projected(json!({"secret": {"name": "copy"}}))), Entries::All);
        assert_eq!(
            of(projected(json!({"secret": {"name": "copy", "items": items}}))),
            Entries::Some(keys(&["b"]))
        );
        assert_eq!(of(projected(json!({"secret": {"name": "other"}}))), Entries::None);
        assert_eq!(of(json!({"imagePullSecrets": [{"name": "copy"}]})), Entries::None);
        assert_eq!(
            of(json!({"containers": [{"envFrom": "no list"}], "volumes": 7})),
            Entries::None
        );
    }

    fn template(labels: &Value, annotations: &Value) -> Value {
        json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": {"containers": [{"name": "app"}]}})
    }

    #[test]
    fn injected_is_what_the_injector_would_inject() {
        let bindings = [binding("db"), binding("mail")].map(Arc::new);
        let injected = |template: Value, of: &str| Uses::of(&template, "shop", of, &bindings, None).injected;
        let asks = json!({"sealpod.dev/inject": "true"});
        assert!(injected(template(&asks, &json!({})), "db"));
        let names = |list: &str| template(&asks, &json!({"sealpod.dev/binding": list}));
        assert!(injected(names("db"), "db") && !injected(names("mail"), "db"));
        assert!(!injected(names("db,absent"), "db"), "such a pod is refused");
        assert!(!injected(
            template(&json!({"sealpod.dev/inject": "false"}), &json!({})),
            "db"
        ));
        assert!(!injected(
            template(&json!({}), &json!({"sealpod.dev/binding": "db"})),
            "db"
        ));
    }

    #[test]
    fn a_workload_follows_only_what_it_uses() {
        let changes = |versions: &[&str], entries: &[&str]| Changes {
            versions: keys(versions),
            entries: keys(entries),
        };
        let injected = Uses {
            injected: true,
            entries: Entries::None,
        };
        let of_x = Uses {
            injected: false,
            entries: Entries::Some(keys(&["x"])),
        };
        let of_all = Uses {
            injected: false,
            entries: Entries::All,
        };
        let follows = |uses: &Uses, changes: &Changes| !uses.changed(changes).is_empty();
        assert!(follows(&injected, &changes(&["a"], &[])) && !follows(&injected, &changes(&[], &["x"])));
        assert!(follows(&of_x, &changes(&["a"], &["x"])) && !follows(&of_x, &changes(&["a"], &["y"])));
        assert!(follows(&of_all, &changes(&[], &["y"])) && !follows(&of_all, &changes(&["a"], &[])));
        assert!(!follows(&Uses::default(), &changes(&["a"], &["x"])));
        assert_eq!(of_x.changed(&changes(&["a"], &["x", "y"])).named(), "`x`");
        assert!(follows(&of_x, &changes(&[], &[ALL])), "it may be its own");
        assert_ne!(of_x.mark(&state(&[], &[(ALL, 1)])), of_x.mark(&state(&[], &[(ALL, 2)])));
    }

    #[test]
    fn the_mark_moves_with_what_is_used_and_with_nothing_else() {
        let of_x = Uses {
            injected: false,
            entries: Entries::Some(keys(&["x"])),
        };
        let base = of_x.mark(&state(&[("a", 1)], &[("x", 1), ("y", 1)]));
        assert_eq!(base, of_x.mark(&state(&[("a", 2)], &[("x", 1), ("y", 5)])));
        assert_ne!(base, of_x.mark(&state(&[("a", 1)], &[("x", 2), ("y", 1)])));
        let injected = Uses {
            injected: true,
            entries: Entries::None,
        };
        let base = injected.mark(&state(&[("a", 1)], &[("x", 1)]));
        assert_eq!(base, injected.mark(&state(&[("a", 1)], &[("x", 2)])));
        assert_ne!(base, injected.mark(&state(&[("a", 2)], &[("x", 1)])));
        assert_eq!(base.len(), 16);
    }

    #[test]
    fn every_binding_has_an_annotation_of_its_own() {
        assert_eq!(annotation("db"), "restart.sealpod.dev/db");
        let long = |end: &str| annotation(&format!("{}{end}", "a".repeat(190)));
        assert_ne!(long("b"), long("c"));
        assert_eq!(long("b").len(), ROLL_OUT_PREFIX.len() + MAX_NAME);
    }

    #[test]
    fn people_read_a_few_names() {
        let many = Changes {
            versions: (0..7).map(|n| format!("k{n}")).collect(),
            entries: BTreeSet::new(),
        };
        assert_eq!(many.named(), "`k0`, `k1`, `k2`, `k3`, `k4` and 2 more");
    }
}
