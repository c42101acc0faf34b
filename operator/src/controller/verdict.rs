//! What an evaluation comes to.

use kube::core::object::HasStatus;
use sealpod_core::names::check_free_text;

use super::conditions::Wanted;
use super::kind::Outcome;
use super::retries::Again;

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<P> {
    /// Every check passed; this is to be done.
    Proceed(P),
    /// The first check that did not pass.
    Refuse(Refusal),
    /// Nothing can be done now, and nothing is worth saying.
    Wait,
}

/// Why an object cannot be brought to the server: a reason for programs, a message that says what to fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
    pub again: Again,
}

/// The reasons of conditions and events. They are part of the API: scripts and dashboards match them.
pub mod reasons {
    pub const INVALID_SPEC: &str = "InvalidSpec";
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    pub const CONFLICT: &str = "Conflict";
    pub const APPLICATION_NOT_FOUND: &str = "ApplicationNotFound";
    pub const APPLICATION_NOT_READY: &str = "ApplicationNotReady";
    pub const NAMESPACE_NOT_ADMITTED: &str = "NamespaceNotAdmitted";
    pub const ENVIRONMENT_NOT_FOUND: &str = "EnvironmentNotFound";
    pub const SECRET_NOT_OWNED: &str = "SecretNotOwned";
    pub const PATH_COLLISION: &str = "PathCollision";
    pub const SECRETS_MISSING: &str = "SecretsMissing";
    pub const SECRETS_INACTIVE: &str = "SecretsInactive";
    pub const SECRETS_DENIED: &str = "SecretsDenied";
    pub const NEEDS_PATH: &str = "NeedsPath";
    pub const KEY_REJECTED: &str = "KeyRejected";
    /// Of the condition `KubernetesSecretSynced`.
    pub const NEEDS_KEY: &str = "NeedsKey";
    pub const INVALID_VALUE: &str = "InvalidValue";
    pub const TEMPLATE_FAILED: &str = "TemplateFailed";
    pub const TOO_LARGE: &str = "TooLarge";
    pub const SECRET_GOING: &str = "SecretBeingDeleted";
    pub const KUBERNETES_REFUSED: &str = "KubernetesRefused";
    /// Of events on workloads and bindings.
    pub const ROLLED_OUT: &str = "RolledOut";
    pub const ROLLOUT_FAILED: &str = "RolloutFailed";
    /// Of events on pods.
    pub const INJECTION_MISSED: &str = "InjectionMissed";
    pub const EVICTED: &str = "EvictedForInjection";
    pub const PAUSED: &str = "Paused";
    /// Of failures: what could not be done, and where.
    pub const SERVER_UNAVAILABLE: &str = "ServerUnavailable";
    pub const SERVER_NOT_TRUSTED: &str = "ServerNotTrusted";
    pub const SERVER_REFUSED: &str = "ServerRefused";
    pub const ADMIN_KEY_REJECTED: &str = "AdminKeyRejected";
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    pub const ANSWER_TOO_LARGE: &str = "AnswerTooLarge";
    pub const KUBERNETES_FORBIDDEN: &str = "KubernetesForbidden";
    pub const KUBERNETES_ERROR: &str = "KubernetesError";
    pub const RETRYING: &str = "Retrying";
    /// Of the condition `Stalled` that is `False`.
    pub const PROGRESSING: &str = "Progressing";
    /// Of events only.
    pub const APPLIED: &str = "Applied";
    pub const SERVER_NOT_CLEANED_UP: &str = "ServerNotCleanedUp";
}

impl Refusal {
    /// What is wrong with a name for people of at most `limit` characters. The server would refuse it too, but cannot
    /// name the field.
    pub fn of_name(field: &str, name: &str, limit: usize) -> Option<Self> {
        let error = check_free_text(name, limit).err()?;
        Some(Self::until_edited(reasons::INVALID_SPEC, format!("{field} {error}")))
    }

    /// As [`Refusal::of_name`], for `spec.displayName` and its default.
    pub fn of_display_name(given: Option<&str>, default: &str, limit: usize) -> Option<Self> {
        match given {
            Some(name) => Self::of_name("spec.displayName", name, limit),
            None => Self::of_name("metadata.name, the default of spec.displayName,", default, limit),
        }
    }

    /// Only an edit of the object helps.
    pub fn until_edited(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            again: Again::Stuck,
        }
    }

    /// Something else has to change, which no event may tell of.
    pub fn until_it_appears(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            again: Again::Waiting,
        }
    }

    pub fn outcome<S>(self, status: S) -> Outcome<S> {
        Outcome {
            status,
            conditions: vec![Wanted::not_ready(self.reason, self.message)],
            again: self.again,
        }
    }
}

impl<S: Clone + Default> Outcome<S> {
    /// The same, but for what could not be brought to the server; everything else has been.
    pub fn unless(mut self, refusal: Option<Refusal>) -> Self {
        if let Some(refusal) = refusal {
            self.conditions = vec![Wanted::not_ready(refusal.reason, refusal.message)];
            self.again = refusal.again;
        }
        self
    }

    /// Leaves the status as it is.
    pub fn unchanged<K: HasStatus<Status = S>>(object: &K) -> Self {
        Self {
            status: object.status().cloned().unwrap_or_default(),
            conditions: vec![],
            again: Again::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    fn words() -> Vec<&'static str> {
        let words = include_str!("verdict.rs").lines().filter_map(|line| {
            let line = line.trim().strip_prefix("pub const ")?;
            line.split('"').nth(1)
        });
        let words: Vec<_> = words.collect();
        assert!(words.len() > 20, "{words:?}");
        words
    }

    /// Rust files below a folder.
    fn sources(folder: &std::path::Path) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &sources(&path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
        text
    }

    #[test]
    fn every_reason_is_provoked_on_the_cluster() {
        let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/tests/it");
        let tests = sources(&tests);
        for word in words() {
            // The server bounds all that it answers with, so this is told only of something else that answers.
            if word == super::reasons::ANSWER_TOO_LARGE {
                continue;
            }
            let is_there = tests.contains(&format!("\"{word}\"")) || tests.contains(&format!("\"{word}\\\""));
            assert!(is_there, "no end-to-end test provokes {word}");
        }
    }

    #[test]
    fn every_reason_is_in_the_manual() {
        let manual = include_str!("../../../docs/OPERATOR.md");
        for word in words() {
            assert!(
                manual.contains(&format!("`{word}`")),
                "docs/OPERATOR.md does not say what to do about {word}"
            );
        }
    }
}
