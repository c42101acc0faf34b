//! What is missing, and what comes first: pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::authority::{Authority, Leaf};
use crate::certs;

/// How long a CA is trusted before it signs what the server shows, and how long after that the one before stays trusted.
/// A bundle goes from the server's Secret to the controller, from there to each binding's key Secret, and to pods as the
/// kubelet brings it: minutes, or hours while one of these is away.
pub const OVERLAP: Duration = Duration::from_hours(24);
/// When it is seen to it that every key Secret has the new CA, and how long after that pods have it from there.
pub const DELIVERED: Duration = Duration::from_hours(12);
/// As [`DELIVERED`], where the CA had to sign before: its file has come to the controller, and pods wait.
const DELIVERED_LATE: Duration = Duration::from_mins(10);
/// How long one key Secret that cannot be written holds up all others, from when that was found out. The certificate of the
/// CA before has a third of its life left.
const HELD_UP: Duration = Duration::from_hours(7 * 24);
/// A certificate of the CA before that ends within this time waits no longer: nobody takes one that has ended.
const LAST_MOMENT: Duration = Duration::from_hours(2);

/// What one look found. Content that is of no use reads as none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub authority: Option<Authority>,
    /// The server's certificate.
    pub leaf: Option<Leaf>,
    /// The certificates that everybody is told to trust.
    pub trusted: String,
    /// Since when these, where that is known of exactly these.
    pub since: Option<Timestamp>,
    /// When every key Secret had these, where that is known of exactly these.
    pub delivered: Option<Timestamp>,
    /// When some key Secret could not be given these for the first time, where that is known of exactly these.
    pub undelivered: Option<Timestamp>,
}

/// What is to be done next, one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    NewAuthority,
    /// Tell everybody to trust these, from now on.
    Trust(String),
    /// See to it that the key Secrets of all bindings have these, and note when.
    Deliver,
    NewLeaf,
    /// Forget in the CA's own Secret what nobody trusts any more.
    Tidy,
    Nothing,
}

/// The first thing that is missing. The order keeps what is served trusted at every moment.
pub fn evaluate(observed: &Observed, server_name: &str, now: Timestamp) -> Step {
    let trusted = &observed.trusted;
    let Some(authority) = observed.authority.as_ref().filter(|a| !a.validity.is_due(now)) else {
        return Step::NewAuthority;
    };
    let own = &authority.pair.certificate;
    if !certs::holds(trusted, own) {
        let first = with_signer(own, observed, server_name, now);
        return Step::Trust(certs::bundle(&certs::bundle(&first, trusted), &authority.bundle));
    }
    let Some(leaf) = &observed.leaf else {
        return Step::NewLeaf;
    };
    let accepted_by = |authorities: &str| {
        certs::check_server_and_roots(&leaf.pair.certificate, authorities, server_name, now).is_ok()
    };
    if !accepted_by(own) {
        let left = leaf.validity.until.duration_since(now).unsigned_abs();
        // One that nobody accepts cannot get worse by a change; any other waits until the CA is known everywhere.
        if !accepted_by(trusted) || left < LAST_MOMENT {
            return Step::NewLeaf;
        }
        return when_known(observed, DELIVERED, now, || Step::NewLeaf);
    }
    if leaf.validity.is_due(now) {
        return Step::NewLeaf;
    }
    let only = certs::count(own);
    if certs::count(trusted) > only {
        return when_known(observed, DELIVERED_LATE, now, || {
            if leaf.validity.age(now) >= OVERLAP {
                Step::Trust(own.clone())
            } else {
                Step::Nothing
            }
        });
    }
    if certs::count(&authority.bundle) > only {
        return Step::Tidy;
    }
    Step::Nothing
}

/// `then`, once all have known what is trusted for long enough; `soonest` is when key Secrets are seen to.
fn when_known(observed: &Observed, soonest: Duration, now: Timestamp, then: impl FnOnce() -> Step) -> Step {
    // The moments are noted in what is written. One that lies ahead was noted by a clock that was wrong.
    let noted = |at: Option<Timestamp>| {
        at.filter(|at| *at <= now)
            .map(|at| now.duration_since(at).unsigned_abs())
    };
    let Some(since) = noted(observed.since) else {
        return Step::Trust(observed.trusted.clone());
    };
    let delivered = noted(observed.delivered);
    let is_held_up = noted(observed.undelivered).is_none_or(|since| since < HELD_UP);
    if delivered.is_none() && is_held_up {
        return if since >= soonest { Step::Deliver } else { Step::Nothing };
    }
    if since >= OVERLAP && delivered.is_none_or(|since| since >= soonest) {
        then()
    } else {
        Step::Nothing
    }
}

/// A CA, and the one that has signed what is shown, which is then not among those that are left out of many.
pub fn with_signer(own: &str, observed: &Observed, server_name: &str, now: Timestamp) -> String {
    let Some(leaf) = &observed.leaf else {
        return own.to_owned();
    };
    let known = observed.authority.as_ref().map_or("", |a| a.bundle.as_str());
    let all = format!("{}\n{known}", observed.trusted);
    let signers = certs::signers(&leaf.pair.certificate, &all, server_name, now);
    format!("{own}\n{signers}")
}

#[cfg(test)]
mod tests;
