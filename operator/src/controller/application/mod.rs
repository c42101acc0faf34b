//! Application: an application of the server, with the environments of its short form.

mod apply;
mod deliver;
mod evaluate;
mod key;
mod observe;
mod story;

use std::time::Duration;

use sealpod_crds::{Application, ApplicationStatus};

use super::conditions::Wanted;
use super::context::Context;
use super::error::Error;
use super::kind::{Kind, Outcome};
use super::report;
use super::retries::Again;
use super::verdict::Verdict;
use crate::tolerant::Tolerant;

/// How often it is asked whether an application's own key still works: nothing else tells of one that an administrator
/// has replaced.
const KEY_CHECKED: Duration = Duration::from_mins(10);

impl Kind for Application {
    const NAME: &'static str = "Application";

    type Kept = Tolerant<Self>;

    async fn reconcile(object: &Self, context: &Context) -> Result<Outcome<ApplicationStatus>, Error> {
        let observed = observe::observe(object, context).await?;
        match evaluate::evaluate(object, &observed, context.server.url()) {
            Verdict::Proceed(plan) => {
                let (refusal, story) = (plan.refusal(), plan.story());
                let has_key = plan.key.refusal.is_none();
                let (application, environments) = apply::apply(object, plan, observed, context).await?;
                let message = format!("the server has it, with {} environments", environments.len());
                report::applied(object, context, story).await;
                let outcome = Outcome {
                    status: ApplicationStatus {
                        slug: Some(application.slug),
                        id: Some(application.id.to_string()),
                        environments: environments.into_iter().map(|e| e.slug).collect(),
                        api_key_secret_name: object.spec.api_key_secret_name.clone().filter(|_| has_key),
                        ..ApplicationStatus::default()
                    },
                    conditions: vec![Wanted::ready(message)],
                    again: if object.spec.api_key_secret_name.is_some() {
                        Again::Within(KEY_CHECKED)
                    } else {
                        Again::Settled
                    },
                };
                Ok(outcome.unless(refusal))
            }
            Verdict::Refuse(refusal) => Ok(refusal.outcome(ApplicationStatus::default())),
            Verdict::Wait => Ok(Outcome::unchanged(object)),
        }
    }

    async fn clean_up(object: &Self, context: &Context) -> Result<(), Error> {
        let observed = observe::observe(object, context).await?;
        apply::clean_up(object, evaluate::clean_up(object, &observed), context).await
    }
}

#[cfg(test)]
mod tests;
