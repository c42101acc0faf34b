//! What an organization may hold: enforced on both planes, and counted exactly whatever happens to its rows.

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::support::{M, O, Server};

const QUOTAS: &str = "/api/orgs/default/quotas";

async fn used(server: &Server, quota: &str) -> u64 {
    let quotas = server.admin("GET", QUOTAS).status(200).await;
    quotas.body[quota]["used"].as_u64().unwrap()
}

async fn limit(server: &Server, quotas: Value) {
    server.admin("PUT", QUOTAS).json(quotas).status(200).await;
}

/// The figures of the default organization, counted row by row.
fn recount(server: &Server) -> [i64; 3] {
    let path = server.dir().join("sealpod.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    [
        "SELECT count(*) FROM projects WHERE deleted_at IS NULL",
        "SELECT count(*) FROM secrets s JOIN projects p ON p.id = s.project_id
         WHERE s.deleted_at IS NULL AND p.deleted_at IS NULL",
        "SELECT (SELECT coalesce(sum(length(sealed)), 0) FROM versions)
             + (SELECT coalesce(sum(length(sealed)), 0) FROM configurations)",
    ]
    .map(|sql| database.query_row(sql, [], |row| row.get(0)).unwrap())
}

async fn figures(server: &Server) -> [i64; 3] {
    let quotas = server.admin("GET", QUOTAS).status(200).await;
    ["projects", "secrets", "value_bytes"].map(|quota| quotas.body[quota]["used"].as_i64().unwrap())
}

#[tokio::test]
async fn every_organization_begins_with_the_quotas_of_the_contract() {
    let server = Server::start().await;
    let path = "/api/orgs/acme/quotas";
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    for path in [path, QUOTAS] {
        assert_eq!(
            server.admin("GET", path).status(200).await.body,
            json!({
                "projects": {"limit": 10_000, "used": 0},
                "secrets": {"limit": 100_000, "used": 0},
                "value_bytes": {"limit": 1_073_741_824, "used": 0},
            })
        );
    }
}

#[tokio::test]
async fn members_see_the_quotas_and_superadmins_change_them() {
    let server = Server::start().await;
    let member = server.member("default", "m@example.com", "member").await;
    let owner = server.member("default", "o@example.com", "owner").await;
    let stranger = server.user("s@example.com").await;
    let account = server.account("ci", &[["*", "*", "*", "admin"]]).await;
    let (get, put) = (|| server.call("GET", QUOTAS), || server.call("PUT", QUOTAS));
    get().bearer(&member.token).status(200).await;
    get().bearer(&stranger.token).problem(404, "not_found").await;
    get().key(&account.key).problem(403, "forbidden").await;
    let body = json!({"projects": 1});
    put()
        .bearer(&owner.token)
        .json(body.clone())
        .problem(403, "forbidden")
        .await;
    put()
        .key(&account.key)
        .json(body.clone())
        .problem(403, "forbidden")
        .await;

    let before = server.audit().await.len();
    let changed = server.admin("PUT", QUOTAS).json(body.clone()).status(200).await;
    assert_eq!(changed.body["projects"]["limit"], 1);
    assert_eq!(changed.body["secrets"]["limit"], 100_000, "what is not given stays");
    let entries = server.audit().await;
    assert_eq!(entries[0].action, "org.update");
    assert_eq!(server.metadata().await["fields"], json!(["quotas.projects"]));
    // What changes nothing leaves no trace.
    server.admin("PUT", QUOTAS).json(body).status(200).await;
    server.admin("PUT", QUOTAS).json(json!({})).status(200).await;
    assert_eq!(server.audit().await.len(), before + 1);

    for (field, bad) in [
        ("projects", json!(-1)),
        ("secrets", json!("1")),
        ("value_bytes", json!(1_u64 << 53)),
    ] {
        server
            .admin("PUT", QUOTAS)
            .json(json!({field: bad}))
            .invalid(field)
            .await;
    }
}

