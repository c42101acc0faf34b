//! A store on a real file, and the short forms that its tests are written in.

use std::path::{Path, PathBuf};

use sealpod_api_server::audit::By;
use sealpod_api_server::crypto::{ApiKey, ApiKeyKind, Keyring, NewKey};
use sealpod_api_server::ids::VersionId;
use sealpod_api_server::store::{
    AclRule, Appended, BundleQuery, Bundled, EnvironmentRef, Judge, Location, NewEnvironment, NewProject, NewVersion,
    Options, Project, ProjectRef, Slot, Snapshot, Store, StoreError,
};
use sealpod_core::wire::Labels;
use tempfile::TempDir;

pub const MASTER_KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// Of the databases of older schemas only.
pub const OLDER_KEY: &str = "5d1f0c6d2a8b4e7093b1f6a2c4d8e0f15a7b9c3d2e4f60718293a4b5c6d7e8f9";
pub const ORGANIZATION: &str = "default";

pub struct Fixture {
    pub store: Store,
    pub keyring: Keyring,
    pub folder: TempDir,
}

pub fn keyring() -> Keyring {
    Keyring::parse(MASTER_KEY).unwrap()
}

/// A database of this schema with one of everything that the first one could hold (`src/store/sqlite/upgrades.rs`).
pub fn older_database(schema: usize) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let packed = std::fs::File::open(fixtures.join(format!("schema-{schema:02}.db.zst"))).unwrap();
    zstd::decode_all(packed).unwrap()
}

pub fn by() -> By {
    By::system("test")
}

impl Fixture {
    /// An empty store with its default organization.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path().join("sealpod.db"));
        change(&mut options);
        let store = Store::open(&options, &keyring()).unwrap();
        store.ensure_organization(ORGANIZATION, by()).await.unwrap();
        Self {
            store,
            keyring: keyring(),
            folder,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("sealpod.db")
    }

    /// A project with the environments `local` and `prod`.
    pub async fn project(&self, slug: &str) -> ProjectRef {
        self.try_project(slug).await.unwrap();
        ProjectRef::slug(ORGANIZATION, slug)
    }

    pub async fn try_project(&self, slug: &str) -> Result<Project, StoreError> {
        self.store.create_project(new_project(slug), by()).await
    }

    pub async fn slot(&self, environment: &EnvironmentRef, key: &str) -> Slot {
        let environments = vec![environment.environment.clone()];
        let slots = self.store.locate(environment.project.clone(), key, environments);
        slots.await.unwrap().remove(0)
    }

    /// Sealed for its place, enabled, without a window.
    pub fn version(&self, slot: &Slot, value: &str) -> NewVersion {
        let id = VersionId::new();
        NewVersion {
            sealed: self.keyring.seal(&slot.aad(id), value.as_bytes()),
            slot: slot.clone(),
            id,
            is_enabled: true,
            not_before: None,
            expires_at: None,
            from: None,
        }
    }

    pub async fn set(&self, environment: &EnvironmentRef, key: &str, value: &str) -> Appended {
        let slot = self.slot(environment, key).await;
        let version = self.version(&slot, value);
        self.append(version).await
    }

    pub async fn append(&self, version: NewVersion) -> Appended {
        let appended = self.store.append_versions(vec![version], None, by());
        appended.await.unwrap().remove(0)
    }

    /// The number and text of the active version.
    pub async fn get(&self, environment: &EnvironmentRef, key: &str) -> Result<(u64, String), StoreError> {
        let version = self.store.active_version(environment.clone(), key).await?;
        let value = self.keyring.open(&version.aad(), &version.sealed).unwrap();
        Ok((version.number, String::from_utf8(value.to_vec()).unwrap()))
    }

    /// The snapshot of what `permitted` lets through, with values.
    pub async fn bundle<P>(&self, query: BundleQuery, permitted: P) -> Result<Snapshot, StoreError>
    where
        P: Fn(&Location, &str) -> bool + Send + 'static,
    {
        match self.store.bundle(query, None, Permitting(permitted, true)).await? {
            Bundled::Read(read) => Ok(read.1),
            Bundled::TooMuch => panic!("the bundle is too large"),
        }
    }

    pub fn key(&self, kind: ApiKeyKind) -> (ApiKey, NewKey) {
        let key = ApiKey::generate(kind);
        let new = NewKey::of(self.store.pepper(), &key);
        (key, new)
    }
}

/// Lets through what a closure permits; the flag says whether values are wanted.
pub struct Permitting<P>(pub P, pub bool);

impl<P: Fn(&Location, &str) -> bool + Send + 'static> Judge for Permitting<P> {
    fn permits(&self, location: &Location, _: &[AclRule], name: &str) -> bool {
        (self.0)(location, name)
    }

    fn wants_values(&self) -> bool {
        self.1
    }

    fn wants_values_of(&mut self, _: &Snapshot) -> bool {
        self.1
    }
}

pub fn new_project(slug: &str) -> NewProject {
    NewProject {
        organization: ORGANIZATION.into(),
        slug: slug.parse().unwrap(),
        display_name: slug.to_uppercase(),
        description: None,
        labels: Labels::new(),
        environments: ["local", "prod"].map(new_environment).to_vec(),
        key: None,
    }
}

pub fn new_environment(slug: &str) -> NewEnvironment {
    NewEnvironment {
        slug: slug.parse().unwrap(),
        display_name: slug.to_uppercase(),
        labels: Labels::new(),
    }
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
