//! Everything that a database holds, opened: what two of them are compared by.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use sealpod_api_server::audit::StoredEntry;
use sealpod_api_server::crypto::Keyring;
use sealpod_api_server::store::{
    Account, AclRule, ConfigurationPage, EnvironmentRef, Organization, OrganizationMember, Page, Project, ProjectRef,
    RuleQuery, Store, VersionInfo,
};
use sealpod_core::Time;
use sealpod_core::wire::Labels;
use uuid::Uuid;

/// The names of an organization, a project and an environment, and a key there.
pub type Place = [String; 4];

/// A configuration with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub revision: u64,
    pub value: String,
    pub description: Option<String>,
    pub updated_at: Time,
}

/// Of all organizations, by their names. Of accounts all but the keys: of a restored one they are revoked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// By place, then by number: every version that was not deleted, and its value.
    pub versions: BTreeMap<Place, BTreeMap<u64, (VersionInfo, String)>>,
    pub configurations: BTreeMap<Place, Entry>,
    pub organizations: Vec<Organization>,
    pub projects: BTreeMap<String, Vec<Project>>,
    pub rules: BTreeMap<String, Vec<AclRule>>,
    pub accounts: BTreeMap<String, Vec<Account>>,
    pub members: BTreeMap<String, Vec<OrganizationMember>>,
    /// Every entry of every chain, the instance's as well, by the chain's id; each entry has the hash of all before it.
    pub chains: BTreeMap<Uuid, Vec<StoredEntry>>,
}

impl Held {
    pub async fn of(store: &Store, keyring: &Keyring) -> Self {
        let mut held = Self {
            organizations: store.organizations(Page::default()).await.unwrap(),
            ..Self::default()
        };
        for organization in held.organizations.clone() {
            held.read(store, keyring, organization.name).await;
        }
        for chain in store.verify_audit().await.unwrap().chains {
            assert_eq!(chain.broken, None);
            let entries = store.audit_following(chain.chain, 0, u32::MAX).await.unwrap();
            assert_eq!(entries.len() as u64, chain.entries);
            assert_eq!(entries.last().unwrap().hash, chain.head);
            held.chains.insert(chain.chain.id(), entries);
        }
        held
    }

    async fn read(&mut self, store: &Store, keyring: &Keyring, name: String) {
        let organization = name.as_str();
        let projects = store.projects(organization, Labels::new(), Page::default());
        let projects = projects.await.unwrap();
        for project in &projects {
            let project = ProjectRef::slug(organization, &project.slug);
            self.read_configurations(store, keyring, &project).await;
            let environments = store.environments(project.clone(), Labels::new(), Page::default());
            for environment in environments.await.unwrap() {
                self.read_secrets(store, keyring, project.clone().environment(environment.slug))
                    .await;
            }
        }
        let rules = store.rules(organization, RuleQuery::default()).await.unwrap();
        let mut accounts = store.accounts(organization, None, Page::default()).await.unwrap();
        for account in &mut accounts {
            account.key_prefix.clear();
        }
        let members = store.members(organization, Page::default()).await.unwrap();
        self.members.insert(name.clone(), members);
        self.projects.insert(name.clone(), projects);
        self.rules.insert(name.clone(), rules);
        self.accounts.insert(name, accounts);
    }

    async fn read_secrets(&mut self, store: &Store, keyring: &Keyring, environment: EnvironmentRef) {
        let (location, secrets) = store
            .environment_secrets(environment.clone(), Page::default(), |_, _| true)
            .await
            .unwrap();
        for secret in secrets {
            let mut versions = BTreeMap::new();
            for info in store.versions(environment.clone(), &secret.name).await.unwrap() {
                let version = store.version(environment.clone(), &secret.name, info.number);
                let version = version.await.unwrap();
                let value = keyring.open(&version.aad(), &version.sealed).unwrap();
                versions.insert(info.number, (info, String::from_utf8(value.to_vec()).unwrap()));
            }
            let location = location.clone();
            let place = [
                location.organization_name,
                location.project_slug,
                location.environment_slug,
                secret.name,
            ];
            self.versions.insert(place, versions);
        }
    }

