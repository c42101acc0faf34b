//! `spec.kubernetesSecret`: a Secret of Kubernetes with the binding's values.
//!
//! It has no owner reference, by which it would go with the binding whatever `deletionPolicy` says; its label with the
//! binding's UID tells whose it is. What it holds is kept beside the values as the server's mark for the state they were
//! read in, so that the values are read again only when that or the Secret itself has moved.

mod contents;
mod held;
mod revisions;
mod stored;
mod target;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use sealpod_client::{Error as ServerError, Fetched};
use sealpod_core::kubernetes::{COPY_OF_LABEL, KEY_SECRET_SUFFIX};
use sealpod_core::wire::bundle::{Bundle, BundleRequest};
use sealpod_crds::{DeletionPolicy, SecretBinding};
use tokio::time::timeout;

use super::{Delivery, Plan};
use crate::controller::conditions::{Status, Wanted};
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::kind::name;
use crate::controller::restart::Copy;
use crate::controller::uid::Uid;
use crate::controller::verdict::reasons;
use contents::{Contents, Data, Problem, contents};
use held::State;
pub use held::{Held, read as read_metadata};
use revisions::{Former, former, made_of, revisions};
use stored::Stored;
use target::Target;
pub use watch::{Watched, binding_of, watch};
use write::{Failure, quiet, write};

/// How long one try of a deletion waits for that. There are several.
const LISTED_WITHIN: Duration = Duration::from_secs(1);

pub const KUBERNETES_SECRET_SYNCED: &str = "KubernetesSecretSynced";

/// What was found when the values were last compared with a Secret, by the binding's UID; never the values. It spares
/// the reading of values again and again where the Secret itself does not tell that all is well: where something could
/// not be written, or where somebody has taken the record of who wrote what out of it.
#[derive(Debug, Default)]
pub struct Compared(Mutex<HashMap<String, Comparison>>);

/// The Secrets of all bindings.
pub struct Copies {
    /// The metadata of what carries our label.
    watched: Store<Watched>,
    compared: Compared,
}

impl Copies {
    pub fn new(watched: Store<Watched>) -> Self {
        Self {
            watched,
            compared: Compared::default(),
        }
    }

    /// Until all are listed that carry our label: under which names a binding has made them is known from nowhere else.
    async fn listed(&self) -> Result<(), Error> {
        let listed = timeout(LISTED_WITHIN, self.watched.wait_until_ready()).await;
        let listed = listed.is_ok_and(|listed| listed.is_ok());
        listed.then_some(()).ok_or(Error::NotNow(
            "the Secrets of spec.kubernetesSecret are not listed yet, and one of a former name would be left",
        ))
    }

    pub fn forget(&self, uid: &str) {
        self.compared.forget(uid);
    }

