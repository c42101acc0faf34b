use proptest::prelude::*;

use super::*;
use crate::ids::{EnvironmentId, OrganizationId, ProjectId, SecretId, VersionId};

const KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

fn place() -> Aad {
    Aad::version(
        OrganizationId::new(),
        ProjectId::new(),
        EnvironmentId::new(),
        SecretId::new(),
        VersionId::new(),
    )
}

/// RFC 8452, appendix C.2: key, nonce, associated data, plaintext, result.
const VECTORS: [[&str; 5]; 4] = [
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "030000000000000000000000",
        "",
        "",
        "07f5f4169bbf55a8400cd47ea6fd400f",
    ],
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "030000000000000000000000",
        "",
        "0100000000000000",
        "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28",
    ],
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "030000000000000000000000",
        "01",
        "0200000000000000",
        "1de22967237a813291213f267e3b452f02d01ae33e4ec854",
    ],
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "030000000000000000000000",
        "01",
        "0200000000000000000000000000000003000000000000000000000000000000",
        "07dad364bfc2b9da89116d7bef6daaaf6f255510aa654f920ac81b94e8bad365aea1bad12702e1965604374aab96dbbc",
    ],
];

#[test]
fn the_cipher_is_that_of_rfc_8452() {
    for [key, nonce, aad, plaintext, want] in VECTORS {
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let cipher = cipher(&hex(key).try_into().unwrap());
        let nonce = hex(nonce).try_into().unwrap();
        let mut buffer = hex(plaintext);
        encrypt(&cipher, &nonce, &hex(aad), &mut buffer);
        assert_eq!(HEXLOWER.encode(&buffer), want);
        decrypt(&cipher, &nonce, &hex(aad), &mut buffer).unwrap();
        assert_eq!(HEXLOWER.encode(&buffer), plaintext);
    }
}

#[test]
fn keys_that_protect_nothing_are_refused_by_line() {
    let zeros = "0".repeat(64);
    let published = "0123456789abcdef".repeat(4);
    for (text, want) in [
        (String::new(), KeyringError::Missing),
        ("\n \n".to_owned(), KeyringError::Missing),
        (KEY[1..].to_owned(), KeyringError::WrongLength { line: 1, found: 63 }),
        (
            format!("{KEY}\n{KEY}0"),
            KeyringError::WrongLength { line: 2, found: 65 },
        ),
        (format!("\n{}", "é".repeat(64)), KeyringError::NotHex { line: 2 }),
        (format!("g{}", &KEY[1..]), KeyringError::NotHex { line: 1 }),
        (zeros, KeyringError::Published { line: 1 }),
        ("f".repeat(64), KeyringError::Published { line: 1 }),
        ("F".repeat(64), KeyringError::Published { line: 1 }),
        (published.to_uppercase(), KeyringError::Published { line: 1 }),
        (format!("{KEY}\n{published}"), KeyringError::Published { line: 2 }),
        (
            format!("{KEY}\n\n{}", KEY.to_uppercase()),
            KeyringError::Duplicate { line: 3, first: 1 },
        ),
        (
            (10..27).map(|n| KEY[2..].to_owned() + &n.to_string() + "\n").collect(),
            KeyringError::TooMany,
        ),
    ] {
        let error = Keyring::parse(&text).unwrap_err();
        assert_eq!(error, want);
        assert!(!error.to_string().contains(&KEY[..8]));
    }
    let tolerated = format!("  {KEY}\r\n\r\n{OTHER}\t\n");
    assert_eq!(Keyring::parse(&tolerated).unwrap().ids().count(), 2);
}

#[test]
fn a_generated_key_is_taken() {
    let (one, two) = (generate_master_key(), generate_master_key());
    assert_ne!(one.expose(), two.expose());
    assert!(Keyring::parse(one.expose()).is_ok());
}

#[test]
fn the_first_key_seals_and_every_key_opens() {
    let old = Keyring::parse(OTHER).unwrap();
    let aad = place();
    let sealed = old.seal(&aad, b"value");

    let rotated = Keyring::parse(&format!("{KEY}\n{OTHER}")).unwrap();
    assert_eq!(*rotated.open(&aad, &sealed).unwrap(), b"value");
    assert_eq!(
        rotated.seal(&aad, b"value").key_id(),
        Keyring::parse(KEY).unwrap().current()
    );

    let error = Keyring::parse(KEY).unwrap().open(&aad, &sealed).unwrap_err();
    assert_eq!(error, OpenError::UnknownKey { needed: old.current() });
}

