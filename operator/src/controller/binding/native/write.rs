//! The writing of the Secret, and what becomes of a write that is refused.

use kube::core::Status as ApiStatus;
use kube::{Client, ResourceExt};
use sealpod_crds::SecretBinding;

use super::contents::{Data, Problem};
use super::held::{Held, State};
use super::stored::{self, Run, Stored};
use super::target::Target;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::kind::name;
use crate::controller::verdict::reasons;

pub enum Failure {
    /// Told by the condition.
    Problem(Problem),
    /// Tried again soon.
    Error(Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Writes what differs.
pub async fn write(
    object: &SecretBinding,
    target: &Target<'_>,
    state: &State,
    data: &Data,
    stored: Option<Stored>,
    context: &Context,
) -> Result<Held, Failure> {
    let client = &context.kube;
    let written = match stored {
        Some(stored) => {
            let held = stored.held();
            let fits = stored.kind == target.kind.as_str() && stored.immutable != Some(true);
            if fits {
                let as_it_was = stored.data == *data && held.state() == *state;
                if as_it_was && held.is_labelled(target, &object.name_any()) {
                    return Ok(held);
                }
                stored::replace(client, object, target, state, data, &stored).await
            } else {
                // Neither a type nor what was made immutable can be changed. What pods use goes only where the new one
                // may be made.
                try_create(object, target, state, data, client).await?;
                let deleted = stored::delete(client, &object.namespace().unwrap_or_default(), &held).await;
                deleted.map_err(|error| refused(target, error))?;
                stored::create(client, object, target, state, data, Run::Real).await
            }
        }
        None => stored::create(client, object, target, state, data, Run::Real).await,
    };
    let held = written.map_err(|error| refused(target, error))?;
    tracing::info!(binding = %name(object), secret = target.name, "the Secret of spec.kubernetesSecret is written");
    Ok(held)
}

/// Asks whether a Secret may be made in the place of one that is there. The name is the last that the API server looks
/// at: rights, admission and quota have accepted it by then.
async fn try_create(
    object: &SecretBinding,
    target: &Target<'_>,
    state: &State,
    data: &Data,
    client: &Client,
) -> Result<(), Failure> {
    let Err(error) = stored::create(client, object, target, state, data, Run::Dry).await else {
        return Ok(());
    };
    match &error {
        kube::Error::Api(status) if status.is_already_exists() => Ok(()),
        kube::Error::Api(status) if status.is_forbidden() || status.is_invalid() => {
            let message = format!(
                "Secret `{}` has to be deleted and made again for its type, or because it is immutable, and the Kubernetes \
                 API would refuse the new one ({}), so it stays as it was: look at the operator's rights, at admission \
                 policies of the namespace, and at quotas, which must have room for one Secret more meanwhile",
                target.name, status.reason
            );
            Err(Problem::new(reasons::KUBERNETES_REFUSED, message).into())
        }
        _ => Err(refused(target, error)),
    }
}

/// What the API server refuses: that of the rights, of a quota or of a policy stays until somebody changes it.
fn refused(target: &Target<'_>, error: kube::Error) -> Failure {
    let secret = target.name;
    match &error {
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found() => {
            Failure::Error(Error::NotNow("the Secret has changed in the meantime"))
        }
        kube::Error::Api(status) if status.is_forbidden() || status.is_invalid() => {
            let message = format!(
                "the Kubernetes API refuses to write Secret `{secret}` ({}): look at the operator's rights, and at quotas and \
                 admission policies of the namespace",
                status.reason
            );
            Failure::Problem(Problem::new(reasons::KUBERNETES_REFUSED, message))
        }
        _ => Failure::Error(Error::kubernetes("writing the Secret")(quiet(error))),
    }
}

/// Without the words of the API server, or of a webhook behind it, which might quote a value.
pub fn quiet(error: kube::Error) -> kube::Error {
    match error {
        kube::Error::Api(status) => {
            let text = "what it says is not shown, because it might quote a value";
            kube::Error::Api(ApiStatus::failure(text, &status.reason).with_code(status.code).boxed())
        }
        other => other,
    }
}
