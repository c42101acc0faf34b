//! One log line for each change of state, however often the state is met.

use sealpod_client::Error;
use sealpod_core::injection::Stale;

use crate::credentials::CredentialError;
use crate::publish::{PublishError, Published};
use crate::selection::Finding;

/// Most findings of one line.
const MAX_LISTED: usize = 20;

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
    /// Somebody removed files or links; they are fetched again.
    Disturbed,
    /// The files cannot be written.
    Unwritable(&'a PublishError),
    /// The files are written, and the state beside them cannot be.
    Unstated(&'a std::io::Error),
    /// The files are given up for want of the server's word, as the binding says.
    GivenUp { then: Stale, why: &'a str },
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
            State::Disturbed => tracing::warn!(
                binding,
                "somebody else changed the directory of the files; writing them again"
            ),
            State::Unwritable(error) => {
                tracing::error!(binding, %error, "the files cannot be written; the old ones stay");
            }
            State::Unstated(error) => tracing::error!(
                binding,
                %error,
                "the files are written, but not the state beside them; trying again"
            ),
            State::GivenUp { then, why } => match then {
                Stale::Remove => {
                    tracing::error!(binding, why, "the files are removed, as the binding's staleness says");
                }
                Stale::Unready | Stale::Keep => {
                    tracing::error!(binding, why, "the pod is not ready, as the binding's staleness says");
                }
            },
        }
    }
}

/// What makes two states different news. An outage is one piece of news, whatever its symptoms; a certificate that is
/// not trusted and an answer of a stranger are none, and would else be hidden behind the restart that began with one.
fn news(state: &State<'_>) -> (&'static str, String) {
    match state {
        State::Current { findings, .. } => ("current", list(findings, "")),
        State::Incomplete { findings } => ("incomplete", list(findings, "")),
        State::Credentials(error) => ("credentials", error.to_string()),
        State::Away(error) => ("away", side(error).to_owned()),
        State::Refused(error) => ("refused", error.to_string()),
        State::Early => ("early", String::new()),
        State::Disturbed => ("disturbed", String::new()),
        State::Unwritable(error) => ("unwritable", error.to_string()),
        State::Unstated(error) => ("unstated", error.to_string()),
        State::GivenUp { why, .. } => ("given up", (*why).to_owned()),
    }
}

fn side(error: &Error) -> &'static str {
    match error {
        Error::Untrusted { .. } => "untrusted",
        Error::BadAnswer { .. } => "stranger",
        _ => "silent",
    }
}

/// `kept` is said of each secret that the app still has an older file of. What pods wait for comes first, and a long
/// list is cut, so that a line stays one that can be read.
pub(crate) fn list(findings: &[Finding], kept: &str) -> String {
    let one = |finding: &Finding| format!("{finding}{}", if finding.required { kept } else { "" });
    let (required, others): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.required);
    let mut said: Vec<_> = required.into_iter().chain(others).take(MAX_LISTED).map(one).collect();
    if findings.len() > MAX_LISTED {
        said.push(format!("and {} more", findings.len() - MAX_LISTED));
    }
    said.join("; ")
}

/// The findings by number and kind, for a port that is open to the whole cluster: names are for the log.
pub(crate) fn count(findings: &[Finding]) -> String {
    let mut kinds = std::collections::BTreeMap::<_, usize>::new();
    for finding in findings {
        *kinds.entry((!finding.required, finding.trouble.kind())).or_default() += 1;
    }
    let said: Vec<_> = kinds
        .into_iter()
        .map(|((optional, kind), count)| format!("{count} {}{kind}", if optional { "" } else { "required " }))
        .collect();
    format!("not as selected: {}; the log names them", said.join(", "))
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

    #[test]
    fn what_anybody_may_ask_for_has_no_names() {
        let finding = |name: &str, trouble, required| Finding {
            selector: name.to_owned(),
            trouble,
            required,
        };
        let findings = [
            finding("a-name", Trouble::Denied, true),
            finding("b-name", Trouble::Missing, false),
            finding("c-name", Trouble::Missing, false),
            finding("d-name", Trouble::Unmade("of e-name".to_owned()), false),
        ];
        assert_eq!(
            count(&findings),
            "not as selected: 1 required refused, 1 that cannot be made, 2 without a value; the log names them"
        );
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_news_within_an_outage() {
        let mut journal = Journal::new("db");
        let away = Error::Unreachable {
            reason: "refused".to_owned(),
        };
        let untrusted = Error::Untrusted {
            reason: "unknown issuer".to_owned(),
        };
        assert!(journal.tell(&State::Away(&away)));
        assert!(journal.tell(&State::Away(&untrusted)));
        assert!(!journal.tell(&State::Away(&untrusted)));
    }

    #[test]
    fn a_long_list_is_cut_behind_what_pods_wait_for() {
        let finding = |n: usize| Finding {
            selector: format!("{n}{}", "x".repeat(10_000)),
            trouble: Trouble::Missing,
            required: n == 999,
        };
        let text = list(&(0..1_000).map(finding).collect::<Vec<_>>(), "");
        assert!(text.starts_with("\"999x") && text.ends_with("; and 980 more"), "{text}");
        assert!(text.len() < 16 * 1024, "one line of a container's log: {}", text.len());
    }
}