#[test]
fn a_value_opens_only_where_it_belongs_and_only_unchanged() {
    let keyring = Keyring::parse(KEY).unwrap();
    let aad = place();
    let sealed = keyring.seal(&aad, b"value");
    assert_eq!(keyring.open(&place(), &sealed), Err(OpenError::Refused));
    for at in 9..sealed.as_bytes().len() {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[at] ^= 1;
        let changed = Sealed::try_from(bytes).unwrap();
        assert_eq!(keyring.open(&aad, &changed), Err(OpenError::Refused), "byte {at}");
    }
}

#[test]
fn an_envelope_that_names_another_known_key_does_not_open() {
    let keyring = Keyring::parse(&format!("{KEY}\n{OTHER}")).unwrap();
    let aad = place();
    let mut bytes = keyring.seal(&aad, b"value").as_bytes().to_vec();
    let other = keyring.ids().nth(1).unwrap();
    bytes[1..9].copy_from_slice(other.as_bytes());
    let relabelled = Sealed::try_from(bytes).unwrap();
    assert_eq!(keyring.open(&aad, &relabelled), Err(OpenError::Refused));
}

#[test]
fn no_two_seals_are_alike() {
    let keyring = Keyring::parse(KEY).unwrap();
    let aad = place();
    assert_ne!(keyring.seal(&aad, b"value"), keyring.seal(&aad, b"value"));
}

#[test]
fn debug_output_tells_ids_and_nothing_else() {
    let keyring = Keyring::parse(KEY).unwrap();
    let text = format!("{keyring:?} {:?}", keyring.seal(&place(), b"canary"));
    let id = keyring.current().to_string();
    assert_eq!(text, format!("[{id}] [sealed under {id}]"));
    assert!(!KEY.contains(&id));
}

#[test]
fn what_is_wrapped_anew_needs_the_new_key_only_and_opens_only_where_it_belongs() {
    let old = Keyring::parse(OTHER).unwrap();
    let aad = place();
    let sealed = old.seal(&aad, b"value");
    let both = Keyring::parse(&format!("{KEY}\n{OTHER}")).unwrap();
    let rewrapped = both.rewrap(&aad, &sealed).unwrap();
    let new = Keyring::parse(KEY).unwrap();
    assert_eq!(rewrapped.key_id(), new.current());
    assert_eq!(*new.open(&aad, &rewrapped).unwrap(), b"value");
    assert_eq!(rewrapped.ciphertext(), sealed.ciphertext());
    assert_ne!(
        rewrapped.wrapped_dek(),
        both.rewrap(&aad, &sealed).unwrap().wrapped_dek()
    );
    assert_eq!(both.rewrap(&place(), &sealed), Err(OpenError::Refused));
    assert_eq!(new.open(&place(), &rewrapped), Err(OpenError::Refused));
    let needed = old.current();
    assert_eq!(new.rewrap(&aad, &sealed), Err(OpenError::UnknownKey { needed }));
}

#[test]
fn clones_of_a_keyring_share_their_keys() {
    let keyring = Keyring::parse(OTHER).unwrap();
    let clone = keyring.clone();
    keyring.replace(&Keyring::parse(&format!("{KEY}\n{OTHER}")).unwrap());
    assert_eq!(clone.current(), Keyring::parse(KEY).unwrap().current());
    assert_eq!(clone.ids().count(), 2);
}

#[test]
fn a_key_that_is_taken_out_opens_for_a_minute_what_was_looked_up_before_and_does_nothing_else() {
    let keyring = Keyring::parse(OTHER).unwrap();
    let (aad, old) = (place(), keyring.current());
    let sealed = keyring.seal(&aad, b"value");
    let [both, new] = [format!("{KEY}\n{OTHER}"), KEY.to_owned()].map(|keys| Keyring::parse(&keys).unwrap());
    for other in [&both, &new, &both, &new, &new] {
        keyring.replace(other);
        assert_eq!(*keyring.open(&aad, &sealed).unwrap(), b"value");
    }
    assert_eq!(keyring.ids().collect::<Vec<_>>(), [new.current()]);
    assert_eq!(*keyring.export(), *new.export());
    assert!(!keyring.lead_with(old));
    keyring.forget(Instant::now() + LEAVING / 2);
    assert!(keyring.open(&aad, &sealed).is_ok());
    keyring.forget(Instant::now() + LEAVING);
    assert_eq!(keyring.open(&aad, &sealed), Err(OpenError::UnknownKey { needed: old }));
}

proptest! {
    #[test]
    fn every_value_comes_back(value in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let keyring = Keyring::parse(KEY).unwrap();
        let aad = place();
        let sealed = keyring.seal(&aad, &value);
        prop_assert_eq!(&*keyring.open(&aad, &sealed).unwrap(), &value);
        let parsed = Sealed::try_from(sealed.as_bytes().to_vec()).unwrap();
        prop_assert_eq!(parsed, sealed);
    }
}
