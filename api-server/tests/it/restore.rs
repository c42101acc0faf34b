//! What a restore makes is what was there at one instant, and what is not a whole backup makes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use sealpod_api_server::audit::{By, Chain, StoredEntry};
use sealpod_api_server::backup::archive::{Header, Sealer};
use sealpod_api_server::backup::{Asked, Error, Keep, Unpacked, restore, verify};
use sealpod_api_server::crypto::Keyring;
use sealpod_api_server::store::{Options, ProjectRef, RuleQuery, Store, known_schema};
use uuid::Uuid;

use crate::support::{O, Server};

const WRITERS: usize = 6;
const KEYS: usize = 5;

fn keyring(server: &Server) -> Keyring {
    Keyring::parse(&std::fs::read_to_string(server.dir().join("master.key")).unwrap()).unwrap()
}

async fn entries(store: &Store, chain: Chain) -> Vec<StoredEntry> {
    store.audit_following(chain, 0, 100_000).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_secret_rule_and_chain_is_as_it_was_at_one_instant_of_a_busy_time() {
    let server = Server::start().await;
    server.application("shop").await;
    let (done, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let writing = join_all((0..WRITERS).map(async |writer| {
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            let key = format!("key-{writer}-{}", n % KEYS);
            server.put("shop", "local", &key, &format!("{writer} {n}")).await;
            written.fetch_add(1, Ordering::Relaxed);
            n += 1;
        }
    }));
    let granting = async {
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            server
                .account(&format!("ci-{n}"), &[["shop", "local", "*", "read"]])
                .await;
            n += 1;
        }
    };
    let making = async {
        while written.load(Ordering::Relaxed) < 60 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let made = server.admin("POST", "/api/backups").status(201).await;
        done.store(true, Ordering::Relaxed);
        made
    };
    let (_, (), made) = tokio::join!(writing, granting, making);
    let path = format!("/api/backups/{}/restore", made.text_at("id"));
    let restored = server.admin("POST", &path).status(200).await;
    let keyring = keyring(&server);
    let restored = Store::open(&Options::new(restored.text_at("restored_path")), &keyring).unwrap();
    let live = &server.store;

    // 1. Each chain is the beginning of the live one; the organization's tells which instant it was.
    let organization = Chain::Organization(live.organization("default").await.unwrap().id);
    let then = entries(&restored, organization).await;
    let instance = entries(&restored, Chain::Instance).await;
    let (_, instance) = instance.split_last().expect("the restore itself is on record there");
    for (chain, then) in [(organization, &then[..]), (Chain::Instance, instance)] {
        assert_eq!(then, &entries(live, chain).await[..then.len()]);
    }
    assert!(restored.verify_audit().await.unwrap().is_intact());
    // 2. What the chain says was set by then is there, with its value, and nothing else.
    let mut set: BTreeMap<String, u64> = BTreeMap::new();
    let mut granted: BTreeSet<Uuid> = BTreeSet::new();
    for entry in &then {
        match entry.action.as_str() {
            "secret.set" => *set.entry(entry.resource_name.clone().unwrap()).or_default() += 1,
            "acl.grant" => assert!(granted.insert(entry.resource_id.unwrap())),
            _ => {}
        }
    }
    assert!(set.values().sum::<u64>() >= 60, "{set:?}");
    let local = ProjectRef::slug("default", "shop").environment("local");
    for key in (0..WRITERS).flat_map(|writer| (0..KEYS).map(move |n| format!("key-{writer}-{n}"))) {
        let count = set.get(&key).copied().unwrap_or(0);
        let versions = restored.versions(local.clone(), &key).await.unwrap_or_default();
        let numbers: Vec<_> = versions.iter().rev().map(|version| version.number).collect();
        assert!(numbers.iter().copied().eq(1..=count), "{key}: {numbers:?} of {count}");
        for number in numbers {
            let open = async |store: &Store| {
                let version = store.version(local.clone(), &key, number).await.unwrap();
                keyring.open(&version.aad(), &version.sealed).unwrap().to_vec()
            };
            assert_eq!(open(&restored).await, open(live).await, "version {number} of {key}");
        }
    }
    // 3. So it is with the rules.
    let rules = restored.rules("default", RuleQuery::default()).await.unwrap();
    assert_eq!(rules.iter().map(|rule| rule.id.0).collect::<BTreeSet<_>>(), granted);
    let now = live.rules("default", RuleQuery::default()).await.unwrap();
    for rule in &rules {
        assert!(now.contains(rule), "{rule:?}");
    }
    restored.close().await;
}

