use std::io::{Read as _, Seek as _};

use super::*;
use crate::audit::{By, Chain, Entry, GENESIS, Kind, StoredEntry, Verb};
use crate::crypto::generate_master_key;

/// An archive in memory.
struct Bytes(Vec<u8>);

impl Source for Bytes {
    type Reader = std::io::Cursor<Vec<u8>>;

    fn open(&self) -> Result<Self::Reader, Error> {
        Ok(std::io::Cursor::new(self.0.clone()))
    }
}

#[test]
fn of_an_export_that_begins_with_what_is_not_wanted_the_rest_is_not_read() {
    let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
    let segment = Segment {
        chain: Chain::Instance,
        first: 7,
        last: 8,
        previous: [1; 32],
        head: [2; 32],
    };
    let sealer = Sealer::new(Vec::new(), Header::new(Uuid::now_v7(), CONTENT, 1), &keyring, &[]).unwrap();
    let mut encoder = zstd::stream::write::Encoder::new(sealer, LEVEL).unwrap();
    line(&mut encoder, &Line::segment(&segment)).unwrap();
    // What does not compress, and is no entry: whoever gets there finds it out.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    encoder.write_all(&noise.take(1 << 20).collect::<Vec<_>>()).unwrap();
    let mut archive = encoder.finish().unwrap().finish().unwrap();
    archive.truncate(512 * 1024);
    let (source, key) = (Bytes(archive), AuditKey::new(&[0; 32]));
    let asked = Asked {
        id: None,
        keyring: Some(&keyring),
        identity: None,
    };
    assert!(matches!(
        segments_if(&source, &asked, &key, |found| *found != segment),
        Ok(None)
    ));
    let read = segments_if(&source, &asked, &key, |found| *found == segment);
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
}

/// Some that follow each other from the first one on.
fn entries(key: &AuditKey, count: u64) -> Vec<StoredEntry> {
    let mut previous = GENESIS;
    let next = |seq| {
        let (entry, by) = (Entry::new(Kind::Backup, Verb::Create), By::system("test"));
        let stored = key.seal(Chain::Instance, seq, &previous, Time::now(), entry, &by);
        previous = stored.hash;
        stored
    };
    (1..=count).map(next).collect()
}

#[test]
fn of_an_export_each_entry_is_checked_and_that_it_has_all_of_them() {
    let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
    let key = AuditKey::new(&[0; 32]);
    let all = entries(&key, 4);
    let segment = Segment {
        chain: Chain::Instance,
        first: 1,
        last: 4,
        previous: GENESIS,
        head: all[3].hash,
    };
    let read = |entries: &[StoredEntry], segment: &Segment| {
        let sealer = Sealer::new(Vec::new(), Header::new(Uuid::now_v7(), CONTENT, 1), &keyring, &[]).unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(sealer, LEVEL).unwrap();
        line(&mut encoder, &Line::segment(segment)).unwrap();
        for entry in entries {
            line(&mut encoder, &Line::Entry(Box::new(entry.clone().into()))).unwrap();
        }
        let asked = Asked {
            id: None,
            keyring: Some(&keyring),
            identity: None,
        };
        match segments(&Bytes(encoder.finish().unwrap().finish().unwrap()), &asked, &key) {
            Ok(found) => {
                assert_eq!(found, [*segment]);
                None
            }
            Err(Error::Damaged(Damage::Chain { chain, broken })) => {
                assert_eq!(chain, Chain::Instance);
                Some(broken)
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(read(&all, &segment), None);
    let mut changed = all.clone();
    changed[1].actor_name = "nobody".to_owned();
    assert_eq!(read(&changed, &segment), Some(Broken::Changed { seq: 2 }));
    let without = [&all[..1], &all[2..]].concat();
    assert_eq!(read(&without, &segment), Some(Broken::Gap { expected: 2, found: 3 }));
    assert_eq!(read(&all[..3], &segment), Some(Broken::Gone { seq: 4 }));
    assert_eq!(read(&[], &segment), Some(Broken::Gone { seq: 1 }));
    // It ends elsewhere than it says.
    let shorter = Segment { last: 3, ..segment };
    // What it says and what it has are told apart: nothing was changed here.
    assert_eq!(read(&all, &shorter), Some(Broken::Beyond { seq: 4 }));
    let other = Segment {
        head: [7; 32],
        ..segment
    };
    assert_eq!(read(&all, &other), Some(Broken::Changed { seq: 4 }));
}

fn unreadable() -> Error {
    Error::Io(std::io::ErrorKind::PermissionDenied.into())
}

/// What people are told of while this goes on.
fn told(work: impl FnOnce()) -> String {
    let log = Arc::new(tempfile::tempfile().unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(Arc::clone(&log)).with_ansi(false);
    tracing::subscriber::with_default(subscriber.finish(), work);
    let (mut text, mut log) = (String::new(), &*log);
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_export_that_cannot_be_read_keeps_nobody_from_the_others_and_is_told_of_once() {
    let file = |name: &str| Kept {
        name: name.to_owned(),
        bytes: 1,
        modified: 0,
    };
    let (files, unread) = (["damaged", "frozen", "found"].map(file), Told::default());
    let look = || {
        let mut looked = Vec::new();
        let found = first_of(files.iter(), &unread, |file| {
            looked.push(file.name.clone());
            match file.name.as_str() {
                "damaged" => Err(Damage::CutShort.into()),
                "frozen" => Err(unreadable()),
                name => Ok(Some(name.to_owned())),
            }
        });
        assert_eq!((found.unwrap().as_deref(), looked.len()), (Some("found"), 3));
    };
    let said = told(look);
    assert!(said.lines().count() == 1 && said.contains("frozen"), "{said}");
    assert_eq!(told(look), "");
    // Once it can be read, the next time is a new one.
    let nothing = |_: &Kept| Ok(None::<()>);
    assert!(matches!(first_of(files.iter(), &unread, nothing), Ok(None)));
    assert!(told(look).contains("frozen"));
    // Where the database does not answer, nothing is known of any.
    let fails = |_: &Kept| Err::<Option<()>, _>(Error::Store(store::StoreError::TooSlow));
    assert!(first_of(files.iter(), &unread, fails).is_err());
}
