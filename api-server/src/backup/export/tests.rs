use super::*;
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
        chain: audit::Chain::Instance,
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
        segments(&source, &asked, &key, |found| *found != segment),
        Ok(None)
    ));
    let read = segments(&source, &asked, &key, |found| *found == segment);
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
}

fn unreadable() -> Error {
    Error::Io(std::io::ErrorKind::PermissionDenied.into())
}

#[test]
fn an_export_that_cannot_be_read_keeps_nobody_from_the_others_and_is_told_of_once() {
    let file = |name: &str| Kept {
        name: name.to_owned(),
        bytes: 1,
        modified: 0,
    };
    let (files, unread) = (["damaged", "frozen", "found"].map(file), Told::default());
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
    assert!(!unread.is_new("frozen") && unread.is_new("found"));
    // Once it can be read, the next time is a new one.
    let nothing = |_: &Kept| Ok(None::<()>);
    assert!(matches!(first_of(files.iter(), &unread, nothing), Ok(None)));
    assert!(unread.is_new("frozen"));
    // Where the database does not answer, nothing is known of any.
    let fails = |_: &Kept| Err::<Option<()>, _>(Error::Store(store::StoreError::TooSlow));
    assert!(first_of(files.iter(), &unread, fails).is_err());
}

#[test]
fn what_may_be_an_archive_is_kept() {
    let unread = Told::default();
    let is_kept = |error| is_archive(("name", &unread), Err(error));
    assert!(is_kept(unreadable()) && is_kept(Error::UnknownFormat { found: 2 }));
    assert!(!is_kept(Error::NotAnArchive) && !is_kept(Damage::CutShort.into()));
}
