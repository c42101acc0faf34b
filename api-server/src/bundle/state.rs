//! The answer as of one instant, and the keyed hash that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use data_encoding::BASE64URL_NOPAD;
use sealpod_core::Time;
use sealpod_core::wire::bundle::{Bundle, BundleSecret};
use sealpod_core::wire::org::Permission;

use super::Request;
use crate::app::{App, POLL_SLACK};
use crate::audit::{Entry, Kind, Metadata, Outcome, Verb};
use crate::auth::Member;
use crate::auth::acl::EnvironmentRights;
use crate::error::ApiError;
use crate::store::{BundleQuery, EnvironmentRef, Object, Snapshot, StoreError};
use crate::{configurations, values};

/// What a caller may see of an environment at one instant.
pub struct State {
    pub etag: String,
    pub snapshot: Snapshot,
    /// Named keys that are permitted and not there.
    missing: Vec<String>,
    /// Named keys that the rules refuse; this wins over `missing`, so that names do not leak.
    denied: Vec<String>,
}

impl State {
    /// Reads it; with `values`, ready to be opened. Refusals of the whole question are 403 and go on record.
    pub async fn read(
        app: &App,
        member: &Member,
        environment: &EnvironmentRef,
        request: &Request,
        values: bool,
    ) -> Result<Self, ApiError> {
        let query = BundleQuery {
            environment: environment.clone(),
            subject: member.subject(),
            selection: request.selection(),
            configurations: request.configurations,
            values,
        };
        // The rules are the same for every key of one snapshot, so they are narrowed down once.
        let (asking, narrowed) = (member.clone(), OnceLock::new());
        let reading = app.store().bundle(query, move |location, rules, key| {
            narrowed
                .get_or_init(|| asking.rights_by(rules).within(values::place(location)))
                .may(Permission::Read, key)
        });
        // However long the caller is ready to wait for a change, one look at the state does not take that long.
        let snapshot = tokio::time::timeout(POLL_SLACK, reading)
            .await
            .map_err(|_| ApiError::Timeout)??;
        // The name may have gone over to another organization since the caller was found to belong to the one that had it.
        if snapshot.location.organization != member.organization.id {
            return Err(StoreError::NotFound(Object::Organization).into());
        }
        let rights = member
            .rights_by(&snapshot.rules)
            .within(values::place(&snapshot.location));
        admit(app, member, request, &snapshot, &rights).await?;

        let found: BTreeSet<&str> = snapshot.secrets.iter().map(|secret| secret.name.as_str()).collect();
        let (permitted, denied): (Vec<&str>, Vec<&str>) =
            request.named().partition(|key| rights.may(Permission::Read, key));
        let missing = owned(permitted.into_iter().filter(|key| !found.contains(key)));
        let denied = owned(denied.into_iter());
        Ok(Self {
            etag: etag(app, member, request, &snapshot, &missing, &denied),
            snapshot,
            missing,
            denied,
        })
    }

    /// The answer with its values, once the entry of their reading is stored.
    pub async fn give_out(self, app: &App, member: &Member, request: &Request) -> Result<Bundle, ApiError> {
        let mut secrets = BTreeMap::new();
        for secret in &self.snapshot.secrets {
            let opened = match &secret.sealed {
                Some(sealed) => Some(values::open(app, &secret.aad(&self.snapshot.location), sealed)?.to_wire()),
                None => None,
            };
            let (value, encoding) = opened.unzip();
            let version = secret.number;
            secrets.insert(
                secret.name.clone(),
                BundleSecret {
                    value,
                    version,
                    encoding,
                },
            );
        }
        let mut entries = BTreeMap::new();
        for configuration in &self.snapshot.configurations {
            entries.insert(configuration.key.clone(), configurations::open(app, configuration)?);
        }
        self.record(app, member, request).await?;
        Ok(Bundle {
            etag: self.etag,
            next_change_at: self.snapshot.next_change_at,
            secrets,
            configurations: entries,
            missing: self.missing,
            denied: self.denied,
        })
    }

    /// One entry for the whole answer. What is given out is always named; refusals, whose names are the caller's own
    /// words, go on record at a bounded rate, and so does an answer that holds nothing else.
    async fn record(&self, app: &App, member: &Member, request: &Request) -> Result<(), ApiError> {
        let snapshot = &self.snapshot;
        let refused = snapshot.secrets.is_empty() && snapshot.configurations.is_empty() && !self.denied.is_empty();
        let refusals_too = !self.denied.is_empty() && app.refusals().admit(member.identity());
        if refused && !refusals_too {
            return Ok(());
        }
        let metadata = Metadata {
            versions: snapshot
                .secrets
                .iter()
                .map(|secret| (secret.name.clone(), secret.number))
                .collect(),
            configurations: snapshot.configurations.iter().map(|entry| entry.key.clone()).collect(),
            denied: if refusals_too { self.denied.clone() } else { vec![] },
            ..Metadata::default()
        };
        let entry = Entry::new(Kind::Secret, if request.values { Verb::Read } else { Verb::List })
            .at(
                &snapshot.location.project_slug,
                Some(&snapshot.location.environment_slug),
            )
            .outcome(if refused { Outcome::Denied } else { Outcome::Success })
            .metadata(metadata);
        values::record(app, &snapshot.location, entry, member.by()).await
    }
}

/// Refuses what cannot be answered key by key.
async fn admit(
    app: &App,
    member: &Member,
    request: &Request,
    snapshot: &Snapshot,
    rights: &EnvironmentRights,
) -> Result<(), ApiError> {
    let refusal = if request.is_for_all() && !rights.any() {
        values::no_right_here()
    } else if request.configurations && !rights.configurations() {
        ApiError::Denied(
            "no rule lets you read the configurations here; an admin can grant one with `configurations`".into(),
        )
    } else {
        return Ok(());
    };
    values::deny(app, member, &snapshot.location, Verb::Read, None).await?;
    Err(refusal)
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// A keyed hash of what was asked, by whom, and of the identities of all that the answer is made of: never of a value,
/// and never of a version's number alone, which another secret or another database could share. The windows are part of
/// it, so that whoever plans by them hears of a change before it takes effect.
fn etag(
    app: &App,
    member: &Member,
    request: &Request,
    snapshot: &Snapshot,
    missing: &[String],
    denied: &[String],
) -> String {
    let versions: Vec<u8> = snapshot
        .secrets
        .iter()
        .flat_map(|secret| *secret.id.0.as_bytes())
        .collect();
    let windows: Vec<u8> = snapshot
        .secrets
        .iter()
        .flat_map(|secret| [secret.not_before, secret.expires_at])
        .chain([snapshot.next_change_at])
        // No version begins or ends at the first instant there is.
        .flat_map(|time| time.map_or(i64::MIN, Time::microseconds).to_be_bytes())
        .collect();
    let configurations: Vec<u8> = snapshot
        .configurations
        .iter()
        .flat_map(|entry| [*entry.id.0.as_bytes(), *entry.revision_id.0.as_bytes()])
        .flatten()
        .collect();
    let names = serde_json::to_vec(&(missing, denied)).expect("text is always JSON");
    let hash = app.store().pepper().mac(
        "bundle-etag/2",
        &[
            app.store().epoch().as_bytes(),
            &member.identity(),
            snapshot.location.environment.0.as_bytes(),
            &request.canonical(),
            &versions,
            &windows,
            &configurations,
            &names,
        ],
    );
    BASE64URL_NOPAD.encode(&hash)
}
