//! SecretBindings as the API server has them, and what the cache keeps of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sealpod_core::kubernetes::MOUNT_ROOT;
use sealpod_crds::SecretBinding;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::slim::{Slim, or_default};
use super::table::{Entry, Placed};
use crate::injector::denial::NotSelected;
use crate::injector::select::{Binding, Change, Files, NotReady, Turn, Unavailable};

/// Longest piece of a status that is kept, in bytes: with what stands before it, it fills a warning.
const REMEMBERED: usize = 200;
/// The conditions without which pods get no files.
pub const OF_FILES: [&str; 3] = ["AccessGranted", "SecretsResolved", "KeyFresh"];
/// Names of secrets that a warning tells.
const NAMED: usize = 3;

pub type Read = Slim<SecretBinding, Spec, Status>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    mount_path: Option<String>,
    #[serde(deserialize_with = "or_default")]
    size_limit: String,
    pod_selector: Option<LabelSelector>,
    #[serde(deserialize_with = "or_default")]
    service_account_names: Vec<String>,
    on_change: Option<OnChange>,
}

#[derive(Debug, Clone, Deserialize)]
struct OnChange {
    signal: Option<Signal>,
    http: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
struct Signal {
    container: String,
}

/// For warnings only: users can write status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// As text: a time that we cannot read must not stop the list.
    next_change_at: Option<String>,
    next_change: Option<NextChange>,
    #[serde(deserialize_with = "or_default")]
    secrets: Vec<Secret>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NextChange {
    #[serde(deserialize_with = "or_default")]
    secrets: Vec<SecretChange>,
    #[serde(deserialize_with = "or_default")]
    more: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct SecretChange {
    name: String,
    /// As text: one that is newer than we are must not stop the list.
    change: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Secret {
    name: String,
    /// As text: one that is newer than we are must not stop the list.
    state: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
    #[serde(default, deserialize_with = "or_default")]
    reason: String,
    #[serde(default, deserialize_with = "or_default")]
    message: String,
}

impl Entry for Binding {
    fn name(&self) -> &str {
        &self.name
    }
}

impl From<Read> for Placed<Binding> {
    fn from(read: Read) -> Self {
        Self {
            namespace: read.namespace().to_owned(),
            entry: Binding::from(read),
        }
    }
}

impl From<Read> for Binding {
    fn from(read: Read) -> Self {
        let name = read.name().to_owned();
        let (spec, unread) = match read.spec {
            Ok(spec) => (spec, None),
            Err(error) => {
                let namespace = read.metadata.namespace.as_deref();
                tracing::warn!(namespace, name, error, "cannot read this SecretBinding; no pod gets it");
                (Spec::default(), Some(Err(NotSelected::Unreadable)))
            }
        };
        let Spec {
            mount_path,
            size_limit,
            pod_selector,
            service_account_names,
            on_change,
        } = spec;
        let status = read.status.unwrap_or_default();
        Self {
            mount_path: mount_path.unwrap_or_else(|| format!("{MOUNT_ROOT}/{name}")),
            size_limit: sealpod_crds::parse_size(&size_limit),
            pod_selector: unread.or(pod_selector.map(Self::selector)),
            service_accounts: tight(service_account_names),
            calls: on_change.as_ref().is_some_and(|on_change| on_change.http.is_some()),
            signals: on_change
                .and_then(|on_change| on_change.signal)
                .map(|signal| signal.container),
            not_ready: not_ready(&status.conditions),
            unavailable: unavailable(&status.secrets),
            changes: change(status.next_change_at.as_deref(), status.next_change.unwrap_or_default()),
            deleted: read.deleted,
            name,
        }
    }
}

fn not_ready(conditions: &[Condition]) -> Option<NotReady> {
    let Some(ready) = conditions.iter().find(|condition| condition.r#type == "Ready") else {
        return Some(NotReady {
            files: Files::Unknown,
            why: "the controller has not looked at it yet".to_owned(),
        });
    };
    (ready.status != "True").then(|| NotReady {
        files: files(ready, conditions),
        why: cut(format!("{}: {}", ready.reason, ready.message)),
    })
}

/// By the condition that `ready` repeats. Without one the others may be of an earlier look, at which all was well.
fn files(ready: &Condition, conditions: &[Condition]) -> Files {
    let blocks = |condition: &&Condition| {
        !["Ready", "Stalled"].contains(&condition.r#type.as_str())
            && condition.status != "True"
            && (&condition.reason, &condition.message) == (&ready.reason, &ready.message)
    };
    match conditions
        .iter()
        .find(blocks)
        .map(|condition| condition.r#type.as_str())
    {
        Some(kind) if OF_FILES.contains(&kind) => Files::Awaited,
        // What is made beside the files.
        Some(_) => Files::Delivered,
        None => Files::Unknown,
    }
}

/// In a box, because most bindings have none.
fn change(at: Option<&str>, next: NextChange) -> Option<Box<Change>> {
    let NextChange { secrets, more } = next;
    let known = secrets.into_iter().filter_map(|secret| {
        let begins = match secret.change.as_str() {
            "Begins" => true,
            "Ends" => false,
            _ => return None,
        };
        let name = cut(secret.name);
        Some(Turn { name, begins })
    });
    Some(Box::new(Change {
        at: at?.parse().ok()?,
        secrets: tight(known.take(NAMED)),
        more: usize::try_from(more).unwrap_or(0),
    }))
}

/// The secrets that pods do not get, by what is wrong with them.
fn unavailable(secrets: &[Secret]) -> Vec<Unavailable> {
    let of = |state: &'static str| secrets.iter().filter(move |secret| secret.state == state);
    let all = ["Missing", "Denied", "Inactive"]
        .into_iter()
        .filter(|state| of(state).next().is_some())
        .map(|state| Unavailable {
            state,
            names: tight(of(state).take(NAMED).map(|secret| cut(secret.name.clone()))),
            more: of(state).count().saturating_sub(NAMED),
        });
    tight(all)
}

/// Without room for more: a list that grew has room for four, and every binding has some that will never grow.
fn tight<T>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.shrink_to_fit();
    all
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REMEMBERED));
    text.shrink_to_fit();
    text
}