    pub fn forget_all(&self, gone: &HashSet<Uid>) {
        self.compared.state().retain(|uid, _| !gone.contains(&Uid::of(uid)));
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    /// Its name.
    secret: String,
    etag: String,
    spec: String,
    /// Of the Secret; none where there is none.
    resource_version: Option<String>,
    revisions: BTreeMap<String, u64>,
    /// [`made_of`] of what it holds, which is older than `etag` where nothing could be written.
    made_of: String,
    entries: usize,
    problem: Option<Problem>,
}

/// Whether it is Kubernetes that is waited for, where no watch tells that something has changed.
pub fn waits(reason: &str) -> bool {
    [
        reasons::SECRET_NOT_OWNED,
        reasons::SECRET_GOING,
        reasons::KUBERNETES_REFUSED,
    ]
    .contains(&reason)
}

/// What became of it.
pub struct Outcome {
    pub condition: Wanted,
    /// What workloads that use the Secret have to follow; none where there is no Secret of ours.
    pub copy: Option<Copy>,
}

/// What the server is asked about: the secrets, and the configurations if a template may take them.
pub fn request(object: &SecretBinding, plan: &Plan) -> BundleRequest {
    let native = object.spec.kubernetes_secret.as_ref();
    let entries = native.and_then(|native| native.data.as_ref());
    let mut request = plan.selection.request();
    request.configurations = plan.configurations && entries.is_some_and(|all| all.iter().any(|e| e.template.is_some()));
    request
}

/// Makes the Secret as the spec says. Nothing where it asks for none.
pub async fn sync(delivery: Delivery<'_>, context: &Context) -> Result<Option<Outcome>, Error> {
    let Delivery { object, plan, .. } = delivery;
    let wanted = object
        .spec
        .kubernetes_secret
        .as_ref()
        .map(|wanted| wanted.name.as_str());
    remove_former(object, wanted, context).await?;
    let target = match Target::parse(&object.spec, &plan.selection) {
        Ok(Some(target)) => target,
        Ok(None) => {
            context.copies.compared.forget(&object.uid().unwrap_or_default());
            return Ok(None);
        }
        Err(refusal) => return Ok(Some(failed(&Problem::new(refusal.reason, refusal.message)))),
    };
    let namespace = object.namespace().unwrap_or_default();
    let held = held::read(&context.kube, &namespace, target.name).await;
    let held = held.map_err(Error::kubernetes("reading the metadata of the Secret"))?;
    if let Some(problem) = held.as_ref().and_then(|held| not_ours(held, object)) {
        return Ok(Some(failed(&problem)));
    }
    let uid = object.uid().unwrap_or_default();
    let etag = context.resolutions.etag(&uid).unwrap_or_default();
    if let Some(held) = &held
        && held.is(&target, &object.name_any(), &etag)
    {
        let comparison = Comparison::of(&target, &etag, held.state(), held.metadata.resource_version.clone());
        let outcome = comparison.outcome();
        context.copies.compared.keep(&uid, comparison);
        return Ok(Some(outcome));
    }
    let version = held.as_ref().and_then(|held| held.metadata.resource_version.clone());
    if let Some(before) = context.copies.compared.get(&uid)
        && (before.etag == etag && before.spec == target.digest && before.resource_version == version)
    {
        return Ok(Some(before.outcome()));
    }
    match renew(delivery, &target, &etag, held, context).await {
        Ok(comparison) => {
            let outcome = comparison.outcome();
            context.copies.compared.keep(&uid, comparison);
            Ok(Some(outcome))
        }
        Err(Failure::Problem(problem)) => Ok(Some(failed(&problem))),
        Err(Failure::Error(error)) => Err(error),
    }
}

/// What becomes of the copies when the binding goes. An error where they are not all known.
pub async fn clean_up(object: &SecretBinding, context: &Context) -> Result<(), Error> {
    context.copies.compared.forget(&object.uid().unwrap_or_default());
    let listed = context.copies.listed().await;
    let now = object.spec.kubernetes_secret.as_ref();
    for secret in candidates(object, now.map(|wanted| wanted.name.as_str()), context) {
        let policy = now
            .filter(|wanted| wanted.name == secret)
            .map(|wanted| wanted.deletion_policy);
        remove(object, &secret, policy, context).await?;
    }
    listed
}

/// The copies that the binding made under other names.
async fn remove_former(object: &SecretBinding, wanted: Option<&str>, context: &Context) -> Result<(), Error> {
    for secret in candidates(object, None, context) {
        if Some(secret.as_str()) != wanted {
            remove(object, &secret, None, context).await?;
        }
    }
    Ok(())
}

/// Names of what the watch has seen of the binding's copies, and `wanted`. Hints only: each is read before it is deleted.
fn candidates(object: &SecretBinding, wanted: Option<&str>, context: &Context) -> Vec<String> {
    let (namespace, uid) = (object.namespace(), object.uid());
    let found = context.copies.watched.state_filter(|secret| {
        secret.metadata.namespace == namespace && uid.is_some() && secret.labels().get(COPY_OF_LABEL) == uid.as_ref()
    });
    let mut all: Vec<String> = found.iter().map(|secret| secret.name_any()).collect();
    all.extend(wanted.map(str::to_owned));
    all.sort_unstable();
    all.dedup();
    // What a user has put our label on there is still no copy.
    all.retain(|name| !name.ends_with(KEY_SECRET_SUFFIX));
    all
}

/// Deletes a copy of this binding if the policy says so: `policy`, else that on the Secret.
async fn remove(
    object: &SecretBinding,
    secret: &str,
    policy: Option<DeletionPolicy>,
    context: &Context,
) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let held = held::read(&context.kube, &namespace, secret).await;
    let held = held.map_err(Error::kubernetes("reading the metadata of a former Secret"))?;
    let Some(held) = held.filter(|held| held.is_of(object) && !held.is_going()) else {
        return Ok(());
    };
    if policy.unwrap_or_else(|| held.policy()) == DeletionPolicy::Retain {
        return Ok(());
    }
    let deleted = stored::delete(&context.kube, &namespace, &held).await;
    deleted.map_err(|error| Error::kubernetes("deleting the Secret")(quiet(error)))?;
    tracing::info!(binding = %name(object), secret, "the Secret of spec.kubernetesSecret is deleted");
    Ok(())
}

