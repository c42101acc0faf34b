//! One look at the store: what there is to answer, or what to wait for.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Bytes;
use sealpod_core::wire::bundle::{Bundle, BundleSecret};
use sealpod_core::{Pattern, Time};
use zeroize::Zeroizing;

use super::request::{Known, Request};
use super::state::{Etag, Findings, Reader, Refusal};
use super::{LIGHT, MAX_ANSWER, MAX_WEIGHT};
use crate::app::App;
use crate::audit::{By, Entry, Kind, Metadata, Outcome, Verb};
use crate::auth::acl::EnvironmentRights;
use crate::auth::{Kept, Member};
use crate::error::ApiError;
use crate::store::{BundleQuery, Bundled, EnvironmentRef, Interest, Location, Sequence, Snapshot, Topic};
use crate::{configurations, values};

/// Who looks.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// Found a moment ago, with the request's credential.
    Member(&'a Member),
    /// Whoever has the credential by now.
    Kept(&'a Kept),
}

/// What is asked, and what of it the caller has already.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub environment: &'a EnvironmentRef,
    pub request: &'a Arc<Request>,
    pub known: &'a Known,
}

/// What came of it.
pub enum Looked {
    /// The caller has it already.
    Same(Rest),
    Changed(Box<Seen>),
}

/// What to wait for, where there is nothing to tell.
pub struct Rest {
    pub etag: Etag,
    pub topics: Vec<Topic>,
    pub interest: Arc<Interest>,
    /// Changes behind this were not seen.
    pub since: Sequence,
    /// When the clock alone changes the answer, or ends the caller's key.
    pub edge: Option<Time>,
}

/// What there is to tell: opened, and not on record yet.
pub struct Seen {
    pub etag: Etag,
    pub member: Member,
    /// The answer as it is sent; wiped when nobody has it any more.
    pub body: Bytes,
    location: Location,
    metadata: Metadata,
    verb: Verb,
}

/// Looks once. Refusals of the whole question are 403 and go on record.
pub async fn look(app: &App, who: Who<'_>, question: Question<'_>) -> Result<Looked, ApiError> {
    if let Some(all) = read(app, who, question, LIGHT).await? {
        return judged(app, all).await;
    }
    // As much as that is in memory for a few at a time only.
    let _turn = app.polls().large().await;
    let all = read(app, who, question, MAX_WEIGHT).await?;
    judged(app, all.ok_or_else(too_much)?).await
}

type Read = (Sequence, Reader, Snapshot);

/// `None` where it would be more than `most` bytes.
async fn read(app: &App, who: Who<'_>, question: Question<'_>, most: usize) -> Result<Option<Read>, ApiError> {
    let Question {
        environment,
        request,
        known,
    } = question;
    let query = BundleQuery {
        environment: environment.clone(),
        selection: request.selection(),
        configurations: request.configurations,
        most,
    };
    // Before the read: what is changed while it runs may or may not be in it.
    let since = app.store().sequence();
    let bundled = match who {
        Who::Member(member) => {
            let reader = Reader::new(app, member.clone(), (request, known), false);
            app.store().bundle(query, member.subject(), reader).await?
        }
        Who::Kept(kept) => {
            let credential = kept.credential(app).ok_or(ApiError::Unauthorized)?;
            let (of, kept, request, known) = (app.clone(), kept.clone(), Arc::clone(request), known.clone());
            let admit = move |asker| {
                let member = kept.member(&of, asker)?;
                Some(Reader::new(&of, member, (&request, &known), true))
            };
            let found = app.store().bundle_again(query, credential, admit).await?;
            found.ok_or(ApiError::Unauthorized)?
        }
    };
    Ok(match bundled {
        Bundled::TooMuch => None,
        Bundled::Read(read) => {
            let (reader, snapshot) = *read;
            Some((since, reader, snapshot))
        }
    })
}

async fn judged(app: &App, (since, reader, snapshot): Read) -> Result<Looked, ApiError> {
    let Reader {
        member,
        request,
        known,
        findings,
        ..
    } = reader;
    let findings = findings.ok_or_else(|| ApiError::internal("a bundle was read and not judged"))?;
    let verb = if request.values { Verb::Read } else { Verb::List };
    if let Some(refusal) = findings.refusal {
        let refused = match refusal {
            Refusal::NoRight => values::no_right_here(),
            Refusal::Configurations => ApiError::Denied(
                "no rule lets you read the configurations here; an admin can grant one with `configurations`".into(),
            ),
        };
        values::deny(app, &member, &snapshot.location, verb, None).await?;
        return Err(refused);
    }
    if known.has(findings.etag) {
        return Ok(Looked::Same(rest(&member, &request, &findings, &snapshot, since)));
    }
    let seen = Seen::open(app, member, findings, snapshot, verb)?;
    Ok(Looked::Changed(Box::new(seen)))
}

