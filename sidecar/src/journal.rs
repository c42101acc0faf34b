//! One log line for each change of state, however often the state is met.

use sealpod_client::Error;

use crate::credentials::CredentialError;
use crate::publish::{PublishError, Published};
use crate::selection::Finding;

/// How a binding is doing.
#[derive(Debug)]
pub enum State<'a> {
    /// The files show what the server has; `findings` are for people, and hold nobody up.
    Current {
        published: Option<&'a Published>,
        findings: &'a [Finding],
    },
    /// Something that pods wait for is not there.
    Incomplete { findings: &'a [Finding] },
    /// The files of the key Secret cannot be used.
    Credentials(&'a CredentialError),
    /// The server gives no answer that counts, or asks to come later.
    Away(&'a Error),
    /// The server answers, and its answer is no: 401, 403, 404, 400.
    Refused(&'a Error),
    /// The server says that nothing changed, but does not wait as it was asked to.
    Early,
    /// The files cannot be written.
    Unwritable(&'a PublishError),
}

/// What was last said about one binding.
#[derive(Debug)]
pub struct Journal {
    binding: String,
    said: Option<(&'static str, String)>,
}

impl Journal {
    pub fn new(binding: &str) -> Self {
        Self {
            binding: binding.to_owned(),
            said: None,
        }
    }

    /// Logs the state if it is another one than before, or if files changed. Gives whether it did.
    pub fn tell(&mut self, state: &State<'_>) -> bool {
        let news = news(state);
        let same = self.said.as_ref() == Some(&news);
        let changed = matches!(state, State::Current { published: Some(published), .. } if published.changed);
        if same && !changed {
            return false;
        }
        self.log(state, same);
        self.said = Some(news);
        true
    }

    fn log(&self, state: &State<'_>, same: bool) {
        let binding = &self.binding;
        match state {
            State::Current { published, findings } => {
                match published {
                    Some(published) if published.changed => {
                        tracing::info!(binding, files = published.files, "files written");
                    }
                    _ => tracing::info!(binding, "files are up to date"),
                }
                if !findings.is_empty() && !same {
                    tracing::warn!(binding, "not as selected: {}", list(findings, " (its last file stays)"));
                }
            }
            State::Incomplete { findings } => {
                tracing::warn!(binding, "waiting for required secrets: {}", list(findings, ""));
            }
            State::Credentials(error) => tracing::error!(
                binding,
                %error,
                "the files of the key Secret cannot be used; waiting until they change"
            ),
            State::Away(error) => tracing::warn!(
                binding,
                %error,
                "no answer from the server; files stay as they are, trying again"
            ),
            State::Refused(error) => tracing::error!(
                binding,
                %error,
                "the server refuses; files stay as they are, trying again"
            ),
            State::Early => tracing::warn!(
                binding,
                "the server answers a long poll at once; is there a proxy between that caches? asking less often"
            ),
            State::Unwritable(error) => {
                tracing::error!(binding, %error, "the files cannot be written; the old ones stay");
            }
        }
    }
}

/// What makes two states different news. An outage is one piece of news, whatever its symptoms.
fn news(state: &State<'_>) -> (&'static str, String) {
    match state {
        State::Current { findings, .. } => ("current", list(findings, "")),
        State::Incomplete { findings } => ("incomplete", list(findings, "")),
        State::Credentials(error) => ("credentials", error.to_string()),
        State::Away(_) => ("away", String::new()),
        State::Refused(error) => ("refused", error.to_string()),
        State::Early => ("early", String::new()),
        State::Unwritable(error) => ("unwritable", error.to_string()),
    }
}

/// `kept` is said of each secret that the app still has an older file of.
fn list(findings: &[Finding], kept: &str) -> String {
    let one = |finding: &Finding| format!("{finding}{}", if finding.required { kept } else { "" });
    findings.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Trouble;
    use std::time::Duration;

    #[test]
    fn a_state_is_told_once_and_a_change_of_files_each_time() {
        let mut journal = Journal::new("db");
        let timeout = Error::Timeout {
            deadline: Duration::from_secs(1),
        };
        let refused = Error::Unreachable {
            reason: "refused".to_owned(),
        };
        assert!(journal.tell(&State::Away(&timeout)));
        assert!(!journal.tell(&State::Away(&refused)), "one outage");
        let changed = Published {
            changed: true,
            files: 1,
            lost: vec![],
        };
        let current = State::Current {
            published: Some(&changed),
            findings: &[],
        };
        assert!(journal.tell(&current) && journal.tell(&current));
        let quiet = State::Current {
            published: None,
            findings: &[],
        };
        assert!(!journal.tell(&quiet));
        assert!(
            journal.tell(&State::Away(&timeout)) && journal.tell(&quiet),
            "back again"
        );
        let findings = [Finding {
            selector: "a".to_owned(),
            trouble: Trouble::Missing,
            required: true,
        }];
        assert!(journal.tell(&State::Incomplete { findings: &findings }));
        assert!(!journal.tell(&State::Incomplete { findings: &findings }));
    }
}
