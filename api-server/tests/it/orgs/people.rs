//! Sessions, organizations and members, over HTTP.

use sealpod_api_server::audit::By;
use sealpod_api_server::ids::{AccountId, UserId};
use sealpod_api_server::store::{NewRule, Subject};
use sealpod_core::Pattern;
use sealpod_core::wire::org::Permission;
use serde_json::json;

use crate::support::{Call, O, SUPERADMIN, Server, User};

/// An organization `acme`, owned by Olga.
async fn acme(server: &Server) -> User {
    let olga = server.user("olga@example.com").await;
    let made = server
        .call("POST", "/api/orgs")
        .bearer(&olga.token)
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    assert_eq!(made.header("location"), "/api/orgs/acme");
    assert_eq!(made.body["role"], "owner");
    olga
}

fn by(server: &Server, user: &User, method: &str, path: &str) -> Call {
    server.call(method, path).bearer(&user.token)
}

fn member_path(user: &User) -> String {
    format!("/api/orgs/acme/members/{}", user.id)
}

#[tokio::test]
async fn a_session_says_who_it_is_and_ends_at_logout() {
    let server = Server::start().await;
    let ada = server.user("Ada@Example.com").await;
    let me = by(&server, &ada, "GET", "/api/auth/me").status(200).await;
    assert_eq!(me.body["email"], "ada@example.com");
    assert_eq!(
        (&me.body["id"], &me.body["is_superadmin"]),
        (&json!(ada.id), &json!(false))
    );
    let again = server.user("ada@example.com").await;
    assert_eq!(again.id, ada.id, "one person, however the address is spelt");

    by(&server, &ada, "DELETE", "/api/auth/logout").status(204).await;
    for (method, path) in [
        ("GET", "/api/auth/me"),
        ("DELETE", "/api/auth/logout"),
        ("GET", "/api/orgs"),
    ] {
        by(&server, &ada, method, path).problem(401, "unauthorized").await;
    }
    by(&server, &again, "GET", "/api/auth/me").status(200).await;
}

#[tokio::test]
async fn a_key_has_no_session_to_show_or_to_end() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    for (method, path) in [("GET", "/api/auth/me"), ("DELETE", "/api/auth/logout")] {
        server.admin(method, path).problem(403, "forbidden").await;
        server
            .call(method, path)
            .key(&account.key)
            .problem(403, "forbidden")
            .await;
    }
    let ada = server.user("ada@example.com").await;
    server
        .call("GET", "/api/auth/me")
        .key(&ada.token)
        .problem(401, "unauthorized")
        .await;
    server
        .call("GET", crate::support::M)
        .bearer(&ada.token)
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn whoever_makes_an_organization_owns_it_and_strangers_do_not_see_it() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    let eve = server.user("eve@example.com").await;
    let root = server.user(SUPERADMIN).await;
    let account = server.account("ci", &[]).await;

    let names = |reply: crate::support::Reply| -> Vec<(String, String)> {
        let name = |item: &serde_json::Value| (item["name"].as_str().unwrap().to_owned(), item["role"].to_string());
        reply.list().iter().map(name).collect()
    };
    let list = by(&server, &olga, "GET", "/api/orgs").status(200).await;
    assert_eq!(names(list), [("acme".to_owned(), "\"owner\"".to_owned())]);
    assert!(
        by(&server, &eve, "GET", "/api/orgs")
            .status(200)
            .await
            .list()
            .is_empty()
    );
    let all = [
        ("acme".to_owned(), "null".to_owned()),
        ("default".to_owned(), "null".to_owned()),
    ];
    assert_eq!(names(by(&server, &root, "GET", "/api/orgs").status(200).await), all);
    assert_eq!(names(server.admin("GET", "/api/orgs").status(200).await), all);
    let own = server.call("GET", "/api/orgs").key(&account.key).status(200).await;
    assert_eq!(names(own), [("default".to_owned(), "null".to_owned())]);

    // What a stranger hears is what anybody hears of an organization that is not there.
    let foreign = by(&server, &eve, "GET", "/api/orgs/acme")
        .problem(404, "not_found")
        .await;
    let absent = by(&server, &eve, "GET", "/api/orgs/nobodys")
        .problem(404, "not_found")
        .await;
    assert_eq!(foreign.text, absent.text);
    server
        .call("GET", "/api/orgs/acme")
        .key(&account.key)
        .problem(404, "not_found")
        .await;
    server
        .call("POST", "/api/orgs")
        .key(&account.key)
        .json(json!({"name": "x"}))
        .problem(403, "forbidden")
        .await;
}

