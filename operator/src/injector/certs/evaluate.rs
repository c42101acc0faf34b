//! What is missing, and what comes first: pure.

use jiff::Timestamp;

use crate::authority::{Authority, Leaf};
use crate::certs::{self, Lives};

/// The certificate and the random part of the path, in one Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub leaf: Leaf,
    pub segment: String,
}

/// What the webhook configuration says, of each webhook that calls our Service: its place, CA bundle and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub index: usize,
    pub bundle: Option<String>,
    pub path: Option<String>,
}

/// What one look found. A Secret whose content is of no use reads as none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub authority: Option<Authority>,
    pub served: Option<Served>,
    pub webhooks: Vec<Webhook>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    NewAuthority,
    NewLeaf,
    Register,
    ForgetOldAuthorities,
    Nothing,
}

/// The first thing that is missing. The order keeps what is served trusted at every moment.
pub fn evaluate(observed: &Observed, server_name: &str, lives: Lives, now: Timestamp) -> Step {
    let Some(authority) = observed
        .authority
        .as_ref()
        .filter(|authority| !authority.validity.is_due(now))
    else {
        return Step::NewAuthority;
    };
    let Some(Served { leaf, segment }) = &observed.served else {
        return Step::NewLeaf;
    };
    let is_registered =
        |webhook: &Webhook| webhook.bundle.as_ref() == Some(&authority.bundle) && webhook.path == Some(path(segment));
    if !observed.webhooks.iter().all(is_registered) {
        return Step::Register;
    }
    let accepted_by = |authorities: &str| {
        certs::check_server_and_roots(&leaf.pair.certificate, authorities, server_name, now).is_ok()
    };
    let is_current = accepted_by(&authority.pair.certificate) && !leaf.validity.is_due(now);
    // What is served may be from when lives were shorter, and must not end while the new CA becomes known.
    let settle = lives.settle().min(leaf.validity.life() / 6);
    // One that nobody accepts cannot get worse by a change; any other waits until the new CA is known.
    if !is_current && (authority.validity.age(now) >= settle || !accepted_by(&authority.bundle)) {
        return Step::NewLeaf;
    }
    if is_current && certs::count(&authority.bundle) > 1 && authority.validity.age(now) >= lives.overlap() {
        return Step::ForgetOldAuthorities;
    }
    Step::Nothing
}

/// The path under which the API server calls us.
pub fn path(segment: &str) -> String {
    format!("/mutate/{segment}")
}
