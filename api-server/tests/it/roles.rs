//! Who may call what: every operation of the organization plane, as every kind of caller, over HTTP.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use sealpod_api_server::audit::By;
use sealpod_api_server::auth::Plane;
use sealpod_api_server::store::{NewEnvironment, NewProject};
use sealpod_core::wire::Labels;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ADMIN, Call, Reply, SUPERADMIN, Server};

/// What each caller gets: `2` success, `3` 403, `4` 404, `1` 401, a column each, in the order of [`Who::ALL`].
///
/// Rules are for the project and environment that is called: `-` none, `r` read, `w` write, `a` admin. A service
/// account is also tried with a write rule for everything and the scope of the project `h`ere or of an`o`ther one.
/// Strangers are an owner (`u`) and an account with an admin rule (`a`) of another organization.
#[rustfmt::skip]
const TABLE: [(&str, &str, &str); 50] = [
    //                                  superadmin: key user     owner  admin  developer  member  account  stranger nobody
    //                                                                           - r w a  - r w a  - r w a h o  u a
    // The session itself: for everybody who has one.
    ("GET",    "/api/auth/me",                                        "32  2 2  2222  2222  333333  23  1"),
    ("DELETE", "/api/auth/logout",                                    "32  2 2  2222  2222  333333  23  1"),
    // Organizations: everybody sees their own, whoever signed in may make one, owners rename and delete.
    ("GET",    "/api/orgs",                                           "22  2 2  2222  2222  222222  22  1"),
    ("POST",   "/api/orgs",                                           "22  2 2  2222  2222  333333  23  1"),
    ("GET",    "/api/orgs/{org}",                                     "22  2 2  2222  2222  222222  44  1"),
    ("PATCH",  "/api/orgs/{org}",                                     "22  2 3  3333  3333  333333  44  1"),
    ("DELETE", "/api/orgs/{org}",                                     "22  2 3  3333  3333  333333  44  1"),
    // What an organization may hold: seen by members, changed by superadmins.
    ("GET",    "/api/orgs/{org}/quotas",                              "22  2 2  2222  2222  333333  44  1"),
    ("PUT",    "/api/orgs/{org}/quotas",                              "22  3 3  3333  3333  333333  44  1"),
    // Members: seen by members, invited and removed by admins, made something else by owners.
    ("GET",    "/api/orgs/{org}/members",                             "22  2 2  2222  2222  333333  44  1"),
    ("POST",   "/api/orgs/{org}/members",                             "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/members/{user_id}",                   "22  2 2  2222  2222  333333  44  1"),
    ("PATCH",  "/api/orgs/{org}/members/{user_id}",                   "22  2 3  3333  3333  333333  44  1"),
    ("DELETE", "/api/orgs/{org}/members/{user_id}",                   "22  2 2  3333  3333  333333  44  1"),
    // Projects and environments: seen by members, and by accounts whose rules or scope name them; made by admins.
    ("GET",    "/api/orgs/{org}/projects",                            "22  2 2  2222  2222  222222  44  1"),
    ("POST",   "/api/orgs/{org}/projects",                            "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}",                  "22  2 2  2222  2222  322223  44  1"),
    ("PATCH",  "/api/orgs/{org}/projects/{project}",                  "22  2 2  3333  3333  333333  44  1"),
    ("DELETE", "/api/orgs/{org}/projects/{project}",                  "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}/envs",             "22  2 2  2222  2222  322223  44  1"),
    ("POST",   "/api/orgs/{org}/projects/{project}/envs",             "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}/envs/{env}",       "22  2 2  2222  2222  322223  44  1"),
    ("DELETE", "/api/orgs/{org}/projects/{project}/envs/{env}",       "22  2 2  3333  3333  333333  44  1"),
    // Secrets: owners and admins need no rule, everybody else does; a member never writes.
    ("GET",    "/api/orgs/{org}/projects/{project}/envs/{env}/secrets",
                                                                      "22  2 2  3222  3222  322223  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}",
                                                                      "22  2 2  3222  3222  322223  44  1"),
    ("PUT",    "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}",
                                                                      "22  2 2  3322  3333  332223  44  1"),
    ("DELETE", "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}",
                                                                      "22  2 2  3322  3333  332223  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/versions",
                                                                      "22  2 2  3222  3222  322223  44  1"),
    ("PATCH",  "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/versions/{n}",
                                                                      "22  2 2  3322  3333  332223  44  1"),
    ("POST",   "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/rollback",
                                                                      "22  2 2  3322  3333  332223  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}/envs/{env}/bundle", "22  2 2  3222  3222  322223  44  1"),
    ("POST",   "/api/orgs/{org}/projects/{project}/envs/{env}/bundle", "22  2 2  3222  3222  322223  44  1"),
    // Who runs which version: said by whoever reads, seen by people who read.
    ("POST",   "/api/orgs/{org}/projects/{project}/envs/{env}/bundle/report",
                                                                      "22  2 2  3222  3222  322223  44  1"),
    ("DELETE", "/api/orgs/{org}/projects/{project}/envs/{env}/bundle/report",
                                                                      "22  2 2  3222  3222  322223  44  1"),
    ("GET",    "/api/orgs/{org}/projects/{project}/envs/{env}/consumers",
                                                                      "22  2 2  3222  3222  333333  44  1"),
    // The trash, tried with a deleted secret: whoever may write it restores it, admins purge.
    ("GET",    "/api/orgs/{org}/trash",                               "22  2 2  2222  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/trash/{id}",                          "22  2 2  3322  3333  333333  44  1"),
    ("POST",   "/api/orgs/{org}/trash/{id}/restore",                  "22  2 2  3322  3333  333333  44  1"),
    ("DELETE", "/api/orgs/{org}/trash/{id}",                          "22  2 2  3333  3333  333333  44  1"),
    // Rules and service accounts: the role decides, and a rule of the level `admin` does not replace it.
    ("GET",    "/api/orgs/{org}/acl",                                 "22  2 2  3333  3333  333333  44  1"),
    ("POST",   "/api/orgs/{org}/acl",                                 "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/acl/{id}",                            "22  2 2  3333  3333  333333  44  1"),
    ("DELETE", "/api/orgs/{org}/acl/{id}",                            "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/service-accounts",                    "22  2 2  3333  3333  333333  44  1"),
    ("POST",   "/api/orgs/{org}/service-accounts",                    "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/service-accounts/{id}",               "22  2 2  3333  3333  333333  44  1"),
    ("DELETE", "/api/orgs/{org}/service-accounts/{id}",               "22  2 2  3333  3333  333333  44  1"),
    ("POST",   "/api/orgs/{org}/service-accounts/{id}/rotate",        "22  2 2  3333  3333  333333  44  1"),
    ("GET",    "/api/orgs/{org}/orphans",                             "22  2 2  3333  3333  333333  44  1"),
    // What happened: admins for their organization, superadmins for the instance.
    ("GET",    "/api/orgs/{org}/audit-logs",                          "22  2 2  3333  3333  333333  44  1"),
];