/// A backup of a small database, as bytes, and a place to try others in.
struct Trial {
    folder: tempfile::TempDir,
    keyring: Keyring,
    id: Uuid,
    good: Vec<u8>,
}

impl Trial {
    fn file(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// Why these bytes are refused, by `backup verify` as well; that nothing was written.
    fn refused(&self, archive: &[u8]) -> Error {
        std::fs::write(self.file(), archive).unwrap();
        let asked = Asked {
            id: Some(self.id),
            keyring: Some(&self.keyring),
            identity: None,
        };
        let target = self.folder.path().join("restored.db");
        let unseen = |_: &Unpacked<'_>| -> Result<(), Error> { panic!("it was unpacked") };
        let error = restore(&self.file(), &asked, &target, Keep::Nothing, unseen, By::system("test")).unwrap_err();
        assert!(verify(&self.file(), &asked, self.folder.path()).is_err());
        let left: Vec<_> = std::fs::read_dir(self.folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{error}: {left:?}");
        error
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_a_whole_backup_is_refused_by_its_reason_before_anything_is_written() {
    let server = Server::start().await;
    server.application("shop").await;
    for n in 0..40 {
        let value: String = (0..200)
            .map(|at| char::from(b'a' + u8::try_from((n * at * 7) % 26).unwrap()))
            .collect();
        server.put("shop", "local", &format!("key-{n}"), &value).await;
    }
    let made = server.admin("POST", "/api/backups").status(201).await;
    let other = server.admin("POST", "/api/backups").status(201).await;
    let read =
        |made: &crate::support::Reply| std::fs::read(server.dir().join("backups").join(made.text_at("filename")));
    let trial = Trial {
        folder: tempfile::tempdir().unwrap(),
        keyring: keyring(&server),
        id: made.text_at("id").parse().unwrap(),
        good: read(&made).unwrap(),
    };
    let live = server
        .admin("GET", &format!("{O}/projects/shop/envs/local/secrets"))
        .status(200)
        .await
        .body;
    let size = trial.good.len();
    for part in 0..64 {
        // Cut off there, and changed there.
        let at = size * part / 64;
        let error = trial.refused(&trial.good[..at]);
        assert!(
            matches!(error, Error::Damaged(_) | Error::NotAnArchive),
            "cut at {at}: {error}"
        );
        let mut changed = trial.good.clone();
        changed[at] ^= 1;
        trial.refused(&changed);
    }
    assert!(matches!(trial.refused(&read(&other).unwrap()), Error::Another { .. }));
    // A form that is not known yet, told by the header alone.
    let form = b"{\"format\":1,";
    let place = trial
        .good
        .windows(form.len())
        .position(|window| window == form)
        .unwrap()
        + form.len()
        - 2;
    let mut newer = trial.good.clone();
    newer[place] = b'2';
    assert!(matches!(trial.refused(&newer), Error::UnknownFormat { found: 2 }));
    // A schema that is not known yet.
    let header = Header::new(trial.id, "backup", known_schema() + 1);
    let mut sealer = Sealer::new(Vec::new(), header, &trial.keyring, &[]).unwrap();
    sealer.write_all(b"what nobody can know").unwrap();
    let error = trial.refused(&sealer.finish().unwrap());
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    assert!(error.to_string().contains("restore it with that version"), "{error}");
    // Somebody else's key.
    let foreign = Keyring::parse(sealpod_api_server::crypto::generate_master_key().expose()).unwrap();
    let needed = trial.keyring.current().to_string();
    let trial = Trial {
        keyring: foreign,
        ..trial
    };
    let error = trial.refused(&trial.good.clone());
    assert!(
        matches!(error, Error::ForeignKey { .. }) && error.to_string().contains(&needed),
        "{error}"
    );
    // The live server has not noticed.
    let now = server
        .admin("GET", &format!("{O}/projects/shop/envs/local/secrets"))
        .status(200)
        .await
        .body;
    assert_eq!(now, live);
}
