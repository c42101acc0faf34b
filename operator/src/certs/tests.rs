use super::*;

const YEAR: Duration = DAY.saturating_mul(365);

fn now() -> Timestamp {
    "2026-11-03T12:00:00Z".parse().unwrap()
}

fn later(duration: Duration) -> Timestamp {
    now().checked_add(duration).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_client_that_trusts_the_authority_accepts_the_names_for_as_long_as_it_is_valid() {
    let authority = new_authority("Sealpod test CA", now()).unwrap();
    let pair = issue(&authority, &names(&["a.ns.svc", "localhost", "127.0.0.1"]), now(), YEAR).unwrap();
    let check = |name, at| check_server(&pair.certificate, &authority.certificate, name, at);
    for name in ["a.ns.svc", "localhost", "127.0.0.1"] {
        check(name, now()).unwrap();
        check(name, later(DAY * 364)).unwrap();
    }
    assert!(matches!(check("b.ns.svc", now()), Err(CertError::Refused(_))));
    assert!(matches!(
        check("localhost", later(YEAR + DAY)),
        Err(CertError::Refused(_))
    ));
    check("localhost", now().checked_sub(Duration::from_mins(30)).unwrap()).unwrap();

    let other = new_authority("Sealpod test CA", now()).unwrap();
    assert!(check_server(&pair.certificate, &other.certificate, "localhost", now()).is_err());
    let both = bundle(&other.certificate, &authority.certificate);
    check_server(&pair.certificate, &both, "localhost", now()).unwrap();
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let authority = new_authority("Sealpod test CA", now()).unwrap();
    let pair = issue(&authority, &names(&["a"]), later(DAY * 3_651), YEAR).unwrap();
    assert_eq!(
        check_pair(&pair).unwrap().until,
        check_authority(&authority).unwrap().until
    );
}

#[test]
fn renewal_is_due_after_two_thirds() {
    let authority = new_authority("Sealpod test CA", now()).unwrap();
    let pair = issue(&authority, &names(&["a"]), now(), DAY * 90).unwrap();
    let validity = check_pair(&pair).unwrap();
    assert!(!validity.is_due(now()));
    assert!(!validity.is_due(later(DAY * 59)));
    assert!(validity.is_due(later(DAY * 60)));
    assert!(validity.is_due(later(YEAR)));
    let early = |by: Duration| validity.is_due(now().checked_sub(by).unwrap());
    assert!(!early(BACKDATED) && early(BACKDATED + DAY));
    assert_eq!(validity.age(now()), Duration::ZERO);
    assert_eq!(validity.age(later(DAY)), DAY);
}

#[test]
fn what_lives_for_a_minute_is_renewed_within_it() {
    let minute = Duration::from_mins(1);
    let authority = new_authority_for("Sealpod test CA", now(), minute * 3).unwrap();
    let pair = issue(&authority, &names(&["a"]), now(), minute).unwrap();
    let validity = check_pair(&pair).unwrap();
    assert_eq!(validity.age(later(minute / 2)), minute / 2);
    assert!(!validity.is_due(later(minute / 2)) && validity.is_due(later(minute * 2 / 3)));
}

#[test]
fn what_does_not_belong_together_is_told_apart_and_never_quoted() {
    let authority = new_authority("Sealpod test CA", now()).unwrap();
    let other = new_authority("Sealpod test CA", now()).unwrap();
    let leaf = issue(&authority, &names(&["a"]), now(), YEAR).unwrap();
    let mixed = Pair {
        certificate: authority.certificate.clone(),
        key: other.key,
    };
    assert!(matches!(check_authority(&mixed), Err(CertError::KeyMismatch)));
    assert!(matches!(check_authority(&leaf), Err(CertError::NotAnAuthority)));
    assert!(matches!(
        issue(&leaf, &names(&["a"]), now(), YEAR),
        Err(CertError::NotAnAuthority)
    ));
    let broken = |certificate: &str, key: &str| {
        let pair = Pair {
            certificate: certificate.to_owned(),
            key: Zeroizing::new(key.to_owned()),
        };
        check_pair(&pair).unwrap_err().to_string()
    };
    for text in [broken("canary", &leaf.key), broken(&leaf.certificate, "canary")] {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(!format!("{leaf:?}").contains("PRIVATE"));
}

#[test]
fn what_is_no_name_of_a_server_is_refused_by_name() {
    let authority = new_authority("Sealpod test CA", now()).unwrap();
    for bad in ["", "a b", "é"] {
        let error = issue(&authority, &names(&[bad]), now(), YEAR).unwrap_err();
        assert!(
            matches!(&error, CertError::Name(name) if name == bad),
            "{bad:?}: {error}"
        );
    }
}

#[test]
fn a_bundle_holds_each_authority_once() {
    let (one, two) = (
        new_authority("one", now()).unwrap(),
        new_authority("two", now()).unwrap(),
    );
    let both = bundle(&one.certificate, &two.certificate);
    assert_eq!(bundle(&both, &one.certificate), both);
    assert_eq!(count(&both), 2);
    assert_eq!(bundle(&one.certificate, "canary"), bundle(&one.certificate, ""));
    assert!(both.lines().all(|line| line.len() <= 64));
    let more = |all: &str| bundle(&new_authority("x", now()).unwrap().certificate, all);
    let many = (0..20).fold(both, |all, _| more(&all));
    assert_eq!(
        (count(&many), count(&more(&many))),
        (8, 8),
        "the newest come first and stay"
    );
}

#[test]
fn an_authority_that_is_not_valid_at_that_time_vouches_for_nothing() {
    let (old, new) = (
        new_authority("a", now()).unwrap(),
        new_authority("b", later(YEAR)).unwrap(),
    );
    let both = bundle(&old.certificate, &new.certificate);
    let leaf = |authority: &Pair, at| issue(authority, &names(&["a"]), at, YEAR * 9).unwrap().certificate;
    let check = |leaf: &str, at| check_server_and_roots(leaf, &both, "a", at);
    check(&leaf(&old, now()), now()).unwrap();
    assert!(matches!(check(&leaf(&new, now()), now()), Err(CertError::Refused(_))));
    check(&leaf(&new, now()), later(YEAR)).unwrap();
    let never = check_server_and_roots(&leaf(&new, now()), &new.certificate, "a", now());
    assert!(matches!(never, Err(CertError::NoAuthorityNow)));
    let over = check_server_and_roots(&leaf(&old, now()), &old.certificate, "a", later(YEAR * 11));
    assert!(matches!(over, Err(CertError::NoAuthorityNow)));
}