fn rest(member: &Member, request: &Request, findings: &Findings, snapshot: &Snapshot, since: Sequence) -> Rest {
    let Location {
        organization,
        project,
        environment,
        ..
    } = snapshot.location;
    let mut topics = vec![
        Topic::Organization(organization),
        Topic::Project(project),
        Topic::Environment(environment),
    ];
    topics.extend(member.subject().map(|subject| Topic::Subject(subject.id())));
    let permitted: Option<Vec<&Pattern>> = match &findings.rights {
        EnvironmentRights::Everything => None,
        EnvironmentRights::Granted(grants) => Some(grants.iter().map(|grant| &grant.key).collect()),
    };
    let interest = Interest::new(&request.selection(), permitted.as_deref(), request.configurations);
    let edges = [snapshot.next_change_at, member.caller().expires_at()];
    Rest {
        etag: findings.etag,
        topics,
        interest: Arc::new(interest),
        since,
        edge: edges.into_iter().flatten().min(),
    }
}

impl Seen {
    fn open(app: &App, member: Member, findings: Findings, snapshot: Snapshot, verb: Verb) -> Result<Self, ApiError> {
        let mut metadata = Metadata::default();
        let mut secrets = BTreeMap::new();
        for secret in snapshot.secrets {
            let opened = match &secret.sealed {
                Some(sealed) => Some(values::open(app, &secret.aad(&snapshot.location), sealed)?.to_wire()),
                None => None,
            };
            let (value, encoding) = opened.unzip();
            let version = secret.number;
            metadata.versions.insert(secret.name.clone(), version);
            secrets.insert(
                secret.name,
                BundleSecret {
                    value,
                    version,
                    encoding,
                },
            );
        }
        let mut entries = BTreeMap::new();
        for configuration in &snapshot.configurations {
            entries.insert(configuration.key.clone(), configurations::open(app, configuration)?);
            metadata.configurations.push(configuration.key.clone());
        }
        metadata.denied.clone_from(&findings.denied);
        let bundle = Bundle {
            etag: findings.etag.to_string(),
            next_change_at: snapshot.next_change_at,
            secrets,
            configurations: entries,
            missing: findings.missing,
            denied: findings.denied,
        };
        Ok(Self {
            etag: findings.etag,
            member,
            body: encoded(&bundle)?,
            location: snapshot.location,
            metadata,
            verb,
        })
    }

    /// One entry for the whole answer. What is given out is always named; refusals, whose names are the caller's own
    /// words, go on record at a bounded rate, and so does an answer that holds nothing else.
    pub async fn record(&self, app: &App, by: By) -> Result<(), ApiError> {
        let mut metadata = self.metadata.clone();
        let denied = !metadata.denied.is_empty();
        let refused = metadata.versions.is_empty() && metadata.configurations.is_empty() && denied;
        let refusals_too = denied && app.refusals().admit(self.member.identity());
        if refused && !refusals_too {
            return Ok(());
        }
        if !refusals_too {
            metadata.denied.clear();
        }
        let entry = Entry::new(Kind::Secret, self.verb)
            .at(&self.location.project_slug, Some(&self.location.environment_slug))
            .outcome(if refused { Outcome::Denied } else { Outcome::Success })
            .metadata(metadata);
        values::record(app, &self.location, entry, by).await
    }
}

/// JSON in one piece of memory, which nothing else has a copy of and which is wiped.
fn encoded(bundle: &Bundle) -> Result<Bytes, ApiError> {
    struct Length(usize);

    impl Write for Length {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut length = Length(0);
    serde_json::to_writer(&mut length, bundle).map_err(ApiError::internal)?;
    if length.0 > MAX_ANSWER {
        return Err(too_much());
    }
    let mut body = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *body, bundle).map_err(ApiError::internal)?;
    Ok(Bytes::from_owner(body))
}

fn too_much() -> ApiError {
    ApiError::invalid(
        "key",
        "asks for more than one answer holds, 16 MiB of values and configurations (32 MiB as JSON); name fewer keys at a \
         time, with `key` or `pattern`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_largest_size_and_says_what_to_do() {
        let of = |bytes: usize| Bundle {
            etag: String::new(),
            next_change_at: None,
            secrets: BTreeMap::new(),
            // Each of these characters takes six bytes of JSON.
            configurations: [("k".to_owned(), "\u{1}".repeat(bytes / 6))].into(),
            missing: vec![],
            denied: vec![],
        };
        let small = encoded(&of(6_000)).unwrap();
        assert_eq!(small.len(), serde_json::to_vec(&of(6_000)).unwrap().len());
        let why = format!("{:?}", encoded(&of(MAX_ANSWER)).unwrap_err());
        assert!(why.contains("16 MiB") && why.contains("`key` or `pattern`"), "{why}");
    }
}
