//! Two organizations on one server that never hear of each other.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Server, User};

/// An organization in which everything has the organization's name in it.
struct Tenant {
    name: &'static str,
    owner: User,
    admin: User,
    key: String,
    account: String,
    rule: String,
    /// What stands in the paths of everything of it.
    trashed: String,
    ids: Vec<String>,
}

impl Tenant {
    async fn new(server: &Server, name: &'static str) -> Self {
        let org = format!("/api/orgs/{name}");
        let owner = server.user(&format!("owner@{name}.example")).await;
        let call = |method: &str, path: &str| server.call(method, &format!("{org}{path}")).bearer(&owner.token);
        let create = server.call("POST", "/api/orgs").bearer(&owner.token);
        let made = create.json(json!({"name": name})).status(201).await;
        let admin = server.member(name, &format!("admin@{name}.example"), "admin").await;
        let display_name = format!("The shop of {name}");
        let project = json!({"name": "shop", "display_name": display_name, "description": name});
        let project = call("POST", "/projects").json(project).status(201).await;
        for (key, value) in [("key", "one"), ("key", "two"), (&format!("{name}_only"), "three")] {
            let body = json!({"value": format!("{name}-{value}"), "description": name});
            let put = call("PUT", &format!("/projects/shop/envs/prod/secrets/{key}"))
                .json(body)
                .send()
                .await;
            assert!(put.status < 300, "{}", put.text);
        }
        let account = call("POST", "/service-accounts")
            .json(json!({"name": format!("{name}-ci")}))
            .status(201)
            .await;
        let rule = json!({
            "subject_type": "service_account", "subject_id": account.text_at("id"), "project_pattern": "*",
            "env_pattern": "*", "permission": "admin",
        });
        let rule = call("POST", "/acl").json(rule).status(201).await;
        let gone = json!({"value": format!("{name}-gone")});
        call("PUT", &format!("/projects/shop/envs/prod/secrets/{name}_gone"))
            .json(gone)
            .status(201)
            .await;
        call("DELETE", &format!("/projects/shop/envs/prod/secrets/{name}_gone"))
            .status(204)
            .await;
        let trash = call("GET", "/trash").send().await;
        let trashed = trash.body[0]["id"].as_str().unwrap_or_default().to_owned();
        let mut ids: Vec<_> = [&made, &project, &account, &rule]
            .map(|reply| reply.text_at("id"))
            .into();
        ids.extend([owner.id.clone(), admin.id.clone()]);
        Self {
            name,
            key: account.text_at("api_key"),
            account: account.text_at("id"),
            rule: rule.text_at("id"),
            owner,
            admin,
            trashed,
            ids,
        }
    }