#[tokio::test]
async fn an_organization_is_renamed_and_deleted_by_its_owner() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    by(&server, &olga, "POST", "/api/orgs")
        .json(json!({"name": "other"}))
        .status(201)
        .await;
    by(&server, &olga, "POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .problem(409, "conflict")
        .await;
    by(&server, &olga, "PATCH", "/api/orgs/acme")
        .json(json!({"name": "other"}))
        .problem(409, "conflict")
        .await;
    by(&server, &olga, "PATCH", "/api/orgs/acme")
        .json(json!({"name": "Acme Inc"}))
        .invalid("name")
        .await;
    let renamed = by(&server, &olga, "PATCH", "/api/orgs/acme")
        .json(json!({"name": "zenith"}))
        .status(200)
        .await;
    assert_eq!(
        (renamed.text_at("name"), renamed.text_at("role")),
        ("zenith".to_owned(), "owner".to_owned())
    );
    by(&server, &olga, "GET", "/api/orgs/acme")
        .problem(404, "not_found")
        .await;
    by(&server, &olga, "GET", "/api/orgs/zenith").status(200).await;
    by(&server, &olga, "DELETE", "/api/orgs/zenith").status(204).await;
    by(&server, &olga, "GET", "/api/orgs/zenith")
        .problem(404, "not_found")
        .await;
    by(&server, &olga, "POST", "/api/orgs")
        .json(json!({"name": "zenith"}))
        .status(201)
        .await;
}

#[tokio::test]
async fn the_organization_of_the_management_plane_stays() {
    let server = Server::start().await;
    server
        .admin("PATCH", O)
        .json(json!({"name": "other"}))
        .problem(409, "default_org")
        .await;
    server.admin("DELETE", O).problem(409, "default_org").await;
    server.admin("GET", O).status(200).await;
}

#[tokio::test]
async fn keys_of_a_deleted_organization_are_dead_at_once() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    let made = by(&server, &olga, "POST", "/api/orgs/acme/service-accounts")
        .json(json!({"name": "ci"}))
        .status(201)
        .await;
    let key = made.text_at("api_key");
    server
        .call("GET", "/api/orgs/acme/projects")
        .key(&key)
        .status(200)
        .await;
    by(&server, &olga, "DELETE", "/api/orgs/acme").status(204).await;
    server
        .call("GET", "/api/orgs/acme/projects")
        .key(&key)
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn members_are_invited_before_they_have_ever_signed_in() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    let path = "/api/orgs/acme/members";
    let invited = by(&server, &olga, "POST", path)
        .json(json!({"email": " Dev@Example.com", "role": "developer"}))
        .status(201)
        .await;
    assert_eq!(invited.body["email"], "dev@example.com");
    let location = invited.header("location").to_owned();
    assert_eq!(
        by(&server, &olga, "GET", &location).status(200).await.body,
        invited.body
    );
    by(&server, &olga, "POST", path)
        .json(json!({"email": "dev@example.com", "role": "member"}))
        .problem(409, "conflict")
        .await;
    let dev = server.user("dev@example.com").await;
    assert_eq!(dev.id, invited.text_at("user_id"));
    let seen = by(&server, &dev, "GET", path).status(200).await;
    let emails: Vec<_> = seen
        .list()
        .iter()
        .map(|member| member["email"].as_str().unwrap())
        .collect();
    assert_eq!(emails, ["dev@example.com", "olga@example.com"]);
    let piece = by(&server, &dev, "GET", &format!("{path}?limit=1&after=dev@example.com"))
        .status(200)
        .await;
    assert_eq!(piece.list()[0]["email"], "olga@example.com");

    for (body, field) in [
        (json!({"role": "member"}), "email"),
        (json!({"email": "no address", "role": "member"}), "email"),
        (json!({"email": "a@b", "role": "root"}), "role"),
        (json!({"email": "a@b"}), "role"),
        (json!({"email": "a@b", "role": "member", "admin": true}), "admin"),
    ] {
        by(&server, &olga, "POST", path).json(body).invalid(field).await;
    }
}

