use proptest::prelude::*;

use super::*;
use crate::crypto::{generate_master_key, random};

/// Four full chunks and a part of one.
const LENGTH: usize = 4 * CHUNK + 1_000;

fn keyring() -> Keyring {
    Keyring::parse(generate_master_key().expose()).unwrap()
}

fn content() -> Vec<u8> {
    (0..LENGTH / 8).flat_map(|_| *random::<8>()).collect()
}

fn seal(content: &[u8], keyring: &Keyring, recipients: &[Recipient]) -> Vec<u8> {
    let header = Header::new(Uuid::now_v7(), "backup", 1);
    let mut sealer = Sealer::new(Vec::new(), header, keyring, recipients).unwrap();
    sealer.write_all(content).unwrap();
    sealer.finish().unwrap()
}

fn open(archive: &[u8], keys: &Keys<'_>) -> Result<Vec<u8>, Error> {
    let (mut opener, _) = Opener::new(archive, keys)?;
    let mut content = Vec::new();
    opener.read_to_end(&mut content)?;
    Ok(content)
}

fn damage(archive: &[u8], keyring: &Keyring) -> Damage {
    match open(archive, &Keys::Keyring(keyring)) {
        Err(Error::Damaged(damage)) => damage,
        Err(Error::NotAnArchive) => panic!("it is taken for something else"),
        other => panic!("{other:?}"),
    }
}

/// Where the chunks begin.
fn body(archive: &[u8]) -> usize {
    let length = archive[MAGIC.len()..].first_chunk().unwrap();
    MAGIC.len() + 4 + usize::try_from(u32::from_be_bytes(*length)).unwrap()
}

#[test]
fn what_was_sealed_opens_at_every_length() {
    let keyring = keyring();
    let content = content();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, content.len()] {
        let sealed = seal(&content[..length], &keyring, &[]);
        assert_eq!(
            open(&sealed, &Keys::Keyring(&keyring)).unwrap(),
            content[..length],
            "{length}"
        );
    }
}

#[test]
fn an_archive_that_was_cut_anywhere_is_refused() {
    let keyring = keyring();
    let sealed = seal(&content(), &keyring, &[]);
    let begin = body(&sealed);
    let ends = (1..64).map(|part| sealed.len() * part / 64);
    // At the edges of chunks as well, where what is left is whole.
    for end in ends.chain((0..4).map(|chunk| begin + chunk * (CHUNK + TAG))) {
        let damage = damage(&sealed[..end], &keyring);
        let is_edge = end < begin || (end - begin).is_multiple_of(CHUNK + TAG);
        assert!(damage == Damage::CutShort || !is_edge, "{end}: {damage}");
    }
    assert!(matches!(open(&[], &Keys::Keyring(&keyring)), Err(Error::NotAnArchive)));
}

#[test]
fn an_archive_with_any_changed_byte_is_refused() {
    let keyring = keyring();
    let sealed = seal(&content(), &keyring, &[]);
    let begin = body(&sealed);
    let all = (0..begin).chain((begin..sealed.len()).step_by(4_001));
    for at in all.chain([sealed.len() - 1]) {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(open(&changed, &Keys::Keyring(&keyring)).is_err(), "byte {at}");
    }
}

#[test]
fn chunks_in_another_order_or_of_another_archive_are_refused() {
    let keyring = keyring();
    let (one, two) = (seal(&content(), &keyring, &[]), seal(&content(), &keyring, &[]));
    let (begin, size) = (body(&one), CHUNK + TAG);
    let mut reordered = one.clone();
    let (left, right) = reordered[begin..begin + 2 * size].split_at_mut(size);
    left.swap_with_slice(right);
    assert_eq!(damage(&reordered, &keyring), Damage::Changed { chunk: 0 });
    let mut without = one.clone();
    without.drain(begin + size..begin + 2 * size);
    assert_eq!(damage(&without, &keyring), Damage::Changed { chunk: 1 });
    let swapped = [&one[..begin], &two[body(&two)..]].concat();
    assert_eq!(damage(&swapped, &keyring), Damage::Changed { chunk: 0 });
    let mixed = [&one[..begin + size], &two[body(&two) + size..]].concat();
    assert_eq!(damage(&mixed, &keyring), Damage::Changed { chunk: 1 });
    // One full chunk, so that what follows begins a chunk of its own.
    let whole = seal(&vec![7; CHUNK], &keyring, &[]);
    let longer = [&whole[..], b"more than a tag of something else"].concat();
    assert_eq!(damage(&longer, &keyring), Damage::Continued);
}

#[test]
fn a_key_that_is_not_given_is_named() {
    let keyring = keyring();
    let sealed = seal(b"content", &keyring, &[]);
    let other = self::keyring();
    let error = open(&sealed, &Keys::Keyring(&other)).unwrap_err();
    let needed = keyring.current().to_string();
    assert!(
        matches!(error, Error::ForeignKey { .. }) && error.to_string().contains(&needed),
        "{error}"
    );
    let error = open(b"SQLite format 3\0", &Keys::Keyring(&keyring)).unwrap_err();
    assert!(matches!(error, Error::NotAnArchive));
}

#[test]
fn an_offline_identity_opens_it_and_gets_the_master_keys() {
    let (mine, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
    let recipient: Recipient = mine.to_public().to_string().parse().unwrap();
    let identity = |identity: &age::x25519::Identity| {
        use age::secrecy::ExposeSecret;
        let text = format!("# created: today\n{}\n", identity.to_string().expose_secret());
        text.parse::<Identity>().unwrap()
    };
    let keyring = keyring();
    let sealed = seal(b"content", &keyring, std::slice::from_ref(&recipient));
    let (mut opener, carried) = Opener::new(&sealed[..], &Keys::Identity(&identity(&mine))).unwrap();
    let mut content = String::new();
    opener.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    assert!(carried.unwrap().ids().eq(keyring.ids()));
    let wrong = open(&sealed, &Keys::Identity(&identity(&other)));
    assert!(matches!(wrong, Err(Error::ForeignIdentity)));
    let without = seal(b"content", &keyring, &[]);
    assert!(matches!(
        open(&without, &Keys::Identity(&identity(&mine))),
        Err(Error::NoRecipients)
    ));
    // The carried keys of one archive do not open another.
    let text = |archive: &[u8]| String::from_utf8_lossy(&archive[MAGIC.len() + 4..body(archive)]).into_owned();
    let one: serde_json::Value = serde_json::from_str(&text(&sealed)).unwrap();
    let another = seal(b"content", &keyring, std::slice::from_ref(&recipient));
    let mut header: serde_json::Value = serde_json::from_str(&text(&another)).unwrap();
    header["recovery"] = one["recovery"].clone();
    let json = header.to_string();
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    let swapped = [MAGIC, &length, json.as_bytes(), &another[body(&another)..]].concat();
    assert!(matches!(
        open(&swapped, &Keys::Identity(&identity(&mine))),
        Err(Error::Damaged(Damage::Header))
    ));
    for bad in ["", "age1", "canary"] {
        let (as_recipient, as_identity) = (bad.parse::<Recipient>(), bad.parse::<Identity>());
        let why = as_recipient.unwrap_err() + &as_identity.err().unwrap();
        assert!(!why.contains("canary"));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), with_magic in any::<bool>()) {
        let keyring = keyring();
        let archive = if with_magic { [MAGIC, &bytes].concat() } else { bytes };
        prop_assert!(open(&archive, &Keys::Keyring(&keyring)).is_err());
    }
}
