//! What a caller may see of an environment at one instant, and the keyed hash that names it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use data_encoding::BASE64URL_NOPAD;
use sealpod_core::Time;
use sealpod_core::wire::org::Permission;

use super::{Known, Request};
use crate::app::App;
use crate::auth::Member;
use crate::auth::acl::EnvironmentRights;
use crate::store::{AclRule, Judge, Location, Snapshot};
use crate::values;

/// Names a state; two states with one name are answered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Etag([u8; 32]);

impl Etag {
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for Etag {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NotOurs)?;
        bytes.try_into().map(Self).map_err(|_| NotOurs)
    }
}

/// The name of no state that this server ever named.
#[derive(Debug)]
pub struct NotOurs;

/// What a snapshot means for whoever asked.
#[derive(Debug)]
pub struct Findings {
    pub etag: Etag,
    /// Named keys that are permitted and not there.
    pub missing: Vec<String>,
    /// Named keys that the rules refuse; this wins over `missing`, so that names do not leak.
    pub denied: Vec<String>,
    /// The caller's rights in the environment.
    pub rights: EnvironmentRights,
    pub refusal: Option<Refusal>,
}

/// Why a question cannot be answered key by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Everything was asked for, and there is no right to anything.
    NoRight,
    Configurations,
}

/// Judges a snapshot for one caller and one question.
pub struct Reader {
    pub app: App,
    pub member: Member,
    pub request: Arc<Request>,
    pub known: Known,
    /// Whether the caller's rules were read in this very snapshot, or else come with it.
    pub is_fresh: bool,
    /// The rules are the same for every key of one snapshot, so they are narrowed down once.
    narrowed: OnceLock<EnvironmentRights>,
    pub findings: Option<Findings>,
}

impl Reader {
    pub fn new(app: &App, member: Member, (request, known): (&Arc<Request>, &Known), is_fresh: bool) -> Self {
        Self {
            app: app.clone(),
            member,
            request: Arc::clone(request),
            known: known.clone(),
            is_fresh,
            narrowed: OnceLock::new(),
            findings: None,
        }
    }

    fn rights(&self, location: &Location, rules: &[AclRule]) -> EnvironmentRights {
        let rights = if self.is_fresh {
            self.member.rights()
        } else {
            self.member.rights_by(rules)
        };
        rights.within(values::place(location))
    }

    fn judge(&mut self, snapshot: &Snapshot) -> Findings {
        let narrowed = self.narrowed.take();
        let rights = narrowed.unwrap_or_else(|| self.rights(&snapshot.location, &snapshot.rules));
        let refusal = if self.request.is_for_all() && !rights.any() {
            Some(Refusal::NoRight)
        } else if self.request.configurations && !rights.configurations() {
            Some(Refusal::Configurations)
        } else {
            None
        };
        let found: BTreeSet<&str> = snapshot.secrets.iter().map(|secret| secret.name.as_str()).collect();
        let (permitted, denied): (Vec<&str>, Vec<&str>) =
            self.request.named().partition(|key| rights.may(Permission::Read, key));
        let missing = owned(permitted.into_iter().filter(|key| !found.contains(key)));
        let denied = owned(denied.into_iter());
        Findings {
            etag: self.etag(snapshot, &missing, &denied),
            missing,
            denied,
            rights,
            refusal,
        }
    }

    /// A keyed hash of what was asked, by whom, and of the identities of all that the answer is made of: never of a
    /// value, and never of a version's number alone, which another secret or another database could share. The windows
    /// are part of it, so that whoever plans by them hears of a change before it takes effect.
    fn etag(&self, snapshot: &Snapshot, missing: &[String], denied: &[String]) -> Etag {
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
        Etag(self.app.store().pepper().mac(
            "bundle-etag/2",
            &[
                self.app.store().epoch().as_bytes(),
                &self.member.identity(),
                snapshot.location.environment.0.as_bytes(),
                &self.request.canonical(),
                &versions,
                &windows,
                &configurations,
                &names,
            ],
        ))
    }
}

impl Judge for Reader {
    fn permits(&self, location: &Location, rules: &[AclRule], name: &str) -> bool {
        self.narrowed
            .get_or_init(|| self.rights(location, rules))
            .may(Permission::Read, name)
    }

    fn wants_values(&self) -> bool {
        self.request.values && self.known.is_empty()
    }

    fn wants_values_of(&mut self, snapshot: &Snapshot) -> bool {
        let findings = self.judge(snapshot);
        let changed = findings.refusal.is_none() && !self.known.has(findings.etag);
        self.findings = Some(findings);
        changed && self.request.values
    }
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}
