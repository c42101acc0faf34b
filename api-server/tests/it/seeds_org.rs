//! What the reference of the organization plane promises, a test for each promise. Most are proved at length elsewhere;
//! here each can be found by its own words. Backups are not there yet, and neither are their promises.

use sealpod_api_server::login::Signup;
use serde_json::{Value, json};

use crate::login::Site;
use crate::support::{ADMIN, Call, Reply, SUPERADMIN, Server, User};

const ORG: &str = "/api/orgs/acme";
const SECRETS: &str = "/api/orgs/acme/projects/shop/envs/prod/secrets";

/// An organization with a member of each role, and a project `shop` with a secret `db`.
struct Acme {
    server: Server,
    /// From the highest role to the lowest.
    people: [User; 4],
}

const ROLES: [&str; 4] = ["owner", "admin", "developer", "member"];

impl Acme {
    async fn new() -> Self {
        let server = Server::start().await;
        let owner = server.user("owner@acme.example").await;
        let acme = server.call("POST", "/api/orgs").bearer(&owner.token);
        acme.json(json!({"name": "acme"})).status(201).await;
        let mut people = vec![owner];
        for role in &ROLES[1..] {
            people.push(server.member("acme", &format!("{role}@acme.example"), role).await);
        }
        let acme = Self {
            server,
            people: people.try_into().unwrap(),
        };
        let project = acme.by("admin", "POST", &format!("{ORG}/projects"));
        project.json(json!({"name": "shop"})).status(201).await;
        let secret = acme.by("admin", "PUT", &format!("{SECRETS}/db"));
        secret.json(json!({"value": "one"})).status(201).await;
        acme
    }

    fn person(&self, role: &str) -> &User {
        let at = ROLES.iter().position(|one| *one == role).unwrap();
        &self.people[at]
    }

    fn by(&self, role: &str, method: &str, path: &str) -> Call {
        self.server.call(method, path).bearer(&self.person(role).token)
    }

    /// Refused to whoever has a lower role and to nobody in particular, and done for `role`.
    async fn needs(&self, role: &str, method: &str, path: &str, body: Value) -> Reply {
        let with = |call: Call| if body.is_null() { call } else { call.json(body.clone()) };
        let lower = ROLES.iter().skip_while(|one| **one != role).skip(1);
        for lower in lower {
            with(self.by(lower, method, path)).problem(403, "forbidden").await;
        }
        with(self.server.call(method, path)).problem(401, "unauthorized").await;
        let reply = with(self.by(role, method, path)).send().await;
        assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text);
        reply
    }

    async fn grant(&self, subject: Value, permission: &str) -> Reply {
        let mut rule = json!({"project_pattern": "shop", "env_pattern": "prod", "permission": permission});
        rule.as_object_mut()
            .unwrap()
            .extend(subject.as_object().unwrap().clone());
        self.by("admin", "POST", &format!("{ORG}/acl")).json(rule).send().await
    }

    async fn grant_to(&self, role: &str, permission: &str) {
        let subject = json!({"subject_type": "user", "email": format!("{role}@acme.example")});
        assert!(self.grant(subject, permission).await.status < 300);
    }

    /// A service account: its id and its key.
    async fn account(&self, body: Value) -> (String, String) {
        let made = self.by("admin", "POST", &format!("{ORG}/service-accounts")).json(body);
        let made = made.status(201).await;
        (made.text_at("id"), made.text_at("api_key"))
    }
}

fn names(reply: &Reply, field: &str) -> Vec<String> {
    let text = |item: &Value| item[field].as_str().unwrap().to_owned();
    reply.list().iter().map(text).collect()
}

#[tokio::test]
async fn all_responses_use_json_and_errors_one_format() {
    let acme = Acme::new().await;
    let fine = acme.by("owner", "GET", ORG).status(200).await;
    assert_eq!(fine.header("content-type"), "application/json");
    acme.by("owner", "GET", "/api/orgs/none")
        .problem(404, "not_found")
        .await;
    acme.by("owner", "POST", "/api/orgs")
        .json(json!({}))
        .invalid("name")
        .await;
}

