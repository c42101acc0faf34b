use std::collections::BTreeSet;
use std::sync::Arc;

use sealpod_api_server::audit::{Actor, ActorKind, By, Chain, Entry, Kind, Outcome, Source, StoredEntry, Verb};
use sealpod_api_server::store::Organization;
use sealpod_core::wire::audit::{AuditEntry, AuditPage, JSON_LINES};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{O, Reply, SUPERADMIN, Server, time};

const I: &str = "/api/audit-logs";

fn log() -> String {
    format!("{O}/audit-logs")
}

async fn organization(server: &Server, name: &str) -> Organization {
    server.store.ensure_organization(name, by(None)).await.unwrap()
}

fn by(user: Option<Uuid>) -> By {
    By {
        actor: Arc::new(Actor {
            kind: ActorKind::User,
            id: user,
            name: "ada@example.com".into(),
        }),
        source: Arc::new(Source {
            ip: Some([10, 0, 0, 7].into()),
            user_agent: Some("tests/1".into()),
            request_id: Some("r-1".into()),
        }),
        on_behalf: None,
        once: None,
    }
}

/// Two actors that do three things to three resources each, again and again, in an order in which no filter's entries
/// stand side by side.
struct Busy {
    server: Server,
    actors: [Uuid; 2],
    resources: [Uuid; 3],
    /// Newest first.
    stored: Vec<StoredEntry>,
}

impl Busy {
    async fn new(entries: usize) -> Self {
        let server = Server::start().await;
        let chain = Chain::Organization(server.store.organization("default").await.unwrap().id);
        let actors = [(); 2].map(|()| Uuid::now_v7());
        let resources = [(); 3].map(|()| Uuid::now_v7());
        let actions = [
            (Kind::Secret, Verb::Read),
            (Kind::Secret, Verb::Set),
            (Kind::Config, Verb::Set),
        ];
        for n in 0..entries {
            let (kind, verb) = actions[n * 7 % 5 % 3];
            let entry = Entry::new(kind, verb)
                .resource(resources[n * 5 % 7 % 3], "db")
                .at("shop", Some("prod"));
            let actor = [Some(actors[0]), Some(actors[1]), None][n * 3 % 11 % 3];
            server.store.record(chain, entry, by(actor)).await.unwrap();
        }
        let stored = server.store.audit_entries(chain, entries + 1).await.unwrap();
        Self {
            server,
            actors,
            resources,
            stored,
        }
    }

    async fn page(&self, query: &str) -> AuditPage {
        let reply = self
            .server
            .admin("GET", &format!("{}?{query}", log()))
            .status(200)
            .await;
        serde_json::from_value(reply.body).unwrap()
    }

    /// The numbers of all pages of this size.
    async fn walk(&self, query: &str, limit: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.page(&format!("limit={limit}{after}&{query}")).await;
            assert!(page.entries.len() <= limit);
            numbers.extend(page.entries.iter().map(|entry| entry.seq));
            match page.next_cursor {
                Some(cursor) => after = format!("&after={cursor}"),
                None => return numbers,
            }
        }
    }

    fn expect(&self, is: impl Fn(&StoredEntry) -> bool) -> Vec<u64> {
        self.stored
            .iter()
            .filter(|entry| is(entry))
            .map(|entry| entry.seq)
            .collect()
    }
}