/// The instance's own, which no membership leads to.
#[rustfmt::skip]
const INSTANCE: [(&str, &str, &str); 7] = [
    ("GET",    "/api/audit-logs",                                     "22  3 3  3333  3333  333333  33  1"),
    ("GET",    "/api/backups",                                        "22  3 3  3333  3333  333333  33  1"),
    ("POST",   "/api/backups",                                        "22  3 3  3333  3333  333333  33  1"),
    ("GET",    "/api/backups/{backup_id}",                            "22  3 3  3333  3333  333333  33  1"),
    ("POST",   "/api/backups/{backup_id}/restore",                    "22  3 3  3333  3333  333333  33  1"),
    ("GET",    "/api/keys",                                           "22  3 3  3333  3333  333333  33  1"),
    ("POST",   "/api/keys/rotate",                                    "22  3 3  3333  3333  333333  33  1"),
];

/// Without a credential, because one is got there; tested where signing in is.
const OPEN: [&str; 2] = ["/api/auth/login", "/api/auth/verify"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    None,
    Read,
    Write,
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    AdminKey,
    Superadmin,
    Owner,
    Admin,
    Developer(Rule),
    Member(Rule),
    Account(Rule),
    AccountOfThisProject,
    AccountOfAnotherProject,
    Stranger,
    StrangersAccount,
    Nobody,
}