    async fn read_configurations(&mut self, store: &Store, keyring: &Keyring, project: &ProjectRef) {
        let all = ConfigurationPage {
            limit: 10_000,
            bytes: 1 << 30,
            ..ConfigurationPage::default()
        };
        let read = store.configuration_page(project.clone(), all).await.unwrap();
        assert!(!read.more);
        for found in read.entries {
            let value = keyring.open(&found.aad(), &found.sealed).unwrap();
            let entry = Entry {
                revision: found.revision,
                value: String::from_utf8(value.to_vec()).unwrap(),
                description: found.description,
                updated_at: found.updated_at,
            };
            let location = found.location;
            let place = [
                location.organization_name,
                location.project_slug,
                location.environment_slug,
                found.key,
            ];
            self.configurations.insert(place, entry);
        }
    }
}

/// Fails with what differs, which two lists of hundreds would hide.
fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(then: &BTreeMap<K, V>, now: &BTreeMap<K, V>) {
    for (key, value) in then {
        assert_eq!(Some(value), now.get(key), "{key:?}");
    }
    let missing: Vec<_> = now.keys().filter(|key| !then.contains_key(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

impl Held {
    /// The end of each chain, as a manifest has it.
    pub fn heads(&self) -> BTreeMap<Uuid, (u64, String)> {
        let head = |entries: &Vec<StoredEntry>| {
            let last = entries.last().unwrap();
            (last.seq, HEXLOWER.encode(&last.hash))
        };
        self.chains
            .iter()
            .map(|(chain, entries)| (*chain, head(entries)))
            .collect()
    }

    /// That it is what one database held at one instant that was not before `earlier` and not after `later`, between which
    /// only values were set: what its chains say was done by then is there, and nothing else.
    pub fn is_between(&self, earlier: &Self, later: &Self) {
        assert_eq!(self.organizations, later.organizations);
        same(&self.projects, &later.projects);
        same(&self.rules, &later.rules);
        same(&self.accounts, &later.accounts);
        same(&self.members, &later.members);
        let mut set: BTreeMap<Place, u64> = BTreeMap::new();
        let chains: Vec<_> = later.chains.keys().collect();
        assert_eq!(self.chains.keys().collect::<Vec<_>>(), chains);
        for (chain, entries) in &self.chains {
            let (least, most) = (earlier.chains[chain].len(), &later.chains[chain]);
            assert!((least..=most.len()).contains(&entries.len()), "{chain}");
            assert_eq!(entries, &most[..entries.len()], "{chain}");
            self.count(entries, &mut set);
        }
        for (place, versions) in &self.versions {
            let then = later.versions[place]
                .iter()
                .filter(|(number, _)| **number <= set[place]);
            assert!(versions.iter().eq(then), "{place:?}");
            assert!(versions.keys().copied().eq(1..=set[place]), "{place:?}");
        }
        assert!(self.versions.keys().eq(set.keys()), "{set:?}");
        for (place, entry) in &self.configurations {
            let (before, now) = (&earlier.configurations[place], &later.configurations[place]);
            assert!(
                before.revision <= entry.revision && entry.revision <= now.revision,
                "{entry:?}"
            );
            assert!(entry.revision < now.revision || entry == now, "{entry:?}");
            assert_eq!(entry.value, (entry.revision - 1).to_string(), "{place:?}");
        }
        assert!(self.configurations.keys().eq(later.configurations.keys()));
    }

    /// How often the entries of a chain say that a secret was set, by its place.
    fn count(&self, entries: &[StoredEntry], set: &mut BTreeMap<Place, u64>) {
        for entry in entries.iter().filter(|entry| entry.action == "secret.set") {
            let organization = self.organizations.iter().find(|it| it.id.0 == entry.chain.id());
            let [project, environment, key] = [&entry.project, &entry.environment, &entry.resource_name];
            let [project, environment, key] = [project, environment, key].map(|name| name.clone().unwrap());
            let place = [organization.unwrap().name.clone(), project, environment, key];
            *set.entry(place).or_default() += 1;
        }
    }
}