#[tokio::test]
async fn an_entry_has_the_shape_of_the_contract_and_its_place_in_the_chain() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "canary-value").await;
    let reply = server.admin("GET", &format!("{}?limit=1", log())).status(200).await;
    let entry = &reply.body["entries"][0];
    let fields: BTreeSet<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    let want = "id seq action actor_type actor_id actor_name resource_type resource_id resource_name project environment \
        outcome ip user_agent request_id metadata created_at hash";
    assert_eq!(fields, want.split_whitespace().collect());
    for (field, want) in [
        ("action", json!("secret.set")),
        ("actor_type", json!("admin_key")),
        ("actor_id", Value::Null),
        ("actor_name", json!("admin-key")),
        ("resource_type", json!("secret")),
        ("resource_name", json!("db")),
        ("project", json!("shop")),
        ("environment", json!("local")),
        ("outcome", json!("success")),
        ("ip", json!("127.0.0.1")),
        ("metadata", json!({"version": 1})),
    ] {
        assert_eq!(entry[field], want, "{field}");
    }
    assert!(!reply.text.contains("canary-value"));

    // Entry by entry what is stored, whose chain is whole: so the hashes that were answered are those of the chain.
    let stored = server.audit().await;
    let all = server.admin("GET", &format!("{}?limit=100", log())).status(200).await;
    let page: AuditPage = serde_json::from_value(all.body).unwrap();
    assert_eq!(page.next_cursor, None);
    let pairs = |entry: &StoredEntry| (entry.seq, data_encoding::HEXLOWER.encode(&entry.hash));
    let answered: Vec<_> = page.entries.into_iter().map(|entry| (entry.seq, entry.hash)).collect();
    assert_eq!(answered, stored.iter().map(pairs).collect::<Vec<_>>());
    assert!(server.store.verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn filters_combine_and_pages_of_any_size_hold_the_same_entries() {
    let busy = Busy::new(160).await;
    let [ada, bob] = busy.actors;
    let [a, b, _] = busy.resources;
    let nobody = Uuid::now_v7();
    let set = |entry: &StoredEntry| entry.action == "secret.set";
    let cases: Vec<(String, Vec<u64>)> = vec![
        (String::new(), busy.expect(|_| true)),
        ("action=secret.set".into(), busy.expect(set)),
        ("action=backup.create".into(), vec![]),
        (format!("actor_id={ada}"), busy.expect(|it| it.actor_id == Some(ada))),
        (format!("actor_id={nobody}"), vec![]),
        (
            "resource_type=secret".into(),
            busy.expect(|it| it.resource_type == "secret"),
        ),
        ("resource_type=org".into(), busy.expect(|it| it.resource_type == "org")),
        ("resource_type=key".into(), vec![]),
        (format!("resource_id={a}"), busy.expect(|it| it.resource_id == Some(a))),
        ("action=secret.set&resource_type=secret".into(), busy.expect(set)),
        ("action=secret.set&resource_type=config".into(), vec![]),
        (
            format!("action=secret.set&actor_id={bob}"),
            busy.expect(|it| set(it) && it.actor_id == Some(bob)),
        ),
        (
            format!("resource_type=secret&actor_id={bob}"),
            busy.expect(|it| it.resource_type == "secret" && it.actor_id == Some(bob)),
        ),
        (
            format!("resource_id={b}&actor_id={bob}"),
            busy.expect(|it| it.resource_id == Some(b) && it.actor_id == Some(bob)),
        ),
        (
            format!("resource_id={b}&actor_id={bob}&resource_type=secret"),
            busy.expect(|it| it.resource_id == Some(b) && it.actor_id == Some(bob) && it.resource_type == "secret"),
        ),
        (
            format!("resource_id={b}&actor_id={ada}&action=secret.set"),
            busy.expect(|it| it.resource_id == Some(b) && it.actor_id == Some(ada) && set(it)),
        ),
        (
            format!("resource_id={b}&action=secret.set"),
            busy.expect(|it| it.resource_id == Some(b) && set(it)),
        ),
    ];
    let mut not_empty = 0;
    for (query, want) in &cases {
        for limit in [1, 7, 100] {
            assert_eq!(&busy.walk(query, limit).await, want, "{query} by {limit}");
        }
        not_empty += usize::from(!want.is_empty());
    }
    assert!(not_empty >= 13, "{not_empty}");
    assert_eq!(busy.page("").await.entries.len(), 20);
}

#[tokio::test]
async fn times_are_bounds_that_include_themselves_and_combine_with_filters() {
    let busy = Busy::new(60).await;
    let at = |place: usize| busy.stored[place].created_at;
    let (new, old) = (at(10), at(40));
    let between = |entry: &StoredEntry| (old..=new).contains(&entry.created_at);
    assert_eq!(
        busy.walk(&format!("since={old}&until={new}"), 7).await,
        busy.expect(between)
    );
    assert_eq!(
        busy.walk(&format!("since={old}"), 100).await,
        busy.expect(|it| it.created_at >= old)
    );
    assert_eq!(
        busy.walk(&format!("until={old}&action=secret.read"), 3).await,
        busy.expect(|it| it.created_at <= old && it.action == "secret.read")
    );
    assert_eq!(
        busy.walk(&format!("since={new}&until={new}"), 3).await,
        busy.expect(|it| it.created_at == new)
    );
    assert!(busy.page("since=9999-12-31T23:59:59Z").await.entries.is_empty());
    assert!(busy.page("until=0001-01-01T00:00:00Z").await.entries.is_empty());
    // The same instant in another zone.
    assert!(!busy.page("since=2026-01-01T00:00:00%2B14:00").await.entries.is_empty());
}

#[tokio::test]
async fn what_is_appended_meanwhile_neither_repeats_nor_hides_an_entry() {
    let busy = Busy::new(50).await;
    let mut numbers = Vec::new();
    let mut after = String::new();
    loop {
        let page = busy.page(&format!("limit=9&resource_type=secret{after}")).await;
        numbers.extend(page.entries.iter().map(|entry| entry.seq));
        busy.server.application(&format!("app-{}", numbers.len())).await;
        busy.server
            .put(&format!("app-{}", numbers.len()), "local", "db", "v")
            .await;
        let Some(cursor) = page.next_cursor else { break };
        after = format!("&after={cursor}");
    }
    assert_eq!(numbers, busy.expect(|it| it.resource_type == "secret"));
}

#[tokio::test]
async fn wrong_parameters_are_named_and_never_repeated() {
    let server = Server::start().await;
    for path in [log(), I.to_owned()] {
        let get = |query: &str| server.admin("GET", &format!("{path}?{query}"));
        for (field, values) in [
            ("limit", &["0", "101", "-1", "ten", ""][..]),
            ("actor_id", &["canary", ""]),
            ("resource_id", &["canary", "1"]),
            ("action", &["canary", "secret", "secret.canary", "canary.set", ""]),
            ("resource_type", &["canary", "Secret", ""]),
            ("since", &["canary", "2026-01-01", "2026-01-01T00:00:00", ""]),
            ("until", &["canary", "1767225600"]),
            (
                "after",
                &[
                    "canary",
                    "",
                    "5",
                    "AAAAAAAAAAA",
                    "__________8",
                    "AAAAAAAAAAE%3D",
                    "AAAAAAAAAAF",
                    "AAAAAAAAAAEA",
                    "%00",
                ],
            ),
        ] {
            for value in values {
                let reply = get(&format!("{field}={value}")).invalid(field).await;
                assert!(!reply.text.contains("canary"), "{}", reply.text);
            }
            get(&format!("{field}=1&{field}=1")).invalid(field).await;
        }
        let reply = get("action=secret.reed").invalid("action").await;
        assert!(reply.text.contains("login_failed") && reply.text.contains("service_account"));
        get("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z")
            .invalid("since")
            .await;
        get("actor=x").invalid("actor").await;
    }
}

#[tokio::test]
async fn organizations_never_see_each_others_entries() {
    let server = Server::start().await;
    let other = organization(&server, "other").await;
    server.application("shop").await;
    let ours = server.audit().await.len();
    for n in 0..30 {
        let entry = Entry::new(Kind::Secret, Verb::Set).resource(Uuid::now_v7(), &format!("theirs-{n}"));
        server
            .store
            .record(Chain::Organization(other.id), entry, by(None))
            .await
            .unwrap();
    }
    let read = async |organization: &str, query: &str| -> Reply {
        let path = format!("/api/orgs/{organization}/audit-logs?{query}");
        server.admin("GET", &path).status(200).await
    };
    let cursor = read("other", "limit=3").await.text_at("next_cursor");
    // In our log the cursor of theirs is a number like any other.
    for query in ["limit=100", &format!("limit=100&after={cursor}"), "action=secret.set"] {
        let reply = read("default", query).await;
        assert!(!reply.text.contains("theirs"), "{}", reply.text);
        assert!(reply.body["entries"].as_array().unwrap().len() <= ours);
    }
    let theirs = read("other", "limit=100").await;
    assert!(!theirs.text.contains("shop") && theirs.body["entries"].as_array().unwrap().len() == 31);
    server
        .admin("GET", "/api/orgs/nobody/audit-logs")
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn only_administrators_read_the_log_and_only_superadmins_that_of_the_instance() {
    let server = Server::start().await;
    let account = server.account("ci", &[["*", "*", "*", "admin"]]).await;
    for path in [log(), I.to_owned()] {
        server.call("GET", &path).problem(401, "unauthorized").await;
        server
            .call("GET", &path)
            .key(&account.key)
            .problem(403, "forbidden")
            .await;
        let lines = server.call("GET", &path).key(&account.key).header("accept", JSON_LINES);
        lines.problem(403, "forbidden").await;
        server.admin("GET", &path).status(200).await;
    }
    for (role, status) in [("owner", 200), ("admin", 200), ("developer", 403), ("member", 403)] {
        let user = server.member("default", &format!("{role}@example.com"), role).await;
        server.call("GET", &log()).bearer(&user.token).status(status).await;
        server
            .call("GET", I)
            .bearer(&user.token)
            .problem(403, "forbidden")
            .await;
    }
    let stranger = server.user("stranger@example.com").await;
    server
        .call("GET", &log())
        .bearer(&stranger.token)
        .problem(404, "not_found")
        .await;
    let superadmin = server.user(SUPERADMIN).await;
    for path in [log(), I.to_owned()] {
        server.call("GET", &path).bearer(&superadmin.token).status(200).await;
    }
    let foreign = server.call("GET", "/api/orgs/other/audit-logs").key(&account.key);
    foreign.problem(404, "not_found").await;
    // A reading of the log is no entry of it.
    let before = server.audit().await[0].seq;
    server.admin("GET", &log()).status(200).await;
    assert_eq!(server.audit().await[0].seq, before);
}

#[tokio::test]
async fn the_instance_log_tells_which_organizations_were_made() {
    let server = Server::start().await;
    organization(&server, "other").await;
    let reply = server.admin("GET", &format!("{I}?action=org.create")).status(200).await;
    let names: Vec<_> = reply.body["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["resource_name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["other", "default"]);
}

#[tokio::test]
async fn an_export_is_the_same_entries_as_the_pages() {
    let busy = Busy::new(600).await;
    let export = async |query: &str| {
        let call = busy.server.admin("GET", &format!("{}?{query}", log()));
        let reply = call.header("accept", JSON_LINES).status(200).await;
        assert_eq!(reply.header("content-type"), JSON_LINES);
        assert!(reply.text.is_empty() || reply.text.ends_with('\n'));
        let entries = reply.text.lines().map(|line| serde_json::from_str(line).unwrap());
        entries.collect::<Vec<AuditEntry>>()
    };
    let numbers = |entries: &[AuditEntry]| entries.iter().map(|entry| entry.seq).collect::<Vec<_>>();
    let all = export("").await;
    assert_eq!(numbers(&all), busy.expect(|_| true));
    assert_eq!(all[..20], busy.page("").await.entries);
    let ada = busy.actors[0];
    assert_eq!(
        numbers(&export(&format!("actor_id={ada}")).await),
        busy.expect(|it| it.actor_id == Some(ada))
    );
    assert_eq!(numbers(&export("limit=7").await), busy.expect(|_| true)[..7]);
    assert!(export("action=backup.create").await.is_empty());
    let call = busy.server.admin("GET", &format!("{}?limit=0", log()));
    call.header("accept", JSON_LINES).invalid("limit").await;
}

#[tokio::test]
async fn a_refused_read_of_a_value_is_found_by_its_outcome() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    let account = server.account("ci", &[["other", "*", "*", "read"]]).await;
    let path = format!("{O}/projects/shop/envs/local/secrets/db");
    server
        .call("GET", &path)
        .key(&account.key)
        .problem(403, "forbidden")
        .await;
    let query = format!("{}?actor_id={}&since={}", log(), account.id, time(-60_000));
    let reply = server.admin("GET", &query).status(200).await;
    let entries = reply.body["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entries[0]["outcome"], &entries[0]["action"]),
        (&json!(Outcome::Denied.as_str()), &json!("secret.read"))
    );
}

#[tokio::test]
async fn a_call_that_a_role_refuses_is_on_record_with_who_tried_what() {
    let server = Server::start().await;
    server.application("shop").await;
    let ada = server.member("default", "ada@example.com", "developer").await;
    let bob = server.member("default", "bob@example.com", "member").await;
    let account = server.account("ci", &[]).await;
    let refused = async |actor: &str| {
        let query = format!("{}?actor_id={actor}", log());
        let reply = server.admin("GET", &query).status(200).await;
        let page: AuditPage = serde_json::from_value(reply.body).unwrap();
        let denied = page.entries.into_iter().filter(|entry| entry.outcome == "denied");
        denied.collect::<Vec<AuditEntry>>()
    };
    let member = format!("{O}/members/{}", bob.id);
    for (method, path, action) in [
        ("DELETE", member.as_str(), "member.delete"),
        ("GET", &log(), "org.read"),
        ("DELETE", &format!("{O}/projects/shop"), "project.delete"),
        ("DELETE", O, "org.delete"),
    ] {
        server
            .call(method, path)
            .bearer(&ada.token)
            .problem(403, "forbidden")
            .await;
        let newest = refused(&ada.id).await.remove(0);
        assert_eq!(newest.action, action);
        assert_eq!(
            (newest.actor_name.as_str(), newest.ip.as_deref()),
            ("ada@example.com", Some("127.0.0.1"))
        );
        assert_eq!(
            newest.resource_id.map(|id| id.to_string()),
            path.contains("members").then(|| bob.id.clone())
        );
        assert_eq!(newest.project.as_deref(), path.contains("projects").then_some("shop"));
    }
    let path = format!("{O}/service-accounts");
    server
        .call("GET", &path)
        .key(&account.key)
        .problem(403, "forbidden")
        .await;
    assert_eq!(refused(&account.id).await[0].action, "service_account.list");

    // What belongs to no organization is in the log of the instance.
    server.call("GET", I).bearer(&bob.token).problem(403, "forbidden").await;
    let reply = server
        .admin("GET", &format!("{I}?actor_id={}&action=org.read", bob.id))
        .status(200)
        .await;
    assert_eq!(reply.body["entries"][0]["outcome"], "denied");
    assert!(refused(&bob.id).await.is_empty());

    // A refused value is one entry, not two.
    server.put("shop", "local", "db", "v").await;
    let path = format!("{O}/projects/shop/envs/local/secrets/db");
    server
        .call("GET", &path)
        .bearer(&bob.token)
        .problem(403, "forbidden")
        .await;
    let found = refused(&bob.id).await;
    assert_eq!((found.len(), found[0].action.as_str()), (1, "secret.read"));
    assert!(server.store.verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn somebody_who_is_refused_again_and_again_cannot_fill_the_log() {
    let server = Server::start().await;
    let ada = server.member("default", "ada@example.com", "developer").await;
    let before = server.audit().await[0].seq;
    for _ in 0..50 {
        server
            .call("GET", &log())
            .bearer(&ada.token)
            .problem(403, "forbidden")
            .await;
    }
    let entries = server.audit().await[0].seq - before;
    assert!((1..50).contains(&entries), "{entries}");
}
