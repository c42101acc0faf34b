//! The request that is a step.

use sealpod_core::wire::Edit;
use serde_json::json;

use super::questions::RULES;
use super::steps::{ENTRIES, ENVIRONMENTS, KEYS, Step};
use super::{World, soon};
use crate::support::{Call, O};

impl World<'_> {
    /// None where there is nothing that it could name.
    pub async fn call(&self, step: &Step, value: &str) -> Option<Call> {
        let admin = |method: &str, path: &str| self.server.admin(method, path);
        Some(match step {
            Step::SetEntry { environment, entry } => self.set_entry(*environment, *entry, value).await,
            Step::DeleteEntry {
                environment,
                entry,
                purge,
            } => {
                let (environment, entry) = (ENVIRONMENTS[*environment], ENTRIES[*entry]);
                let path = format!("{}/configurations/{environment}/{entry}", self.application());
                admin("DELETE", &format!("{path}?purge={purge}"))
            }
            Step::CreateEnvironment { environment } => {
                let path = format!("{O}/projects/{}/envs", self.project());
                admin("POST", &path).json(json!({"name": ENVIRONMENTS[*environment]}))
            }
            Step::DeleteEnvironment { environment, purge } => {
                admin("DELETE", &format!("{}?purge={purge}", self.environment(*environment)))
            }
            Step::Restore { back } => admin("POST", &format!("{O}/trash/{}/restore", self.trashed(*back).await?)),
            Step::Purge { back } => admin("DELETE", &format!("{O}/trash/{}", self.trashed(*back).await?)),
            Step::Rename => {
                let name = &self.names[usize::from(!self.model.is_renamed)];
                admin("PATCH", &format!("{O}/projects/{}", self.project())).json(json!({"name": name}))
            }
            Step::Elsewhere => {
                let path = format!("{O}/projects/elsewhere/envs/local/secrets/a");
                admin("PUT", &path).json(json!({"value": value}))
            }
            _ => return self.on_secret(step, value).or_else(|| self.on_account(step)),
        })
    }

    fn on_secret(&self, step: &Step, value: &str) -> Option<Call> {
        let admin = |method: &str, path: &str| self.server.admin(method, path);
        Some(match step {
            Step::Put {
                environment,
                key,
                window: (from, to),
            } => {
                let body = json!({"value": value, "not_before": self.moment(*from), "expires_at": self.moment(*to)});
                admin("PUT", &self.secret(*environment, *key)).json(body)
            }
            Step::SetAll { key, enabled } => {
                let item = |slug| json!({"environmentSlug": slug, "value": value, "isEnabled": enabled});
                let path = format!("{}/secrets/{}/values", self.application(), KEYS[*key]);
                admin("POST", &path).json(ENVIRONMENTS.iter().map(item).collect())
            }
            Step::Change {
                environment,
                key,
                at,
                enabled,
                from,
                to,
            } => {
                let mut body = json!({});
                if let Some(enabled) = enabled {
                    body["is_enabled"] = json!(enabled);
                }
                for (field, change) in [("not_before", from), ("expires_at", to)] {
                    if let Edit::To(moment) = change {
                        body[field] = self.moment(*moment);
                    }
                }
                let path = format!("{}/versions/{}", self.secret(*environment, *key), at + 1);
                admin("PATCH", &path).json(body)
            }
            Step::RollBack { environment, key, at } => {
                let path = format!("{}/rollback", self.secret(*environment, *key));
                admin("POST", &path).json(json!({"version": at + 1}))
            }
            Step::Hide {
                environment,
                key,
                purge,
            } => admin("DELETE", &format!("{}?purge={purge}", self.secret(*environment, *key))),
            Step::DeleteSecret { key, purge } => admin(
                "DELETE",
                &format!("{}/secrets/{}?purge={purge}", self.application(), KEYS[*key]),
            ),
            Step::Begin { environment, key } => {
                let body = json!({"value": value, "not_before": soon()});
                admin("PUT", &self.secret(*environment, *key)).json(body)
            }
            Step::End { environment, key } => {
                let number = self.model.active(*environment, *key)?;
                let path = format!("{}/versions/{number}", self.secret(*environment, *key));
                admin("PATCH", &path).json(json!({"expires_at": soon()}))
            }
            _ => return None,
        })
    }

    fn on_account(&self, step: &Step) -> Option<Call> {
        let admin = |method: &str, path: &str| self.server.admin(method, path);
        Some(match step {
            Step::Grant { caller, rule } => {
                let rule = &RULES[*rule];
                let [project, environment, key] = rule.patterns;
                let body = json!({
                    "subject_type": "service_account", "subject_id": self.callers[*caller].id, "project_pattern": project,
                    "env_pattern": environment, "key_pattern": key, "configurations": rule.configurations,
                    "permission": rule.permission,
                });
                admin("POST", &format!("{O}/acl")).json(body)
            }
            Step::Revoke { caller, rule } => {
                admin("DELETE", &format!("{O}/acl/{}", self.callers[*caller].rules.get(rule)?))
            }
            Step::Rotate { caller, overlap } => {
                let body = json!({"overlap_seconds": if *overlap { 600 } else { 0 }});
                let path = format!("{O}/service-accounts/{}/rotate", self.callers[*caller].id);
                admin("POST", &path).json(body)
            }
            Step::Leave { caller } => admin("DELETE", &format!("{O}/service-accounts/{}", self.callers[*caller].id)),
            Step::Enter { caller } if self.model.accounts[*caller].is_live => return None,
            Step::Enter { .. } => {
                let name = uuid::Uuid::now_v7().to_string();
                admin("POST", &format!("{O}/service-accounts")).json(json!({"name": name}))
            }
            _ => return None,
        })
    }

    async fn set_entry(&self, environment: usize, entry: usize, value: &str) -> Call {
        let (environment, entry) = (ENVIRONMENTS[environment], ENTRIES[entry]);
        let all = format!("{}/configurations", self.application());
        let one = format!("{all}/{environment}/{entry}");
        if self.server.admin("GET", &one).send().await.status == 200 {
            return self.server.admin("PUT", &one).json(json!({"value": value}));
        }
        let body = json!({"environmentSlug": environment, "key": entry, "value": value});
        self.server.admin("POST", &all).json(body)
    }
}
