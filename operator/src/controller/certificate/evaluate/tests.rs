use super::*;
use crate::certs::{AUTHORITY_LIFE, Lives};

const SERVER: &str = "server.sealpod.svc";
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    "2036-11-03T12:00:00Z".parse().unwrap()
}

fn ago(duration: Duration) -> Timestamp {
    now().checked_sub(duration).unwrap()
}

fn ahead(duration: Duration) -> Timestamp {
    now().checked_add(duration).unwrap()
}

fn authority(made: Timestamp) -> Authority {
    let pair = certs::new_authority("CA", made).unwrap();
    Authority {
        validity: certs::check_authority(&pair).unwrap(),
        bundle: pair.certificate.clone(),
        pair,
    }
}

fn leaf_for(authority: &Authority, made: Timestamp, life: Duration, name: &str) -> Leaf {
    let pair = certs::issue(&authority.pair, &[name.to_owned()], made, life).unwrap();
    Leaf {
        validity: certs::check_pair(&pair).unwrap(),
        pair,
    }
}

fn leaf(authority: &Authority, made: Timestamp) -> Leaf {
    leaf_for(authority, made, Lives::default().leaf, SERVER)
}

/// A CA and its certificate as the bootstrap leaves them, these long ago.
fn settled(authority_age: Duration, leaf_age: Duration) -> Observed {
    let authority = authority(ago(authority_age));
    Observed {
        leaf: Some(leaf(&authority, ago(leaf_age))),
        trusted: authority.bundle.clone(),
        authority: Some(authority),
        since: None,
        delivered: None,
        undelivered: None,
    }
}

/// A new CA of a day ago beside an old one, whose certificate of 30 days ago is still shown; both trusted since then.
fn changing(since: Option<Timestamp>) -> (Observed, Authority) {
    let (old, new) = (authority(ago(DAY * 2_500)), authority(ago(DAY)));
    let both = certs::bundle(&new.bundle, &old.bundle);
    let observed = Observed {
        authority: Some(Authority {
            bundle: both.clone(),
            ..new
        }),
        leaf: Some(leaf(&old, ago(DAY * 30))),
        trusted: both,
        since,
        delivered: since,
        undelivered: None,
    };
    (observed, old)
}

fn own(observed: &Observed) -> String {
    observed.authority.as_ref().unwrap().pair.certificate.clone()
}

fn check(what: &str, observed: &Observed, step: &Step) {
    assert_eq!(&evaluate(observed, SERVER, now()), step, "{what}");
}

#[test]
fn what_belongs_together_is_left_alone_for_two_thirds_of_its_life() {
    check("fresh", &settled(DAY, DAY), &Step::Nothing);
    let due = AUTHORITY_LIFE / 3 * 2;
    let before = DAY * 2_434;
    assert!(before < due && due < before + DAY);
    check("a day before both are due", &settled(before, DAY * 59), &Step::Nothing);
    check("the certificate is due", &settled(DAY * 60, DAY * 60), &Step::NewLeaf);
    check(
        "the certificate has ended",
        &settled(DAY * 91, DAY * 91),
        &Step::NewLeaf,
    );
    check("the CA is due", &settled(due, DAY), &Step::NewAuthority);
    check(
        "the CA has ended",
        &settled(AUTHORITY_LIFE + DAY, DAY),
        &Step::NewAuthority,
    );
}

#[test]
fn what_is_lost_or_damaged_or_of_another_time_is_made_anew() {
    let whole = settled(DAY * 9, DAY);
    let lost = Observed {
        authority: None,
        ..whole.clone()
    };
    check("no CA", &lost, &Step::NewAuthority);
    let lost = Observed {
        leaf: None,
        ..whole.clone()
    };
    check("no certificate", &lost, &Step::NewLeaf);
    let damaged = Observed {
        trusted: "canary".to_owned(),
        ..whole.clone()
    };
    check("no CA that is trusted", &damaged, &Step::Trust(own(&whole)));
    let ca = authority(ahead(DAY * 400));
    let future = Observed {
        leaf: Some(leaf(&ca, ahead(DAY * 400))),
        trusted: ca.bundle.clone(),
        authority: Some(ca),
        since: None,
        delivered: None,
        undelivered: None,
    };
    check("a CA of a clock that was ahead", &future, &Step::NewAuthority);
    let mut other = whole.clone();
    other.leaf = Some(leaf_for(whole.authority.as_ref().unwrap(), ago(DAY), DAY * 90, "other"));
    check("a certificate for another name", &other, &Step::NewLeaf);
}

#[test]
fn a_new_ca_is_trusted_for_a_day_before_it_signs() {
    let (mut untold, old) = changing(Some(ago(DAY * 9)));
    untold.trusted.clone_from(&old.bundle);
    let both = certs::bundle(&own(&untold), &old.bundle);
    check("nobody is told of it yet", &untold, &Step::Trust(both.clone()));
    check(
        "told, nobody knows when",
        &changing_like(&untold, None),
        &Step::Trust(both.clone()),
    );
    let wrong = Some(ahead(HOUR));
    check(
        "told, by a clock that was ahead",
        &changing_like(&untold, wrong),
        &Step::Trust(both),
    );
    check("told just now", &changing(Some(now())).0, &Step::Nothing);
    check("told 23 hours ago", &changing(Some(ago(HOUR * 23))).0, &Step::Nothing);
    check("told a day ago", &changing(Some(ago(DAY))).0, &Step::NewLeaf);
    let (mut ending, old) = changing(Some(now()));
    ending.leaf = Some(leaf_for(&old, ago(HOUR * 10), HOUR * 11, SERVER));
    check("what is shown ends before the day is over", &ending, &Step::NewLeaf);
    let (mut ended, old) = changing(Some(now()));
    ended.leaf = Some(leaf(&old, ago(DAY * 91)));
    check("what is shown has ended", &ended, &Step::NewLeaf);
    let (mut foreign, _) = changing(Some(now()));
    foreign.leaf = Some(leaf(&authority(ago(DAY)), ago(HOUR)));
    check("what is shown is of a CA that nobody trusts", &foreign, &Step::NewLeaf);
}