#[tokio::test]
async fn nobody_reaches_above_their_own_role() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    let admin = server.member("acme", "admin@example.com", "admin").await;
    let dev = server.member("acme", "dev@example.com", "developer").await;
    let path = "/api/orgs/acme/members";
    let owner = json!({"email": "new@example.com", "role": "owner"});
    by(&server, &admin, "POST", path)
        .json(owner)
        .problem(403, "forbidden")
        .await;
    let peer = json!({"email": "new@example.com", "role": "admin"});
    by(&server, &admin, "POST", path).json(peer).status(201).await;
    by(&server, &admin, "DELETE", &member_path(&olga))
        .problem(403, "forbidden")
        .await;
    by(&server, &admin, "PATCH", &member_path(&dev))
        .json(json!({"role": "member"}))
        .problem(403, "forbidden")
        .await;
    by(&server, &dev, "POST", path)
        .json(json!({"email": "x@example.com", "role": "member"}))
        .problem(403, "forbidden")
        .await;
    by(&server, &dev, "DELETE", &member_path(&admin))
        .problem(403, "forbidden")
        .await;
    by(&server, &olga, "PATCH", &member_path(&dev))
        .json(json!({"role": "owner"}))
        .status(200)
        .await;
    by(&server, &dev, "PATCH", &member_path(&olga))
        .json(json!({"role": "member"}))
        .status(200)
        .await;
    by(&server, &olga, "PATCH", "/api/orgs/acme")
        .json(json!({"name": "x"}))
        .problem(403, "forbidden")
        .await;
}

#[tokio::test]
async fn the_last_owner_stays() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    for _ in 0..2 {
        by(&server, &olga, "PATCH", &member_path(&olga))
            .json(json!({"role": "admin"}))
            .problem(409, "last_owner")
            .await;
        by(&server, &olga, "DELETE", &member_path(&olga))
            .problem(409, "last_owner")
            .await;
        server
            .admin("DELETE", &member_path(&olga))
            .problem(409, "last_owner")
            .await;
    }
    by(&server, &olga, "PATCH", &member_path(&olga))
        .json(json!({"role": "owner"}))
        .status(200)
        .await;
}

#[tokio::test]
async fn two_owners_who_demote_each_other_at_once_leave_one() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    let otto = server.member("acme", "otto@example.com", "owner").await;
    for _ in 0..5 {
        let demote = |one: &User, other: &User| {
            by(&server, one, "PATCH", &member_path(other))
                .json(json!({"role": "member"}))
                .send()
        };
        let (one, two) = tokio::join!(demote(&olga, &otto), demote(&otto, &olga));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert!(matches!(statuses, [200, 403 | 409]), "{statuses:?}");
        let owners = server.admin("GET", "/api/orgs/acme/members").status(200).await;
        assert_eq!(
            owners.list().iter().filter(|member| member["role"] == "owner").count(),
            1
        );
        for user in [&olga, &otto] {
            server
                .admin("PATCH", &member_path(user))
                .json(json!({"role": "owner"}))
                .status(200)
                .await;
        }
    }
}