#[tokio::test]
async fn people_show_a_session_as_bearer_and_service_accounts_a_key() {
    let acme = Acme::new().await;
    let (_, key) = acme.account(json!({"name": "ci"})).await;
    let path = format!("{ORG}/projects");
    acme.server.call("GET", &path).key(&key).status(200).await;
    acme.by("member", "GET", &path).status(200).await;
    acme.server
        .call("GET", &path)
        .bearer(&key)
        .problem(401, "unauthorized")
        .await;
    let session = &acme.person("member").token;
    acme.server
        .call("GET", &path)
        .key(session)
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn login_sends_a_code_of_six_digits_by_e_mail_and_verify_returns_a_token_for_it() {
    let site = Site::start(Signup::Open).await;
    let asked = site.login("127.0.1.1", "ada@example.com").status(200).await;
    assert!(!asked.text_at("message").is_empty());
    let code = site.mail.next().await.code();
    assert!(code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_digit()));
    let verified = site.verify("127.0.1.1", "ada@example.com", &code).status(200).await;
    let token = verified.text_at("token");
    site.server.call("GET", "/api/auth/me").bearer(&token).status(200).await;
}

#[tokio::test]
async fn logout_invalidates_the_current_session_and_requires_auth() {
    let acme = Acme::new().await;
    acme.server
        .call("DELETE", "/api/auth/logout")
        .problem(401, "unauthorized")
        .await;
    let other = acme.server.user("member@acme.example").await;
    acme.by("member", "DELETE", "/api/auth/logout").status(204).await;
    acme.by("member", "GET", "/api/auth/me")
        .problem(401, "unauthorized")
        .await;
    acme.server
        .call("GET", "/api/auth/me")
        .bearer(&other.token)
        .status(200)
        .await;
}

#[tokio::test]
async fn me_returns_the_profile_and_requires_auth() {
    let acme = Acme::new().await;
    acme.server
        .call("GET", "/api/auth/me")
        .problem(401, "unauthorized")
        .await;
    let me = acme.by("member", "GET", "/api/auth/me").status(200).await;
    assert_eq!(
        (me.text_at("email"), me.text_at("id")),
        ("member@acme.example".to_owned(), acme.person("member").id.clone())
    );
}

#[tokio::test]
async fn whoever_creates_an_organization_becomes_its_owner_and_must_be_signed_in() {
    let acme = Acme::new().await;
    let body = json!({"name": "mine"});
    acme.server
        .call("POST", "/api/orgs")
        .json(body.clone())
        .problem(401, "unauthorized")
        .await;
    let made = acme.by("member", "POST", "/api/orgs").json(body).status(201).await;
    assert_eq!(made.text_at("role"), "owner");
    let members = acme.by("member", "GET", "/api/orgs/mine/members").status(200).await;
    assert_eq!(names(&members, "role"), ["owner"]);
}

#[tokio::test]
async fn organizations_are_listed_for_their_members_and_all_of_them_for_superadmins() {
    let acme = Acme::new().await;
    let list = |call: Call| async move { names(&call.status(200).await, "name") };
    assert_eq!(list(acme.by("member", "GET", "/api/orgs")).await, ["acme"]);
    let root = acme.server.user(SUPERADMIN).await;
    for token in [root.token.as_str(), ADMIN] {
        let all = list(acme.server.call("GET", "/api/orgs").bearer(token)).await;
        assert_eq!(all, ["acme", "default"]);
    }
}

#[tokio::test]
async fn an_organization_shows_its_details() {
    let acme = Acme::new().await;
    let details = acme.by("member", "GET", ORG).status(200).await;
    assert_eq!(
        (details.text_at("name"), details.text_at("role")),
        ("acme".to_owned(), "member".to_owned())
    );
}

#[tokio::test]
async fn renaming_an_organization_requires_the_role_owner() {
    let acme = Acme::new().await;
    acme.needs("owner", "PATCH", ORG, json!({"name": "zenith"})).await;
    acme.by("owner", "GET", "/api/orgs/zenith").status(200).await;
}

#[tokio::test]
async fn deleting_an_organization_requires_the_role_owner() {
    let acme = Acme::new().await;
    acme.needs("owner", "DELETE", ORG, Value::Null).await;
    acme.by("owner", "GET", ORG).problem(404, "not_found").await;
}

#[tokio::test]
async fn inviting_requires_the_role_admin() {
    let acme = Acme::new().await;
    let body = json!({"email": "new@acme.example", "role": "developer"});
    let made = acme.needs("admin", "POST", &format!("{ORG}/members"), body).await;
    assert_eq!(made.text_at("email"), "new@acme.example");
}