#[tokio::test]
async fn an_organization_over_its_projects_gets_no_more_on_either_plane() {
    let server = Server::start().await;
    server.application("one").await;
    limit(&server, json!({"projects": 1})).await;
    let entries = server.audit().await.len();
    let refused = server
        .admin("POST", M)
        .json(json!({"name": "two"}))
        .problem(409, "quota_exceeded")
        .await;
    let detail = refused.text_at("detail");
    assert!(
        detail.contains(" 1 projects") && detail.contains("superadmin"),
        "{detail}"
    );
    let projects = format!("{O}/projects");
    let make = |name: &str| server.admin("POST", &projects).json(json!({"name": name}));
    make("two").problem(409, "quota_exceeded").await;
    assert_eq!(server.audit().await.len(), entries, "nothing of it was stored");
    assert_eq!(server.admin("GET", M).status(200).await.list().len(), 1);
    // A name that is taken is that, and nothing else.
    make("one").problem(409, "conflict").await;

    server.admin("DELETE", &format!("{projects}/one")).status(204).await;
    make("two").status(201).await;
    limit(&server, json!({"projects": 0})).await;
    // A lower limit takes nothing away.
    server.admin("GET", &format!("{projects}/two")).status(200).await;
    make("three").problem(409, "quota_exceeded").await;
}

#[tokio::test]
async fn an_organization_over_its_secrets_gets_no_more_but_new_values() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("one").await;
    limit(&server, json!({"secrets": 1})).await;
    app.admin("POST", "/secrets")
        .json(json!({"name": "two"}))
        .problem(409, "quota_exceeded")
        .await;
    let reply = server.put("shop", "local", "two", "v").await;
    assert_eq!((reply.status, &reply.body["code"]), (409, &json!("quota_exceeded")));
    assert_eq!(server.put("shop", "local", "one", "v").await.status, 201);
    app.admin("DELETE", "/secrets/one").status(204).await;
    assert_eq!(server.put("shop", "local", "two", "v").await.status, 201);
    assert_eq!(used(&server, "secrets").await, 1);
}

#[tokio::test]
async fn an_organization_over_its_bytes_stores_no_more() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", "v", json!({})).await;
    let one = used(&server, "value_bytes").await;
    limit(&server, json!({"value_bytes": one * 2})).await;
    let two = json!([{"environmentSlug": "local", "value": "v"}, {"environmentSlug": "local", "value": "v"}]);
    let refused = app.admin("POST", "/secrets/db/values").json(two);
    refused.problem(409, "quota_exceeded").await;
    assert_eq!(used(&server, "value_bytes").await, one, "all or nothing");
    app.set("db", "local", "v", json!({})).await;
    app.admin("POST", "/configurations")
        .json(json!({"environmentSlug": "local", "key": "k", "value": "v"}))
        .problem(409, "quota_exceeded")
        .await;
    // What is deleted is still stored.
    app.admin("DELETE", "/secrets/db").status(204).await;
    assert_eq!(used(&server, "value_bytes").await, one * 2);
}