fn not_ours(held: &Held, object: &SecretBinding) -> Option<Problem> {
    let secret = held.metadata.name.as_deref().unwrap_or_default();
    if !held.is_of(object) {
        let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
        let message = format!(
            "Secret `{secret}` exists and does not belong to this SecretBinding, so it is left alone: delete it, name another \
             one in spec.kubernetesSecret.name, or hand it over, by which what it holds is replaced: kubectl --namespace \
             {namespace} label --overwrite secret {secret} {COPY_OF_LABEL}={uid}"
        );
        return Some(Problem::new(reasons::SECRET_NOT_OWNED, message));
    }
    held.is_going().then(|| {
        let message = format!(
            "Secret `{secret}` is being deleted and waits for its finalizers: it is made again when it is gone"
        );
        Problem::new(reasons::SECRET_GOING, message)
    })
}

/// Reads the values once, with the binding's own key, and writes what differs. `held` is the Secret as it was seen.
async fn renew(
    delivery: Delivery<'_>,
    target: &Target<'_>,
    etag: &str,
    held: Option<Held>,
    context: &Context,
) -> Result<Comparison, Failure> {
    let object = delivery.object;
    let namespace = object.namespace().unwrap_or_default();
    let bundle = match values(delivery, context).await {
        Ok(bundle) => bundle,
        Err(Failure::Problem(problem)) => {
            let former = former(object, target.name, held.as_ref().map(Held::state), context).await?;
            return Ok(Comparison::unwritten(target, etag, held, former, problem));
        }
        Err(error) => return Err(error),
    };
    let stored = stored::read(&context.kube, &namespace, target.name).await;
    let stored = stored.map_err(|error| Error::kubernetes("reading the Secret")(quiet(error)))?;
    // Read again with its values: it may be another one by now.
    if let Some(problem) = stored.as_ref().and_then(|stored| not_ours(&stored.held(), object)) {
        return Err(problem.into());
    }
    let old = stored.as_ref().map(|stored| &stored.data);
    let state = stored.as_ref().map(|stored| stored.held().state());
    let former = former(object, target.name, state, context).await?;
    let made = match contents(target, &delivery.plan.selection, &bundle, old) {
        Ok(made) => made,
        // Nothing is written: what is there stays.
        Err(problem) => {
            let held = stored.as_ref().map(Stored::held);
            return Ok(Comparison::unwritten(target, etag, held, former, problem));
        }
    };
    drop(bundle);
    let state = state_of(target, etag, &made, old, &former);
    let held = write(object, target, &state, &made.data, stored, context).await?;
    let mut comparison = Comparison::of(target, etag, state, held.metadata.resource_version);
    comparison.problem = made.problem;
    Ok(comparison)
}