#[tokio::test]
async fn the_roles_are_owner_admin_developer_and_member() {
    let acme = Acme::new().await;
    let path = format!("{ORG}/members");
    for role in ROLES {
        let body = json!({"email": format!("another-{role}@acme.example"), "role": role});
        acme.by("owner", "POST", &path).json(body).status(201).await;
    }
    let body = json!({"email": "x@acme.example", "role": "guest"});
    acme.by("owner", "POST", &path).json(body).invalid("role").await;
}

#[tokio::test]
async fn members_are_listed() {
    let acme = Acme::new().await;
    let members = acme.by("member", "GET", &format!("{ORG}/members")).status(200).await;
    assert_eq!(names(&members, "role"), ["admin", "developer", "member", "owner"]);
}

#[tokio::test]
async fn changing_a_members_role_requires_the_role_owner() {
    let acme = Acme::new().await;
    let path = format!("{ORG}/members/{}", acme.person("member").id);
    let changed = acme.needs("owner", "PATCH", &path, json!({"role": "developer"})).await;
    assert_eq!(changed.text_at("role"), "developer");
}

#[tokio::test]
async fn removing_a_member_requires_the_role_admin() {
    let acme = Acme::new().await;
    let gone = acme.server.member("acme", "gone@acme.example", "developer").await;
    acme.needs("admin", "DELETE", &format!("{ORG}/members/{}", gone.id), Value::Null)
        .await;
    acme.server
        .call("GET", ORG)
        .bearer(&gone.token)
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn creating_a_project_makes_dev_staging_and_prod_and_requires_the_role_admin() {
    let acme = Acme::new().await;
    acme.needs("admin", "POST", &format!("{ORG}/projects"), json!({"name": "bank"}))
        .await;
    let envs = acme
        .by("member", "GET", &format!("{ORG}/projects/bank/envs"))
        .status(200)
        .await;
    assert_eq!(names(&envs, "name"), ["dev", "prod", "staging"]);
}

#[tokio::test]
async fn projects_are_listed_and_show_their_details() {
    let acme = Acme::new().await;
    let list = acme.by("member", "GET", &format!("{ORG}/projects")).status(200).await;
    assert_eq!(names(&list, "name"), ["shop"]);
    let shop = acme
        .by("member", "GET", &format!("{ORG}/projects/shop"))
        .status(200)
        .await;
    assert_eq!(shop.body, list.list()[0]);
}

#[tokio::test]
async fn renaming_a_project_requires_the_role_admin() {
    let acme = Acme::new().await;
    acme.needs(
        "admin",
        "PATCH",
        &format!("{ORG}/projects/shop"),
        json!({"name": "store"}),
    )
    .await;
    let kept = acme.by("admin", "GET", &format!("{ORG}/projects/store/envs/prod/secrets/db"));
    assert_eq!(kept.status(200).await.text_at("value"), "one");
}

#[tokio::test]
async fn deleting_a_project_requires_the_role_admin() {
    let acme = Acme::new().await;
    acme.needs("admin", "DELETE", &format!("{ORG}/projects/shop"), Value::Null)
        .await;
    acme.by("admin", "GET", &format!("{ORG}/projects/shop"))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn environments_are_created_listed_and_deleted_and_changing_them_requires_the_role_admin() {
    let acme = Acme::new().await;
    let path = format!("{ORG}/projects/shop/envs");
    acme.needs("admin", "POST", &path, json!({"name": "qa"})).await;
    let listed = async || names(&acme.by("member", "GET", &path).status(200).await, "name");
    assert_eq!(listed().await, ["dev", "prod", "qa", "staging"]);
    acme.needs("admin", "DELETE", &format!("{path}/qa"), Value::Null).await;
    assert_eq!(listed().await, ["dev", "prod", "staging"]);
}

#[tokio::test]
async fn setting_a_secret_creates_or_updates_it_returns_its_version_and_requires_write() {
    let acme = Acme::new().await;
    let path = format!("{SECRETS}/new");
    let put = |value: &str| acme.by("developer", "PUT", &path).json(json!({"value": value}));
    put("a").problem(403, "forbidden").await;
    acme.grant_to("developer", "read").await;
    put("a").problem(403, "forbidden").await;
    acme.grant_to("developer", "write").await;
    let made = put("a").status(201).await;
    assert_eq!((&made.body["key"], &made.body["version"]), (&json!("new"), &json!(1)));
    assert_eq!(put("b").status(200).await.body["version"], 2);
    assert!(!made.text.contains("value"));
}

#[tokio::test]
async fn getting_a_secret_decrypts_it_and_requires_read() {
    let acme = Acme::new().await;
    let get = || acme.by("member", "GET", &format!("{SECRETS}/db"));
    get().problem(403, "forbidden").await;
    acme.grant_to("member", "read").await;
    assert_eq!(get().status(200).await.text_at("value"), "one");
}

#[tokio::test]
async fn keys_are_listed_without_values_and_that_requires_read() {
    let acme = Acme::new().await;
    let list = || acme.by("member", "GET", SECRETS);
    list().problem(403, "forbidden").await;
    acme.grant_to("member", "read").await;
    let listed = list().status(200).await;
    assert_eq!(names(&listed, "key"), ["db"]);
    assert!(listed.list()[0].get("value").is_none());
}

#[tokio::test]
async fn deleting_a_secret_requires_write() {
    let acme = Acme::new().await;
    let delete = || acme.by("developer", "DELETE", &format!("{SECRETS}/db"));
    delete().problem(403, "forbidden").await;
    acme.grant_to("developer", "write").await;
    delete().status(204).await;
    acme.by("admin", "GET", &format!("{SECRETS}/db"))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn granting_a_rule_again_changes_it_and_requires_the_role_admin() {
    let acme = Acme::new().await;
    let rule = |permission: &str| {
        json!({
            "subject_type": "user", "email": "developer@acme.example", "project_pattern": "*", "env_pattern": "dev",
            "permission": permission,
        })
    };
    let path = format!("{ORG}/acl");
    let made = acme.needs("admin", "POST", &path, rule("read")).await;
    assert_eq!(made.status, 201);
    let again = acme.by("admin", "POST", &path).json(rule("write")).status(200).await;
    assert_eq!(
        (&again.body["id"], &again.body["permission"]),
        (&made.body["id"], &json!("write"))
    );
}

#[tokio::test]
async fn a_service_account_is_granted_a_rule_by_its_id() {
    let acme = Acme::new().await;
    let (id, key) = acme.account(json!({"name": "ci"})).await;
    let get = || acme.server.call("GET", &format!("{SECRETS}/db")).key(&key);
    get().problem(403, "forbidden").await;
    let granted = acme
        .grant(json!({"subject_type": "service_account", "subject_id": id}), "read")
        .await;
    assert_eq!((granted.status, granted.text_at("subject_id")), (201, id));
    get().status(200).await;
}

#[tokio::test]
async fn rules_are_listed_and_revoked_and_that_requires_the_role_admin() {
    let acme = Acme::new().await;
    acme.grant_to("member", "read").await;
    acme.by("member", "GET", &format!("{SECRETS}/db")).status(200).await;
    let rules = acme.needs("admin", "GET", &format!("{ORG}/acl"), Value::Null).await;
    assert_eq!(names(&rules, "email"), ["member@acme.example"]);
    let id = &names(&rules, "id")[0];
    acme.needs("admin", "DELETE", &format!("{ORG}/acl/{id}"), Value::Null)
        .await;
    acme.by("member", "GET", &format!("{SECRETS}/db"))
        .problem(403, "forbidden")
        .await;
}

#[tokio::test]
async fn a_service_accounts_key_is_returned_once_and_making_one_requires_the_role_admin() {
    let acme = Acme::new().await;
    let path = format!("{ORG}/service-accounts");
    let made = acme.needs("admin", "POST", &path, json!({"name": "ci"})).await;
    let key = made.text_at("api_key");
    assert!(key.starts_with("cr_sa_"));
    for path in [made.header("location"), path.as_str()] {
        let seen = acme.by("owner", "GET", path).status(200).await;
        assert!(!seen.text.contains(&key) && !seen.text.contains("\"api_key\""));
    }
}

#[tokio::test]
async fn an_account_without_a_project_is_scoped_to_the_organization() {
    let acme = Acme::new().await;
    acme.by("admin", "POST", &format!("{ORG}/projects"))
        .json(json!({"name": "bank"}))
        .status(201)
        .await;
    let seen = async |body: Value| {
        let (id, key) = acme.account(body).await;
        let rule = json!({
            "subject_type": "service_account", "subject_id": id, "project_pattern": "*", "env_pattern": "*",
            "permission": "read",
        });
        acme.by("admin", "POST", &format!("{ORG}/acl"))
            .json(rule)
            .status(201)
            .await;
        let seen = acme.server.call("GET", &format!("{ORG}/projects")).key(&key);
        names(&seen.status(200).await, "name")
    };
    assert_eq!(seen(json!({"name": "all"})).await, ["bank", "shop"]);
    assert_eq!(seen(json!({"name": "one", "project": "shop"})).await, ["shop"]);
}

#[tokio::test]
async fn service_accounts_are_listed_for_the_role_admin() {
    let acme = Acme::new().await;
    acme.account(json!({"name": "ci"})).await;
    let accounts = acme
        .needs("admin", "GET", &format!("{ORG}/service-accounts"), Value::Null)
        .await;
    assert_eq!(names(&accounts, "name"), ["ci"]);
}

#[tokio::test]
async fn revoking_a_service_account_takes_its_rules_along_and_requires_the_role_admin() {
    let acme = Acme::new().await;
    let (id, key) = acme.account(json!({"name": "ci"})).await;
    acme.grant(json!({"subject_type": "service_account", "subject_id": id}), "read")
        .await;
    acme.needs("admin", "DELETE", &format!("{ORG}/service-accounts/{id}"), Value::Null)
        .await;
    acme.server
        .call("GET", ORG)
        .key(&key)
        .problem(401, "unauthorized")
        .await;
    let rules = acme.by("admin", "GET", &format!("{ORG}/acl")).status(200).await;
    assert!(rules.list().is_empty());
}

#[tokio::test]
async fn the_audit_log_is_for_the_role_admin_and_for_superadmins() {
    let acme = Acme::new().await;
    let path = format!("{ORG}/audit-logs");
    acme.needs("admin", "GET", &path, Value::Null).await;
    let root = acme.server.user(SUPERADMIN).await;
    acme.server.call("GET", &path).bearer(&root.token).status(200).await;
}

#[tokio::test]
async fn the_audit_log_is_filtered_by_action_actor_and_resource_type() {
    let acme = Acme::new().await;
    let entries = async |query: &str| -> Vec<Value> {
        let page = acme
            .by("admin", "GET", &format!("{ORG}/audit-logs?{query}"))
            .status(200)
            .await;
        page.body["entries"].as_array().unwrap().clone()
    };
    let admin = &acme.person("admin").id;
    for (query, field, want) in [
        ("action=secret.set".to_owned(), "action", "secret.set"),
        ("resource_type=org".to_owned(), "resource_type", "org"),
        (format!("actor_id={admin}"), "actor_id", admin.as_str()),
    ] {
        let found = entries(&query).await;
        assert!(
            !found.is_empty() && found.iter().all(|entry| entry[field] == want),
            "{query}: {found:?}"
        );
    }
}

#[tokio::test]
async fn the_audit_log_is_answered_in_pages_of_1_to_100_and_20_by_default() {
    let acme = Acme::new().await;
    for n in 0..25 {
        let put = acme
            .by("admin", "PUT", &format!("{SECRETS}/db"))
            .json(json!({"value": n.to_string()}));
        put.status(200).await;
    }
    let page = |query: &str| acme.by("admin", "GET", &format!("{ORG}/audit-logs{query}"));
    let first = page("").status(200).await;
    assert_eq!(first.body["entries"].as_array().unwrap().len(), 20);
    let cursor = first.text_at("next_cursor");
    let second = page(&format!("?limit=5&after={cursor}")).status(200).await;
    assert_eq!(second.body["entries"].as_array().unwrap().len(), 5);
    let seq = |reply: &Reply, at: usize| reply.body["entries"][at]["seq"].as_u64().unwrap();
    assert_eq!(seq(&second, 0) + 1, seq(&first, 19));
    for limit in ["0", "101"] {
        page(&format!("?limit={limit}")).invalid("limit").await;
    }
}

#[tokio::test]
async fn health_needs_no_authentication() {
    let server = Server::start().await;
    server.call("GET", "/health").status(200).await;
}
