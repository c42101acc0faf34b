//! Environment: one environment of an application that an Application of the same namespace made.

mod apply;
mod evaluate;
mod observe;

use sealpod_crds::{Environment, EnvironmentStatus};

use super::conditions::Wanted;
use super::context::Context;
use super::error::Error;
use super::kind::{Kind, Outcome};
use super::report;
use super::retries::Again;
use super::verdict::Verdict;
use crate::tolerant::Tolerant;

impl Kind for Environment {
    const NAME: &'static str = "Environment";

    type Kept = Tolerant<Self>;

    async fn reconcile(object: &Self, context: &Context) -> Result<Outcome<EnvironmentStatus>, Error> {
        let observed = observe::observe(object, context).await?;
        match evaluate::evaluate(object, &observed, context.server.url()) {
            Verdict::Proceed(plan) => {
                let contested = plan.configurations.refusal();
                let story = plan.story();
                let environment = apply::apply(object, plan, observed, context).await?;
                report::applied(object, context, story).await;
                let outcome = Outcome {
                    status: EnvironmentStatus {
                        slug: Some(environment.slug),
                        id: Some(environment.id.to_string()),
                        ..EnvironmentStatus::default()
                    },
                    conditions: vec![Wanted::ready("the server has it")],
                    again: Again::Settled,
                };
                Ok(outcome.unless(contested))
            }
            Verdict::Refuse(refusal) => Ok(refusal.outcome(EnvironmentStatus::default())),
            Verdict::Wait => Ok(Outcome::unchanged(object)),
        }
    }

    async fn clean_up(object: &Self, context: &Context) -> Result<(), Error> {
        let observed = observe::observe(object, context).await?;
        apply::clean_up(object, evaluate::clean_up(object, &observed), &observed, context).await
    }
}