#[test]
fn it_signs_no_sooner_than_half_a_day_after_every_key_secret_has_it_and_no_later_than_in_a_week() {
    let changed = |since: Duration, delivered: Option<Duration>| Observed {
        delivered: delivered.map(ago),
        ..changing(Some(ago(since))).0
    };
    check("told 11 hours ago", &changed(HOUR * 11, None), &Step::Nothing);
    check("told 12 hours ago", &changed(HOUR * 12, None), &Step::Deliver);
    check("told while nobody was here", &changed(DAY * 6, None), &Step::Deliver);
    check(
        "delivered just now",
        &changed(DAY * 6, Some(Duration::ZERO)),
        &Step::Nothing,
    );
    check(
        "delivered 11 hours ago",
        &changed(DAY * 6, Some(HOUR * 11)),
        &Step::Nothing,
    );
    check(
        "delivered 12 hours ago",
        &changed(DAY * 6, Some(HOUR * 12)),
        &Step::NewLeaf,
    );
    check(
        "delivered, and told 23 hours ago",
        &changed(HOUR * 23, Some(HOUR * 12)),
        &Step::Nothing,
    );
    check(
        "told when nobody was here for a month",
        &changed(DAY * 30, None),
        &Step::Deliver,
    );
    let in_vain = |since: Duration| Observed {
        undelivered: Some(ago(since)),
        ..changed(DAY * 30, None)
    };
    check("not delivered for six days", &in_vain(DAY * 6), &Step::Deliver);
    check("not delivered for a week", &in_vain(DAY * 7), &Step::NewLeaf);
    let mut ahead_of_us = changed(DAY * 2, None);
    ahead_of_us.delivered = Some(ahead(HOUR));
    check("delivered, by a clock that was ahead", &ahead_of_us, &Step::Deliver);
}

#[test]
fn of_many_cas_the_one_that_signed_what_is_shown_is_not_left_out() {
    let (mut observed, old) = changing(None);
    let others = (0..9).map(|_| authority(ago(DAY)).bundle).collect::<String>();
    observed.trusted = format!("{others}{}", old.bundle);
    observed.authority.as_mut().unwrap().bundle = own(&observed);
    let Step::Trust(bundle) = evaluate(&observed, SERVER, now()) else {
        panic!("the new CA is not trusted yet");
    };
    assert_eq!(certs::count(&bundle), 8);
    assert!(certs::holds(&bundle, &own(&observed)) && certs::holds(&bundle, &old.bundle));
}

#[test]
fn a_ca_that_had_to_sign_at_once_is_delivered_soon_and_before_the_one_before_is_forgotten() {
    let signed = |since: Duration| {
        let (mut observed, _) = changing(Some(ago(since)));
        observed.leaf = Some(leaf(observed.authority.as_ref().unwrap(), ago(since)));
        observed.delivered = None;
        observed
    };
    check(
        "the controller may not have its file yet",
        &signed(Duration::ZERO),
        &Step::Nothing,
    );
    check("soon after", &signed(HOUR), &Step::Deliver);
    check("a day later", &signed(DAY), &Step::Deliver);
    let mut in_vain = signed(DAY * 9);
    in_vain.undelivered = Some(ago(DAY * 7));
    check("not for ever", &in_vain, &Step::Trust(own(&in_vain)));
}

/// The same, when all are told.
fn changing_like(observed: &Observed, since: Option<Timestamp>) -> Observed {
    Observed {
        trusted: certs::bundle(&own(observed), &observed.trusted),
        since,
        ..observed.clone()
    }
}

#[test]
fn the_ca_before_is_trusted_for_a_day_after_its_last_certificate() {
    let changed = |leaf_age: Duration, since: Option<Timestamp>| {
        let (mut observed, _) = changing(since);
        observed.leaf = Some(leaf(observed.authority.as_ref().unwrap(), ago(leaf_age)));
        observed
    };
    let young = changed(HOUR * 23, Some(ago(DAY * 2)));
    check("the new certificate is of 23 hours ago", &young, &Step::Nothing);
    let edited = changed(DAY * 9, Some(ago(HOUR * 23)));
    check("the CAs were edited 23 hours ago", &edited, &Step::Nothing);
    let edited = changed(DAY * 9, None);
    check(
        "the CAs were edited just now",
        &edited,
        &Step::Trust(edited.trusted.clone()),
    );
    let old = changed(DAY, Some(ago(DAY * 2)));
    check("both are of a day ago", &old, &Step::Trust(own(&old)));
    let mut told = old.clone();
    told.trusted = own(&old);
    check("nobody trusts it any more", &told, &Step::Tidy);
    told.authority.as_mut().unwrap().bundle = own(&old);
    check("nothing is left of it", &told, &Step::Nothing);
}