impl Who {
    const ALL: [Self; 21] = [
        Self::AdminKey,
        Self::Superadmin,
        Self::Owner,
        Self::Admin,
        Self::Developer(Rule::None),
        Self::Developer(Rule::Read),
        Self::Developer(Rule::Write),
        Self::Developer(Rule::Admin),
        Self::Member(Rule::None),
        Self::Member(Rule::Read),
        Self::Member(Rule::Write),
        Self::Member(Rule::Admin),
        Self::Account(Rule::None),
        Self::Account(Rule::Read),
        Self::Account(Rule::Write),
        Self::Account(Rule::Admin),
        Self::AccountOfThisProject,
        Self::AccountOfAnotherProject,
        Self::Stranger,
        Self::StrangersAccount,
        Self::Nobody,
    ];
}

#[derive(Debug, Clone)]
enum Credential {
    Bearer(String),
    Key(String),
    None,
}

impl Credential {
    fn on(&self, call: Call) -> Call {
        match self {
            Self::Bearer(token) => call.bearer(token),
            Self::Key(key) => call.key(key),
            Self::None => call,
        }
    }
}

/// What one call is aimed at: made for it alone where the call changes it.
#[derive(Default)]
struct Target {
    /// Instead of the names that all targets share.
    names: Vec<(&'static str, String)>,
    query: &'static str,
    body: Option<Value>,
    credential: Option<Credential>,
}

impl Target {
    fn body(body: Value) -> Self {
        Self {
            body: Some(body),
            ..Self::default()
        }
    }

    fn named(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            names: vec![(name, value.into())],
            ..Self::default()
        }
    }

    fn with(self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }
}

struct World {
    server: Server,
    count: AtomicU32,
}

const ORG: &str = "acme";

impl World {
    async fn new() -> Self {
        let world = Self {
            server: Server::start().await,
            count: AtomicU32::new(0),
        };
        for name in [ORG, "globex"] {
            world.organization(name).await;
        }
        world
    }