    /// Who they are, and the header that they send.
    fn callers(&self) -> [(&'static str, [String; 2]); 3] {
        let bearer = |user: &User| ["authorization".to_owned(), format!("Bearer {}", user.token)];
        [
            ("owner", bearer(&self.owner)),
            ("admin", bearer(&self.admin)),
            ("account", ["x-api-key".to_owned(), self.key.clone()]),
        ]
    }

    /// A path of the document, within this organization.
    fn path(&self, template: &str) -> Option<String> {
        let id = match template {
            path if path.contains("/acl/") => &self.rule,
            path if path.contains("/service-accounts/") => &self.account,
            _ => &self.trashed,
        };
        let path = [
            ("{org}", self.name),
            ("{project}", "shop"),
            ("{env}", "prod"),
            ("{key}", "key"),
            ("{user_id}", &self.admin.id),
            ("{n}", "1"),
            ("{id}", id),
        ]
        .into_iter()
        .fold(template.to_owned(), |path, (name, value)| path.replace(name, value));
        (!path.contains('{')).then_some(path)
    }

    /// Whether a text tells anything of this organization.
    fn is_in(&self, text: &str) -> bool {
        text.contains(self.name) || self.ids.iter().any(|id| text.contains(id.as_str()))
    }
}

fn reads() -> Vec<String> {
    let document = serde_json::to_value(sealpod_api_server::routes::document()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .filter(|(path, item)| (path.starts_with("/api/orgs") || *path == "/api/auth/me") && item.get("get").is_some())
        .map(|(path, _)| path.clone())
        .collect()
}

#[tokio::test]
async fn nothing_that_anybody_reads_tells_of_another_organization() {
    let server = Server::start().await;
    let (acme, globex) = (Tenant::new(&server, "acme").await, Tenant::new(&server, "globex").await);
    let mut answered = 0;
    for (own, other) in [(&acme, &globex), (&globex, &acme)] {
        let extra = [
            format!("/audit-logs?actor_id={}", other.owner.id),
            format!("/audit-logs?resource_id={}", other.account),
            "/audit-logs?limit=100".to_owned(),
            format!("/acl?subject_id={}", other.account),
            format!("/service-accounts?name={}-ci", other.name),
            "/members?after=a&limit=1000".to_owned(),
            "/projects/shop/envs/prod/bundle?pattern=*".to_owned(),
            "/projects/shop/envs/prod/bundle?key=key&version=key:1".to_owned(),
        ];
        let extra = extra.map(|path| format!("/api/orgs/{}{path}", own.name));
        for path in reads().iter().filter_map(|path| own.path(path)).chain(extra) {
            for (who, [name, value]) in own.callers() {
                for accept in ["application/json", "application/x-ndjson"] {
                    let call = server.call("GET", &path).header("accept", accept);
                    let reply = call.header(&name, &value).send().await;
                    assert!(reply.status < 500, "{path} as {who}: {}", reply.text);
                    assert!(!other.is_in(&reply.text), "{path} as {who}: {}", reply.text);
                    answered += usize::from(reply.status == 200 && own.is_in(&reply.text));
                }
            }
        }
    }
    assert!(
        answered > 60,
        "{answered} answers told anything of the caller's own organization"
    );
}

#[tokio::test]
async fn ids_of_another_organization_are_as_good_as_none_and_cost_the_same_statements() {
    let server = Server::start().await;
    let (acme, globex) = (Tenant::new(&server, "acme").await, Tenant::new(&server, "globex").await);
    let nobody = Uuid::now_v7().to_string();
    let cases = foreign_and_absent(&acme, &nobody);
    for (method, [foreign, absent], [foreign_body, absent_body]) in cases {
        let call = async |path: &str, body: &Value| {
            server.statements.take();
            let call = server
                .call(method, &format!("/api/orgs/globex/{path}"))
                .bearer(&globex.owner.token);
            let call = if body.is_null() { call } else { call.json(body.clone()) };
            let reply = call.problem(404, "not_found").await;
            let mut run = server.statements.take();
            run.retain(|sql| {
                ["SELECT", "INSERT", "UPDATE", "DELETE"]
                    .iter()
                    .any(|verb| sql.starts_with(verb))
            });
            (reply.text, run)
        };
        let (told, run) = call(&foreign, &foreign_body).await;
        assert_eq!((told, run), call(&absent, &absent_body).await, "{method} {foreign}");
    }
    let restore = |id: &str| {
        let path = format!("/api/orgs/globex/trash/{id}/restore");
        server.call("POST", &path).bearer(&globex.owner.token).send()
    };
    let (foreign, absent) = (restore(&acme.trashed).await, restore(&nobody).await);
    assert_eq!((foreign.status, &foreign.text), (404, &absent.text));

    // All of it is still there.
    for path in [
        format!("members/{}", acme.admin.id),
        format!("acl/{}", acme.rule),
        format!("service-accounts/{}", acme.account),
        "projects/shop/envs/prod/secrets/key".to_owned(),
    ] {
        let call = server.call("GET", &format!("/api/orgs/acme/{path}"));
        call.bearer(&acme.owner.token).status(200).await;
    }
    server
        .call("GET", "/api/orgs/acme/projects")
        .key(&acme.key)
        .status(200)
        .await;
}

type Case = (&'static str, [String; 2], [Value; 2]);

/// Calls that name something of `acme`, each beside one that names nothing at all.
fn foreign_and_absent(acme: &Tenant, nobody: &str) -> Vec<Case> {
    let rule = |kind: &str, id: &str| {
        json!({
            "subject_type": kind, "subject_id": id, "project_pattern": "*", "env_pattern": "*", "permission": "read",
        })
    };
    let by_email = |email: &str| {
        json!({
            "subject_type": "user", "email": email, "project_pattern": "*", "env_pattern": "*", "permission": "read",
        })
    };
    vec![
        (
            "GET",
            paths("members", &acme.owner.id, nobody),
            [Value::Null, Value::Null],
        ),
        (
            "DELETE",
            paths("members", &acme.admin.id, nobody),
            [Value::Null, Value::Null],
        ),
        (
            "PATCH",
            paths("members", &acme.admin.id, nobody),
            [json!({"role": "member"}), json!({"role": "member"})],
        ),
        ("GET", paths("acl", &acme.rule, nobody), [Value::Null, Value::Null]),
        ("DELETE", paths("acl", &acme.rule, nobody), [Value::Null, Value::Null]),
        (
            "GET",
            paths("service-accounts", &acme.account, nobody),
            [Value::Null, Value::Null],
        ),
        (
            "DELETE",
            paths("service-accounts", &acme.account, nobody),
            [Value::Null, Value::Null],
        ),
        (
            "POST",
            paths(
                "service-accounts",
                &format!("{}/rotate", acme.account),
                &format!("{nobody}/rotate"),
            ),
            [Value::Null, Value::Null],
        ),
        (
            "POST",
            ["acl".to_owned(), "acl".to_owned()],
            [rule("service_account", &acme.account), rule("service_account", nobody)],
        ),
        (
            "POST",
            ["acl".to_owned(), "acl".to_owned()],
            [rule("user", &acme.owner.id), rule("user", nobody)],
        ),
        (
            "POST",
            ["acl".to_owned(), "acl".to_owned()],
            [by_email("owner@acme.example"), by_email("owner@nobody.example")],
        ),
    ]
}

fn paths(resource: &str, foreign: &str, absent: &str) -> [String; 2] {
    [format!("{resource}/{foreign}"), format!("{resource}/{absent}")]
}

#[tokio::test]
async fn who_is_in_two_organizations_is_in_each_what_that_membership_says() {
    let server = Server::start().await;
    let (acme, globex) = (Tenant::new(&server, "acme").await, Tenant::new(&server, "globex").await);
    let both = server.member("acme", "both@example.com", "developer").await;
    let invite = json!({"email": "both@example.com", "role": "developer"});
    server
        .call("POST", "/api/orgs/globex/members")
        .bearer(&globex.owner.token)
        .json(invite)
        .status(201)
        .await;
    let rule = json!({
        "subject_type": "user", "subject_id": both.id, "project_pattern": "*", "env_pattern": "*", "permission": "write",
    });
    server
        .call("POST", "/api/orgs/acme/acl")
        .bearer(&acme.owner.token)
        .json(rule)
        .status(201)
        .await;

    let secret = |organization: &str, method: &str| {
        let path = format!("/api/orgs/{organization}/projects/shop/envs/prod/secrets/key");
        server.call(method, &path).bearer(&both.token)
    };
    assert_eq!(secret("acme", "GET").status(200).await.text_at("value"), "acme-two");
    secret("globex", "GET").problem(403, "forbidden").await;
    secret("globex", "PUT")
        .json(json!({"value": "x"}))
        .problem(403, "forbidden")
        .await;

    // A higher role here is none there.
    let promote = |role: &str| {
        let path = format!("/api/orgs/globex/members/{}", both.id);
        server
            .call("PATCH", &path)
            .bearer(&globex.owner.token)
            .json(json!({"role": role}))
    };
    promote("owner").status(200).await;
    assert_eq!(secret("globex", "GET").status(200).await.text_at("value"), "globex-two");
    let rules = |organization: &str| {
        server
            .call("GET", &format!("/api/orgs/{organization}/acl"))
            .bearer(&both.token)
    };
    assert_eq!(rules("globex").status(200).await.list().len(), 1);
    rules("acme").problem(403, "forbidden").await;
    let own = server.call("GET", "/api/orgs").bearer(&both.token).status(200).await;
    let seen: Vec<_> = own.list().iter().map(|one| (&one["name"], &one["role"])).collect();
    assert_eq!(
        seen,
        [
            (&json!("acme"), &json!("developer")),
            (&json!("globex"), &json!("owner"))
        ]
    );

    // Leaving one takes nothing from the other.
    let leave = format!("/api/orgs/globex/members/{}", both.id);
    server
        .call("DELETE", &leave)
        .bearer(&globex.owner.token)
        .status(204)
        .await;
    secret("globex", "GET").problem(404, "not_found").await;
    assert_eq!(secret("acme", "GET").status(200).await.text_at("value"), "acme-two");
}