#[tokio::test]
async fn whoever_is_removed_has_lost_access_at_the_next_request() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    by(&server, &olga, "POST", "/api/orgs/acme/service-accounts")
        .json(json!({"name": "ci"}))
        .status(201)
        .await;
    let admin = server.member("acme", "admin@example.com", "admin").await;
    by(&server, &admin, "GET", "/api/orgs/acme/service-accounts")
        .status(200)
        .await;
    by(&server, &olga, "PATCH", &member_path(&admin))
        .json(json!({"role": "member"}))
        .status(200)
        .await;
    by(&server, &admin, "GET", "/api/orgs/acme/service-accounts")
        .problem(403, "forbidden")
        .await;
    by(&server, &olga, "DELETE", &member_path(&admin)).status(204).await;
    by(&server, &admin, "GET", "/api/orgs/acme")
        .problem(404, "not_found")
        .await;
    by(&server, &olga, "DELETE", &member_path(&admin))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn a_rule_for_a_user_is_made_by_address_and_goes_with_the_member() {
    let server = Server::start().await;
    let olga = acme(&server).await;
    let dev = server.member("acme", "dev@example.com", "developer").await;
    server.user("stranger@example.com").await;
    let rule = |email: &str| json!({"subject_type": "user", "email": email, "project_pattern": "*", "env_pattern": "*", "permission": "read"});
    let path = "/api/orgs/acme/acl";
    let made = by(&server, &olga, "POST", path)
        .json(rule("Dev@Example.com"))
        .status(201)
        .await;
    assert_eq!(
        (made.text_at("email"), made.text_at("subject_id")),
        ("dev@example.com".to_owned(), dev.id.clone())
    );
    by(&server, &olga, "POST", path)
        .json(rule("dev@example.com"))
        .status(200)
        .await;
    for stranger in ["stranger@example.com", "nobody@example.com"] {
        by(&server, &olga, "POST", path)
            .json(rule(stranger))
            .problem(404, "not_found")
            .await;
    }
    assert_eq!(
        by(&server, &olga, "GET", path).status(200).await.list()[0]["email"],
        "dev@example.com"
    );
    by(&server, &olga, "DELETE", &member_path(&dev)).status(204).await;
    assert!(by(&server, &olga, "GET", path).status(200).await.list().is_empty());
    // Invited anew, the old rules do not come back.
    server.member("acme", "dev@example.com", "developer").await;
    assert!(by(&server, &olga, "GET", path).status(200).await.list().is_empty());
}

#[tokio::test]
async fn nobody_collects_organizations_without_end() {
    let server = Server::start().await;
    let olga = server.user("olga@example.com").await;
    let owner = UserId(olga.id.parse().unwrap());
    let make = |n: usize| {
        let store = server.store.clone();
        async move {
            let name = format!("org-{n}");
            store
                .create_organization(&name, Some(owner), By::system("test"))
                .await
                .unwrap();
        }
    };
    futures::future::join_all((0..100).map(make)).await;
    let one_more = |name: &str| by(&server, &olga, "POST", "/api/orgs").json(json!({"name": name}));
    one_more("one-more").problem(409, "quota_exceeded").await;
    by(&server, &olga, "DELETE", "/api/orgs/org-7").status(204).await;
    one_more("one-more").status(201).await;
}

#[tokio::test]
async fn nobody_has_rules_without_end() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let grant = |n: usize| {
        let new = NewRule {
            subject: Subject::ServiceAccount(AccountId(account.id.parse().unwrap())),
            project_pattern: format!("p{n}").parse().unwrap(),
            env_pattern: Pattern::any(),
            key_pattern: Pattern::any(),
            configurations: false,
            permission: Permission::Read,
        };
        let store = server.store.clone();
        async move { store.upsert_rule("default", new, By::system("test")).await.unwrap() }
    };
    futures::future::join_all((0..1_000).map(grant)).await;
    let rule = |project: &str| {
        json!({
            "subject_type": "service_account", "subject_id": account.id, "project_pattern": project, "env_pattern": "*",
            "permission": "write",
        })
    };
    let path = format!("{O}/acl");
    server
        .admin("POST", &path)
        .json(rule("more"))
        .problem(409, "quota_exceeded")
        .await;
    server.admin("POST", &path).json(rule("p7")).status(200).await;
}