    fn fresh(&self, what: &str) -> String {
        format!("{what}-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// An organization with two projects, one of which has a secret of two versions.
    async fn organization(&self, name: &str) {
        let made = self.server.admin("POST", "/api/orgs").json(json!({"name": name}));
        made.status(201).await;
        for project in ["shop", "bank"] {
            self.project(name, project).await;
        }
        self.secret(name, "db").await;
    }

    async fn project(&self, organization: &str, slug: &str) {
        let environment = |slug: &str| NewEnvironment {
            slug: slug.parse().unwrap(),
            display_name: slug.to_owned(),
            labels: Labels::new(),
        };
        let new = NewProject {
            organization: organization.into(),
            slug: slug.parse().unwrap(),
            display_name: slug.to_owned(),
            description: None,
            labels: Labels::new(),
            environments: vec![environment("prod")],
            key: None,
        };
        self.server.store.create_project(new, By::system("test")).await.unwrap();
    }

    async fn secret(&self, organization: &str, key: &str) {
        let path = format!("/api/orgs/{organization}/projects/shop/envs/prod/secrets/{key}");
        for value in ["one", "two"] {
            let put = self
                .server
                .admin("PUT", &path)
                .json(json!({"value": value}))
                .send()
                .await;
            assert!(put.status < 300, "{}", put.text);
        }
    }

    async fn grant(&self, organization: &str, subject_type: &str, id: &str, project: &str, permission: &str) -> String {
        let rule = json!({
            "subject_type": subject_type, "subject_id": id, "project_pattern": project, "env_pattern": "*",
            "permission": permission,
        });
        let path = format!("/api/orgs/{organization}/acl");
        self.server
            .admin("POST", &path)
            .json(rule)
            .status(201)
            .await
            .text_at("id")
    }

    /// Makes this caller in an organization.
    async fn enter(&self, organization: &str, who: Who) -> Credential {
        let (role, level) = match who {
            Who::AdminKey => return Credential::Bearer(ADMIN.to_owned()),
            Who::Nobody => return Credential::None,
            Who::Superadmin => return Credential::Bearer(self.server.user(SUPERADMIN).await.token),
            Who::Account(rule) => return self.account(organization, rule, None).await,
            Who::AccountOfThisProject => return self.account(organization, Rule::Write, Some("shop")).await,
            Who::AccountOfAnotherProject => return self.account(organization, Rule::Write, Some("bank")).await,
            Who::StrangersAccount => return self.account("globex", Rule::Admin, None).await,
            Who::Stranger => return Credential::Bearer(self.member("globex", "owner", Rule::None).await),
            Who::Owner => ("owner", Rule::None),
            Who::Admin => ("admin", Rule::None),
            Who::Developer(level) => ("developer", level),
            Who::Member(level) => ("member", level),
        };
        Credential::Bearer(self.member(organization, role, level).await)
    }

    async fn member(&self, organization: &str, role: &str, level: Rule) -> String {
        let email = format!("{}@example.com", self.fresh(role));
        let user = self.server.member(organization, &email, role).await;
        if let Some(permission) = level.permission() {
            self.grant(organization, "user", &user.id, "shop", permission).await;
        }
        user.token
    }

    async fn account(&self, organization: &str, rule: Rule, project: Option<&str>) -> Credential {
        let made = self.new_account(organization, project).await;
        if let Some(permission) = rule.permission() {
            let pattern = if project.is_some() { "*" } else { "shop" };
            self.grant(
                organization,
                "service_account",
                &made.text_at("id"),
                pattern,
                permission,
            )
            .await;
        }
        Credential::Key(made.text_at("api_key"))
    }

    async fn new_account(&self, organization: &str, project: Option<&str>) -> Reply {
        let body = json!({"name": self.fresh("account"), "project": project});
        let path = format!("/api/orgs/{organization}/service-accounts");
        self.server.admin("POST", &path).json(body).status(201).await
    }

    /// Somebody of the organization to do something to.
    async fn victim(&self) -> String {
        let email = format!("{}@example.com", self.fresh("victim"));
        self.server.member(ORG, &email, "developer").await.id
    }

    /// A target for this operation, which is there and can be called with success.
    async fn target(&self, method: &str, path: &str, who: Who) -> Target {
        let last = path.rsplit('/').next().unwrap();
        match (method, path.strip_prefix("/api/orgs/{org}").unwrap_or(path)) {
            ("DELETE", "/api/auth/logout") => Target {
                credential: Some(self.enter(ORG, who).await),
                ..Target::default()
            },
            (_, "/api/backups/{backup_id}" | "/api/backups/{backup_id}/restore") => {
                let made = self.server.admin("POST", "/api/backups").status(201).await;
                Target::named("{backup_id}", made.text_at("id"))
            }
            ("POST", "/api/backups" | "/api/keys/rotate") => Target::default(),
            ("POST", "/api/orgs") => Target::body(json!({"name": self.fresh("org")})),
            ("PATCH" | "DELETE", "") => {
                let organization = self.fresh("org");
                self.organization(&organization).await;
                let body = (method == "PATCH").then(|| json!({"name": self.fresh("new")}));
                Target {
                    credential: Some(self.enter(&organization, who).await),
                    names: vec![("{org}", organization)],
                    body,
                    ..Target::default()
                }
            }
            ("PUT", "/quotas") => Target::body(json!({"projects": 9_999})),
            ("POST", "/members") => {
                Target::body(json!({"email": format!("{}@example.com", self.fresh("new")), "role": "developer"}))
            }
            ("GET" | "DELETE", "/members/{user_id}") => Target::named("{user_id}", self.victim().await),
            ("PATCH", "/members/{user_id}") => {
                Target::named("{user_id}", self.victim().await).with(json!({"role": "member"}))
            }
            ("POST", "/projects") => Target::body(json!({"name": self.fresh("project")})),
            ("PATCH" | "DELETE", "/projects/{project}") => {
                let project = self.fresh("project");
                self.project(ORG, &project).await;
                let body = (method == "PATCH").then(|| json!({"name": self.fresh("renamed")}));
                Target {
                    body,
                    ..Target::named("{project}", project)
                }
            }
            ("POST", "/projects/{project}/envs") => Target::body(json!({"name": self.fresh("env")})),
            ("DELETE", "/projects/{project}/envs/{env}") => {
                let env = self.fresh("env");
                let path = format!("/api/orgs/{ORG}/projects/shop/envs");
                let made = self.server.admin("POST", &path).json(json!({"name": env}));
                made.status(201).await;
                Target::named("{env}", env)
            }
            ("PUT", "/projects/{project}/envs/{env}/secrets/{key}") => Target::body(json!({"value": "three"})),
            ("DELETE", "/projects/{project}/envs/{env}/secrets/{key}") => {
                let key = self.fresh("key");
                self.secret(ORG, &key).await;
                Target::named("{key}", key)
            }
            (_, "/trash/{id}" | "/trash/{id}/restore") => {
                let key = self.fresh("key");
                self.secret(ORG, &key).await;
                let path = format!("/api/orgs/{ORG}/projects/shop/envs/prod/secrets/{key}");
                self.server.admin("DELETE", &path).status(204).await;
                let trash = self.server.admin("GET", &format!("/api/orgs/{ORG}/trash?limit=1"));
                Target::named("{id}", trash.status(200).await.body[0]["id"].as_str().unwrap())
            }
            ("PATCH", _) if last == "{n}" => Target::body(json!({"is_enabled": true})),
            ("POST", _) if last == "rollback" => Target::body(json!({"version": 1})),
            ("POST", _) if last == "bundle" => Target::body(json!({})),
            ("POST", _) if last == "report" => Target::body(json!({
                "pod": "web-1", "namespace": "shop", "node": "node-1", "versions": {"db": 2}, "agent_version": "0.1.0",
            })),
            ("DELETE", _) if last == "report" => Target {
                query: "?namespace=shop&pod=web-1",
                ..Target::default()
            },
            ("POST", "/acl") => {
                let id = self.new_account(ORG, None).await.text_at("id");
                Target::body(json!({
                    "subject_type": "service_account", "subject_id": id, "project_pattern": "*", "env_pattern": "*",
                    "permission": "read",
                }))
            }
            (_, "/acl/{id}") => {
                let id = self.new_account(ORG, None).await.text_at("id");
                Target::named("{id}", self.grant(ORG, "service_account", &id, "*", "read").await)
            }
            ("POST", "/service-accounts") => Target::body(json!({"name": self.fresh("account")})),
            (_, "/service-accounts/{id}" | "/service-accounts/{id}/rotate") => {
                Target::named("{id}", self.new_account(ORG, None).await.text_at("id"))
            }
            ("GET", _) => Target::default(),
            _ => panic!("say in World::target what {method} {path} is tried on"),
        }
    }
}

impl Rule {
    fn permission(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Read => Some("read"),
            Self::Write => Some("write"),
            Self::Admin => Some("admin"),
        }
    }
}

/// The path of a target.
fn path_of(template: &str, target: &Target) -> String {
    let shared = [
        ("{org}", ORG),
        ("{project}", "shop"),
        ("{env}", "prod"),
        ("{key}", "db"),
        ("{n}", "1"),
    ];
    let own = target.names.iter().map(|(name, value)| (*name, value.as_str()));
    let path = own
        .chain(shared)
        .fold(template.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "nothing stands for a name in {path}");
    path + target.query
}

fn call(server: &Server, method: &str, path: &str, target: &Target, credential: &Credential) -> Call {
    let call = credential.on(server.call(method, path));
    match &target.body {
        Some(body) => call.json(body.clone()),
        None => call,
    }
}

/// What was run since statements were last taken, but for what the store does behind an answer, and for the look-up of a
/// key, which is remembered: that depends on no path.
fn looked_up(server: &Server) -> Vec<String> {
    let mut run = server.statements.take();
    let begin = run
        .iter()
        .position(|sql| sql.starts_with("SELECT account_id, project_id"));
    if let Some(begin) = begin {
        let end = run[begin..]
            .iter()
            .position(|sql| sql.contains("FROM acl_rules r"))
            .unwrap();
        run.drain(begin..=begin + end);
    }
    run.retain(|sql| {
        ["SELECT", "INSERT", "UPDATE", "DELETE"]
            .iter()
            .any(|verb| sql.starts_with(verb))
    });
    run
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str, Vec<char>)> {
    let rows = TABLE.into_iter().chain(INSTANCE);
    rows.map(|(method, path, cells)| (method, path, cells.chars().filter(|c| *c != ' ').collect()))
}

/// Path and method of the described operations of the organization plane.
fn described() -> BTreeSet<(String, String)> {
    let document = serde_json::to_value(sealpod_api_server::routes::document()).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if Plane::of(path) == Some(Plane::Organization) && !OPEN.contains(&path.as_str()) {
            operations.extend(
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (path.clone(), method.to_uppercase())),
            );
        }
    }
    operations
}