#[tokio::test]
async fn the_figures_are_those_of_a_recount_whatever_was_done() {
    let server = Server::start().await;
    let mut seed = 7_u64;
    let mut dice = |sides: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    for step in 0..150 {
        let (project, secret) = (format!("p{}", dice(3)), format!("s{}", dice(4)));
        let (base, value) = (
            format!("{M}/{project}"),
            "v".repeat(usize::try_from(dice(300)).unwrap() + 1),
        );
        let values = json!([{"environmentSlug": "local", "value": value}]);
        let call = match dice(10) {
            0 | 1 => server.admin("POST", M).json(json!({"name": project})),
            2 if step % 3 == 0 => server.admin("DELETE", &base),
            2 | 3 => server
                .admin("POST", &format!("{base}/secrets"))
                .json(json!({"name": secret})),
            4 => server.admin("DELETE", &format!("{base}/secrets/{secret}")),
            5 => {
                let body = json!({"environmentSlug": "local", "key": secret, "value": value});
                server.admin("POST", &format!("{base}/configurations")).json(body)
            }
            6 => server
                .admin("PUT", &format!("{base}/configurations/local/{secret}"))
                .json(json!({"value": value})),
            7 => server.admin("DELETE", &format!("{O}/projects/{project}/envs/local/secrets/{secret}")),
            _ => server
                .admin("POST", &format!("{base}/secrets/{secret}/values"))
                .json(values),
        };
        let status = call.send().await.status;
        assert!(status < 500, "{status}");
    }
    let counted = recount(&server);
    assert!(counted.iter().all(|figure| *figure > 0), "{counted:?}");
    assert_eq!(figures(&server).await, counted);

    // What a purge and a restore do to rows, in an order that the foreign keys take, and counted after each step.
    server.store.close().await;
    let database = Connection::open(server.dir().join("sealpod.db")).unwrap();
    for sql in [
        "DELETE FROM versions WHERE number = 1",
        "DELETE FROM configurations WHERE deleted_at IS NULL",
        "UPDATE projects SET deleted_at = NULL, slug = hex(id) WHERE deleted_at IS NOT NULL",
        "UPDATE secrets SET deleted_at = NULL, name = hex(id) WHERE deleted_at IS NOT NULL",
        "UPDATE versions SET sealed = zeroblob(number)",
        "UPDATE projects SET deleted_at = 1 WHERE slug = 'p0'",
        "DELETE FROM api_keys",
        "DELETE FROM hidden_versions",
        "DELETE FROM versions",
        "DELETE FROM configurations",
        "DELETE FROM secrets",
        "DELETE FROM environments",
        "DELETE FROM projects WHERE slug < '8' OR slug = 'p0'",
    ] {
        database
            .execute(sql, [])
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(kept(&database), recount(&server), "{sql}");
    }
    let projects = "SELECT count(*) FROM project_usage";
    let projects: i64 = database.query_row(projects, [], |row| row.get(0)).unwrap();
    assert_eq!(projects, recount(&server)[0], "nothing is kept of what is gone");
}

fn kept(database: &Connection) -> [i64; 3] {
    let sql = "SELECT projects, secrets, value_bytes FROM quotas";
    let row = database.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
    row.unwrap()
}

#[test]
fn a_database_from_before_quotas_is_counted_once() {
    let sql = |name: &str| {
        let path = format!("{}/migrations/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(&sql("0001_initial.sql")).unwrap();
    database
        .execute_batch(
            "INSERT INTO organizations (id, name, created_at, updated_at) VALUES (zeroblob(16), 'a', 0, 0);
             INSERT INTO projects (id, organization_id, slug, display_name, labels, created_at, updated_at, deleted_at)
                 SELECT randomblob(16), zeroblob(16), 'p' || value, '', '{}', 0, 0, iif(value = 3, 0, NULL)
                 FROM json_each('[1,2,3]');
             INSERT INTO environments (id, project_id, slug, display_name, labels, created_at, updated_at)
                 SELECT randomblob(16), id, 'local', '', '{}', 0, 0 FROM projects;
             INSERT INTO secrets (id, project_id, name, created_at, updated_at, deleted_at)
                 SELECT randomblob(16), projects.id, 's' || value, 0, 0, iif(value = 1, 0, NULL)
                 FROM projects, json_each('[1,2,3,4]');
             INSERT INTO versions (id, secret_id, environment_id, number, is_enabled, created_at, created_by_type,
                     created_by_name, sealed)
                 SELECT randomblob(16), s.id, e.id, 1, 1, 0, '', '', zeroblob(10)
                 FROM secrets s JOIN environments e ON e.project_id = s.project_id;
             INSERT INTO configurations (id, environment_id, key, revision, revision_id, created_at, updated_at, sealed)
                 SELECT randomblob(16), id, 'k', 1, randomblob(16), 0, 0, zeroblob(7) FROM environments;",
        )
        .unwrap();
    database.execute_batch(&sql("0006_limits.sql")).unwrap();
    // Two live projects of three live secrets each; twelve versions of 10 bytes and three configurations of 7.
    assert_eq!(kept(&database), [2, 6, 141]);
}