/// The values, in one request, by the key that the binding's pods use. A problem is that of the values, and the same
/// as long as they are.
async fn values(delivery: Delivery<'_>, context: &Context) -> Result<Bundle, Failure> {
    let client = context.server.with_key(delivery.granted.key.clone());
    let client = client.map_err(|_| Error::NotNow("the connection to the server cannot be set up"))?;
    let mut request = request(delivery.object, delivery.plan);
    request.values = true;
    let organization = client.org(context.server.organization());
    let environment = &delivery.object.spec.environment;
    match organization
        .bundle(&delivery.plan.project, environment, &request, None)
        .await
    {
        Ok(Fetched::Bundle(bundle)) => Ok(*bundle),
        Ok(Fetched::NotModified) => Err(Error::NotNow("the server says that nothing has changed").into()),
        // The next look finds out which, and says so; the Secret stays as it is.
        Err(ServerError::Unauthorized(_) | ServerError::Forbidden(_)) => {
            Err(Error::NotNow("the binding's key may not read the values just now").into())
        }
        // The same question was just answered without the values, so it is they that are too much.
        Err(ServerError::Rejected(problem)) if problem.errors.contains_key("key") => Err(too_large().into()),
        Err(ServerError::TooLarge { .. }) => Err(too_large().into()),
        Err(error) => Err(Error::server("reading the values for the Secret")(error).into()),
    }
}

fn too_large() -> Problem {
    let message = "the values that the binding names are more than one answer of the server holds: name fewer in \
                   spec.secrets, or divide them between bindings";
    Problem::new(reasons::TOO_LARGE, message)
}

fn state_of(target: &Target<'_>, etag: &str, made: &Contents, old: Option<&Data>, former: &Former) -> State {
    let (revisions, keys) = revisions(former, &made_of(etag, &target.digest), &made.data, old);
    State {
        // What could not be made as it should be is compared again by the next leader.
        etag: made.problem.as_ref().map_or(etag, |_| "").to_owned(),
        spec: target.digest.clone(),
        revisions,
        keys,
        labels: target.labels.keys().cloned().collect(),
        annotations: target.annotations.keys().cloned().collect(),
    }
}

fn failed(problem: &Problem) -> Outcome {
    Outcome {
        condition: Wanted::new(
            KUBERNETES_SECRET_SYNCED,
            Status::False,
            problem.reason,
            problem.message.clone(),
        ),
        copy: None,
    }
}

impl Comparison {
    /// Of a Secret that is as it should be.
    fn of(target: &Target<'_>, etag: &str, state: State, resource_version: Option<String>) -> Self {
        Self {
            secret: target.name.to_owned(),
            etag: etag.to_owned(),
            spec: target.digest.clone(),
            resource_version,
            made_of: made_of(etag, &target.digest),
            entries: state.entries(),
            revisions: state.revisions,
            problem: None,
        }
    }

    /// Of one that stays as it is. Until the server, the spec or the Secret moves, the values would be read in vain.
    fn unwritten(target: &Target<'_>, etag: &str, held: Option<Held>, former: Former, problem: Problem) -> Self {
        Self {
            secret: target.name.to_owned(),
            etag: etag.to_owned(),
            spec: target.digest.clone(),
            resource_version: held.and_then(|held| held.metadata.resource_version),
            revisions: former.revisions,
            made_of: former.made_of,
            entries: 0,
            problem: Some(problem),
        }
    }

    fn outcome(&self) -> Outcome {
        let is_there = self.resource_version.is_some() && !self.revisions.is_empty();
        let copy = is_there.then(|| Copy {
            secret: self.secret.clone(),
            revisions: self.revisions.clone(),
            made_of: self.made_of.clone(),
        });
        if let Some(problem) = &self.problem {
            return Outcome {
                copy,
                ..failed(problem)
            };
        }
        let message = match self.entries {
            1 => format!("Secret `{}` has its 1 entry", self.secret),
            entries => format!("Secret `{}` has its {entries} entries", self.secret),
        };
        Outcome {
            condition: Wanted::new(KUBERNETES_SECRET_SYNCED, Status::True, "Synced", message),
            copy,
        }
    }
}

impl Compared {
    fn get(&self, uid: &str) -> Option<Comparison> {
        self.state().get(uid).cloned()
    }

    fn keep(&self, uid: &str, comparison: Comparison) {
        self.state().insert(uid.to_owned(), comparison);
    }

    fn forget(&self, uid: &str) {
        self.state().remove(uid);
    }

    fn state(&self) -> MutexGuard<'_, HashMap<String, Comparison>> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