#[test]
fn every_operation_has_a_row_of_expectations_and_every_row_an_operation() {
    let described = described();
    let tabled: BTreeSet<_> = rows()
        .map(|(method, path, _)| (path.to_owned(), method.to_owned()))
        .collect();
    let missing: Vec<_> = described.difference(&tabled).collect();
    assert!(
        missing.is_empty(),
        "say in the table of tests/it/roles.rs who may call {missing:?}"
    );
    let unknown: Vec<_> = tabled.difference(&described).collect();
    assert!(
        unknown.is_empty(),
        "the table speaks of operations that nothing describes: {unknown:?}"
    );
    assert_eq!(
        tabled.len(),
        TABLE.len() + INSTANCE.len(),
        "two rows are for one operation"
    );
    for (method, path, cells) in rows() {
        assert_eq!(cells.len(), Who::ALL.len(), "{method} {path}");
    }
}

#[tokio::test]
async fn every_caller_gets_at_every_operation_what_the_table_says() {
    let world = World::new().await;
    let mut credentials = vec![];
    for who in Who::ALL {
        credentials.push(world.enter(ORG, who).await);
    }
    let mut wrong = vec![];
    for (method, template, cells) in rows() {
        for ((who, cell), credential) in Who::ALL.into_iter().zip(cells).zip(&credentials) {
            let target = world.target(method, template, who).await;
            let credential = target.credential.as_ref().unwrap_or(credential);
            let path = path_of(template, &target);
            world.server.statements.take();
            let reply = call(&world.server, method, &path, &target, credential).send().await;
            let run = looked_up(&world.server);
            let is_expected = match cell {
                '2' => (200..300).contains(&reply.status),
                '3' => reply.status == 403 && reply.body["code"] == "forbidden",
                '4' => reply.status == 404 && reply.body["code"] == "not_found",
                '1' => reply.status == 401 && reply.body["code"] == "unauthorized",
                other => panic!("no such cell: {other}"),
            };
            if !is_expected {
                wrong.push(format!(
                    "{method} {path} as {who:?}: {} {}, not {cell}",
                    reply.status, reply.text
                ));
            }
            // Whoever was refused has not got it done all the same.
            if method == "DELETE" && cell != '2' && path != "/api/auth/logout" && target.query.is_empty() {
                let still = world.server.admin("GET", &path).send().await.status;
                assert_eq!(still, 200, "{method} {path} as {who:?}");
            }
            if cell == '4' {
                same_as_absent(&world, (method, &path), &target, credential, (&reply, run)).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A stranger hears of an organization that is there what anybody hears of one that is not.
async fn same_as_absent(
    world: &World,
    (method, path): (&str, &str),
    target: &Target,
    credential: &Credential,
    (reply, run): (&Reply, Vec<String>),
) {
    let organization = path.split('/').nth(3).unwrap();
    let absent = path.replacen(organization, &format!("no-{}", Uuid::now_v7()), 1);
    world.server.statements.take();
    let absent = call(&world.server, method, &absent, target, credential).send().await;
    assert_eq!((absent.status, &absent.text), (404, &reply.text), "{method} {path}");
    assert_eq!(looked_up(&world.server), run, "{method} {path}");
}
