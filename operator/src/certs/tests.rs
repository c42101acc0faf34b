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

/// An authority whose name has two values of one kind, and one that signs for none in a cluster.
pub fn authorities_that_sign_in_vain(now: Timestamp) -> [Pair; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = named("our company");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    set_validity(&mut params, now, after(now, AUTHORITY_LIFE));
    let mut limited = params.clone();
    limited.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![],
        excluded_subtrees: vec![rcgen::GeneralSubtree::DnsName("svc".to_owned())],
    });
    params.distinguished_name.push(DnType::OrganizationName, "one");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "two");
    let der = params.self_signed(&key).unwrap().der().to_vec();
    // Both become units: a client does not check how a CA that it trusts was signed.
    let [organization, unit] = [[0x06, 0x03, 0x55, 0x04, 0x0a], [0x06, 0x03, 0x55, 0x04, 0x0b]];
    let mut twice = der.clone();
    for at in 0..der.len() - organization.len() {
        if der[at..].starts_with(&organization) {
            twice[at..at + unit.len()].copy_from_slice(&unit);
        }
    }
    assert_ne!(twice, der);
    [
        to_pem(&CertificateDer::from(twice)),
        limited.self_signed(&key).unwrap().pem(),
    ]
    .map(|certificate| Pair {
        certificate,
        key: Zeroizing::new(key.serialize_pem()),
    })
}

#[test]
fn what_no_client_would_accept_is_not_made() {
    for authority in authorities_that_sign_in_vain(now()) {
        check_authority(&authority).unwrap();
        let error = issue(&authority, &names(&["a.ns.svc"]), now(), YEAR).unwrap_err();
        assert!(
            matches!(&error, CertError::SignsInVain { name, .. } if name == "a.ns.svc"),
            "{error}"
        );
    }
}

#[test]
fn the_key_is_found_behind_other_blocks() {
    const PARAMETERS: &str = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let mut authority = new_authority("Sealpod test CA", now()).unwrap();
    authority.key = Zeroizing::new(format!("{PARAMETERS}{}", *authority.key));
    check_authority(&authority).unwrap();
    issue(&authority, &names(&["a"]), now(), YEAR).unwrap();
    authority.key = Zeroizing::new(PARAMETERS.to_owned());
    assert!(matches!(check_authority(&authority), Err(CertError::NoKey)));
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
