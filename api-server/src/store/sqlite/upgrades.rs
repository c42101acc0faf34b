//! Databases of every schema that there was, as they are kept in `tests/fixtures`, come up with all that they have.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};
use sealpod_core::Time;
use uuid::Uuid;

use super::super::{Options, ProjectRef};
use super::files::beside;
use super::open::MIGRATIONS;
use super::*;
use crate::audit::{By, Entry, Kind, Verb};
use crate::crypto::{Aad, ApiKey, random};
use crate::ids::{ConfigurationId, EnvironmentId, OrganizationId, ProjectId, RevisionId, SecretId, VersionId};

/// Of these databases only; nothing else was ever sealed under it.
const MASTER_KEY: &str = "5d1f0c6d2a8b4e7093b1f6a2c4d8e0f15a7b9c3d2e4f60718293a4b5c6d7e8f9";
const KEY: &str = "grm_0a1b2c3d4e5f60718293a4b5c6d7e8f901234567";
/// Set to make the databases that are not there yet, once for each new schema and before it is released.
const MAKE: &str = "SEALPOD_MAKE_FIXTURES";

fn fixture(schema: usize) -> PathBuf {
    let name = format!("tests/fixtures/schema-{schema:02}.db.zst");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A database of the first schema with one of everything that it could hold, brought up to `schema`.
fn make(path: &Path, schema: usize) {
    let mut connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    connection.pragma_update(None, "application_id", 0x5350_6f64).unwrap();
    let up_to = |count: usize| Migrations::new(MIGRATIONS[..count].iter().map(|sql| M::up(sql)).collect());
    up_to(1).to_latest(&mut connection).unwrap();
    let keyring = Keyring::parse(MASTER_KEY).unwrap();
    let (pepper, audit) = (random::<32>(), random::<32>());
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| assert_eq!(connection.execute(sql, params).unwrap(), 1);
    let meta = "INSERT INTO meta VALUES (?1, ?2)";
    run(meta, &[&"epoch", &Uuid::now_v7().as_bytes().as_slice()]);
    for (name, secret) in [("pepper", &pepper), ("audit_key", &audit)] {
        run(meta, &[&name, &keyring.seal(&Aad::server_key(name), secret.as_slice())]);
    }
    let (org, project, env) = (OrganizationId::new(), ProjectId::new(), EnvironmentId::new());
    let (secret, configuration, revision) = (SecretId::new(), ConfigurationId::new(), RevisionId::new());
    run("INSERT INTO organizations VALUES (?1, 'default', 1, 1, NULL)", &[&org]);
    run(
        "INSERT INTO projects VALUES (?1, ?2, 'shop', 'Shop', NULL, '{}', 1, 1, NULL)",
        &[&project, &org],
    );
    run(
        "INSERT INTO environments VALUES (?1, ?2, 'prod', 'Prod', '{}', 1, 1, NULL)",
        &[&env, &project],
    );
    run(
        "INSERT INTO secrets VALUES (?1, ?2, 'db', NULL, 1, 1, NULL)",
        &[&secret, &project],
    );
    for (number, value) in [(1, "old"), (2, "new")] {
        let id = VersionId::new();
        let sealed = keyring.seal(&Aad::version(org, project, env, secret, id), value.as_bytes());
        run(
            "INSERT INTO versions VALUES (?1, ?2, ?3, ?4, 1, NULL, NULL, 1, 'user', NULL, 'olga', ?5)",
            &[&id, &secret, &env, &number, &sealed],
        );
    }
    let aad = Aad::configuration(org, project, env, configuration, revision);
    run(
        "INSERT INTO configurations VALUES (?1, ?2, 'LOG', NULL, 1, ?3, 1, 1, NULL, ?4)",
        &[&configuration, &env, &revision, &keyring.seal(&aad, b"info")],
    );
    let digest = Pepper::new(&pepper).digest(&ApiKey::parse(KEY).unwrap());
    run(
        "INSERT INTO api_keys VALUES (?1, NULL, ?2, ?3, 'grm_0a1b2c3d', 1, NULL)",
        &[&crate::ids::KeyId::new(), &project, &digest],
    );
    let key = AuditKey::new(&audit);
    for chain in [Chain::Instance, Chain::Organization(org)] {
        let mut end = log::end(&connection, chain).unwrap();
        for verb in [Verb::Create, Verb::Set] {
            let entry = Entry::new(Kind::Secret, verb).resource(secret.0, "db");
            log::append(
                &connection,
                &key,
                Time::now(),
                (chain, &mut end),
                entry,
                &By::system("test"),
            )
            .unwrap();
        }
    }
    up_to(schema).to_latest(&mut connection).unwrap();
}

fn version_of(path: &Path) -> usize {
    let connection = Connection::open(path).unwrap();
    let sql = "PRAGMA user_version";
    let version: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    usize::try_from(version).unwrap()
}

#[tokio::test]
async fn a_database_of_every_schema_comes_up_with_all_it_has_and_leaves_a_copy_of_itself() {
    for schema in 1..=MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealpod.db");
        if !fixture(schema).exists() {
            assert!(
                std::env::var_os(MAKE).is_some(),
                "there is no database of schema {schema}: run this test once with {MAKE}=1 and commit what it makes"
            );
            make(&path, schema);
            let packed = zstd::encode_all(&std::fs::read(&path).unwrap()[..], 19).unwrap();
            std::fs::write(fixture(schema), packed).unwrap();
        }
        let unpacked = zstd::decode_all(&std::fs::read(fixture(schema)).unwrap()[..]).unwrap();
        std::fs::write(&path, unpacked).unwrap();
        assert_eq!(version_of(&path), schema);

        let keyring = Keyring::parse(MASTER_KEY).unwrap();
        let wrong = Keyring::parse(crate::crypto::generate_master_key().expose()).unwrap();
        let refused = Engine::open(&Options::new(&path), &wrong).err().unwrap();
        assert!(matches!(refused, OpenError::WrongMasterKey { .. }), "{refused}");
        assert_eq!(version_of(&path), schema, "a wrong key changed it");

        let engine = Engine::open(&Options::new(&path), &keyring).unwrap();
        let prod = ProjectRef::slug("default", "shop").environment("prod");
        let version = engine.active_version(prod.clone(), "db").await.unwrap();
        assert_eq!(
            (
                version.number,
                &**keyring.open(&version.aad(), &version.sealed).unwrap()
            ),
            (2, &b"new"[..])
        );
        let configuration = engine
            .read(move |view| configurations::find(view.conn, &prod, "LOG"))
            .await
            .unwrap();
        assert_eq!(
            &**keyring.open(&configuration.aad(), &configuration.sealed).unwrap(),
            b"info"
        );
        let digest = engine.pepper().digest(&ApiKey::parse(KEY).unwrap());
        assert!(engine.find_key(digest, Time::now()).await.unwrap().is_some());
        let key = engine.audit_key().clone();
        let report = engine.read(move |view| log::verify(view.conn, &key)).await.unwrap();
        assert!(report.is_intact());
        assert_eq!(
            report.chains.iter().map(|chain| chain.entries).collect::<Vec<_>>(),
            [2, 2]
        );
        engine.close();

        assert_eq!(version_of(&path), MIGRATIONS.len());
        let copy = beside(&path, &format!(".schema-{schema}"));
        if schema == MIGRATIONS.len() {
            assert!(!copy.exists());
        } else {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(version_of(&copy), schema);
            assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn a_database_of_a_newer_schema_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sealpod.db");
    make(&path, MIGRATIONS.len());
    let connection = Connection::open(&path).unwrap();
    connection
        .pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len() + 1).unwrap())
        .unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let refused = Engine::open(&Options::new(&path), &Keyring::parse(MASTER_KEY).unwrap())
        .err()
        .unwrap();
    assert!(refused.to_string().contains("newer version"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
