//! Who runs which version.

use reqwest::Method;
use sealpod_core::wire::consumers::{BundleReport, Consumer};
use uuid::Uuid;

use super::{Org, Page};
use crate::Result;
use crate::path::query;

impl Org<'_> {
    /// Says what a pod has loaded. When to say it again: `sealpod_core::wire::consumers`. Never retried here: the next
    /// report says the same.
    pub async fn report(&self, project: &str, env: &str, report: &BundleReport) -> Result<()> {
        let target = self.at(&["projects", project, "envs", env, "bundle", "report"])?;
        let call = self.client.call(Method::POST, target);
        call.once().send_json(report).await.map(drop)
    }

    /// Takes back what this caller said of a pod; done also where it said nothing.
    pub async fn withdraw_report(&self, project: &str, env: &str, namespace: &str, pod: &str) -> Result<()> {
        let query = query([("namespace", Some(namespace)), ("pod", Some(pod))]);
        let target = self.at(&["projects", project, "envs", env, "bundle", "report"])?;
        self.client.delete(target + &query).await
    }

    /// By namespace and pod, what was reported; of one service account or user, where its id is given. `after` of a page
    /// is the `id` of the last item of the page before.
    pub async fn consumers(
        &self,
        project: &str,
        env: &str,
        actor: Option<Uuid>,
        page: Page<'_>,
    ) -> Result<Vec<Consumer>> {
        let (actor, limit) = (
            actor.map(|id| id.to_string()),
            page.limit.map(|limit| limit.to_string()),
        );
        let query = query([
            ("actor_id", actor.as_deref()),
            ("limit", limit.as_deref()),
            ("after", page.after),
        ]);
        let target = self.at(&["projects", project, "envs", env, "consumers"])?;
        self.client.get(target + &query).await
    }
}
