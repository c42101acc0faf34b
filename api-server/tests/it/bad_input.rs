//! What no caller should send, for every operation of the OpenAPI document: always a problem that names what is wrong and
//! quotes nothing, never a 5xx, and nothing half done. A new operation is covered as soon as it is described.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::support::{ADMIN, Call, M, O, Reply, Server};

/// What every text that is sent contains, and no answer may.
const CANARY: &str = "canary-7f3a";
/// Fields whose text may be anything within its length: people's words, values, and codes, whose every fault is 401.
const FREE: [&str; 3] = ["description", "value", "code"];
/// Fields that name what exists already: nothing is called what no name can be, which is told when it is looked up.
const LOOKED_UP: [&str; 2] = ["environmentSlug", "project"];
/// Fields whose text may be empty.
const MAY_BE_EMPTY: [&str; 2] = ["description", "code"];

struct Operation {
    method: String,
    /// With the names of things that exist.
    path: String,
    body: Option<Value>,
    parameters: Vec<Value>,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

struct World {
    server: Server,
    document: Value,
    /// Of things in another organization, by the word of the path that is before the id.
    foreign: BTreeMap<&'static str, String>,
    names: Vec<(&'static str, String)>,
    /// The application's key.
    application: String,
}

impl World {
    /// A server with one of everything, and an organization beside it.
    async fn new() -> Self {
        let server = Server::start().await;
        let app = server.application("shop").await;
        app.secret("db").await;
        let application = app.key.clone();
        server.put("shop", "local", "db", "v").await;
        let configuration = json!({"environmentSlug": "local", "key": "db", "value": "v"});
        app.admin("POST", "/configurations")
            .json(configuration)
            .status(201)
            .await;
        let account = server.account("ci", &[]).await;
        let rule = server.grant(&account.id, ["*", "*", "*", "read"]).await;
        let member = server.member("default", "m@example.com", "member").await;

        let other = json!({"name": "other"});
        server.admin("POST", "/api/orgs").json(other).status(201).await;
        let theirs = server.admin("POST", "/api/orgs/other/service-accounts");
        let theirs = theirs.json(json!({"name": "ci"})).status(201).await.text_at("id");
        let rule_of_theirs = json!({
            "subject_type": "service_account", "subject_id": theirs, "project_pattern": "*", "env_pattern": "*",
            "permission": "read",
        });
        let rule_of_theirs = server.admin("POST", "/api/orgs/other/acl").json(rule_of_theirs);
        let rule_of_theirs = rule_of_theirs.status(201).await.text_at("id");
        let their_member = server.member("other", "x@example.com", "member").await;
        let names = vec![
            ("/service-accounts/{id}", format!("/service-accounts/{}", account.id)),
            ("/acl/{id}", format!("/acl/{rule}")),
            ("{user_id}", member.id.clone()),
            ("{org}", "default".to_owned()),
            ("{project}", "shop".to_owned()),
            ("{slug}", "shop".to_owned()),
            ("{env}", "local".to_owned()),
            ("{environmentSlug}", "local".to_owned()),
            ("{environment}", "local".to_owned()),
            ("{key}", "db".to_owned()),
            ("{name}", "db".to_owned()),
            ("{version}", "1".to_owned()),
            ("{n}", "1".to_owned()),
        ];
        Self {
            server,
            document: sealpod_api_server::routes::document(),
            foreign: [
                ("service-accounts", theirs),
                ("acl", rule_of_theirs),
                ("members", their_member.id),
            ]
            .into(),
            names,
            application,
        }
    }

    /// Every operation of the planes.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![];
        for (template, item) in self.document["paths"].as_object().unwrap() {
            if !template.starts_with("/api/") {
                continue;
            }
            let mut path = template.clone();
            for (name, value) in &self.names {
                path = path.replace(name, value);
            }
            // Whatever a later route calls its own: something that does not exist.
            let path = path
                .split('/')
                .map(|part| {
                    if part.starts_with('{') {
                        Uuid::now_v7().to_string()
                    } else {
                        part.to_owned()
                    }
                })
                .collect::<Vec<_>>()
                .join("/");
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                operations.push(Operation {
                    method: method.to_uppercase(),
                    path: path.clone(),
                    body: (!schema.is_null()).then(|| schema.clone()),
                    parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                });
            }
        }
        assert!(operations.len() > 60, "{}", operations.len());
        operations
    }

    /// The schema behind references and options.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return self.resolve(&self.document["components"]["schemas"][name]);
        }
        let choices = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
        let real = choices.and_then(|choices| choices.iter().find(|choice| choice["type"] != "null"));
        real.map_or(schema, |real| self.resolve(real))
    }

    /// The fields of a body, whether it is an array of them, and which are required.
    fn fields(&self, body: &Value) -> (bool, BTreeMap<String, Value>, Vec<String>) {
        let mut schema = self.resolve(body);
        let is_array = schema["type"] == "array";
        if is_array {
            schema = self.resolve(&schema["items"]);
        }
        let fields = schema["properties"].as_object().unwrap();
        let fields = fields
            .iter()
            .map(|(name, schema)| (name.clone(), self.resolve(schema).clone()));
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let required = required.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        (is_array, fields.collect(), required)
    }

    fn call(&self, operation: &Operation, query: &str) -> Call {
        self.reach(&operation.method, &format!("{}{query}", operation.path))
    }

    /// With the credential of the path's plane.
    fn reach(&self, method: &str, path: &str) -> Call {
        if path.starts_with("/api/consumer") {
            self.server.call(method, path).key(&self.application)
        } else {
            self.server.admin(method, path)
        }
    }

    /// Everything that is stored, and the changes on record.
    fn state(&self) -> (String, i64) {
        let path = self.server.dir().join("sealpod.db");
        let database = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'audit_entries' ORDER BY name";
        let mut statement = database.prepare(tables).unwrap();
        let tables: Vec<String> = statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut all = String::new();
        for table in tables {
            let mut statement = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    write!(all, "{:?}", row.get_ref(column).unwrap()).unwrap();
                }
            }
        }
        let changes = "SELECT count(*) FROM audit_entries WHERE outcome = 'success'";
        (all, database.query_row(changes, [], |row| row.get(0)).unwrap())
    }
}

/// What was found wrong, so that one run tells all of it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            self.0.push(what());
        }
    }

    /// Wants a problem of this status that quotes nothing; its errors by field.
    async fn want(&mut self, status: u16, call: Call, what: &str) -> Value {
        self.among(&[status], call, what).await.body["errors"].clone()
    }

    async fn among(&mut self, statuses: &[u16], call: Call, what: &str) -> Reply {
        let reply = call.send().await;
        let content_type = reply.headers.get("content-type");
        let is_right = statuses.contains(&reply.status)
            && content_type.is_some_and(|it| it == "application/problem+json")
            && reply.body["status"] == reply.status
            && reply.body["code"].is_string()
            && !reply.text.contains(CANARY);
        self.unless(is_right, || format!("{what}: {} {}", reply.status, reply.text));
        reply
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} faults:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

/// Whether a schema takes values of a JSON type.
fn takes(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(only) => only == kind,
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        // A map, or text that a type of ours reads.
        _ => schema["enum"].is_array() && kind == "string",
    }
}

/// Values that a field must refuse.
fn bad_values(field: &str, schema: &Value, is_required: bool) -> Vec<Value> {
    let mut bad = vec![];
    for (kind, value) in [
        ("string", json!(CANARY)),
        ("boolean", json!(true)),
        ("integer", json!(1)),
        ("array", json!([{ "canary-7f3a": 1 }])),
        ("object", json!({"a": {CANARY: CANARY}})),
    ] {
        if !takes(schema, kind) {
            bad.push(value);
        }
    }
    bad.extend([json!(-1.5), json!(1e300)]);
    if is_required {
        bad.push(Value::Null);
    }
    if takes(schema, "integer") {
        bad.extend([json!(-1), json!(u64::MAX), json!("1"), json!(1.5)]);
    }
    if takes(schema, "string") && !FREE.contains(&field) && !LOOKED_UP.contains(&field) {
        bad.push(json!(format!("{CANARY}{}", "x".repeat(2_000))));
        // Patterns and identifiers are compared, and what nothing is called matches nothing.
        if !field.ends_with("_pattern") {
            bad.push(json!(format!("{CANARY}\u{7}\n")));
        }
    }
    if takes(schema, "string") && !MAY_BE_EMPTY.contains(&field) {
        bad.push(json!(""));
    }
    if field == "description" {
        bad.push(json!(format!("{CANARY}{}", "x".repeat(10_000))));
    }
    if takes(schema, "array") {
        bad.extend([json!([1]), json!([null]), json!([[]])]);
    }
    if field == "labels" {
        bad.extend([
            json!({"a=b": CANARY}),
            json!({"": CANARY}),
            json!({"a": 1}),
            json!({"a": null}),
        ]);
    }
    bad
}

#[tokio::test]
async fn every_field_of_every_body_refuses_what_it_does_not_take_by_name() {
    let world = World::new().await;
    let (before, mut faults) = (world.state(), Faults::default());
    let mut tried = 0;
    for operation in world.operations() {
        let Some(body) = &operation.body else { continue };
        let (is_array, fields, required) = world.fields(body);
        let prefix = if is_array { "[0]." } else { "" };
        let has = |errors: &Value, name: &str| errors[format!("{prefix}{name}")].is_array();
        // Beside a field that nothing takes, so that no body is taken whatever else is right with it.
        let with = |object: Value| {
            let body = if is_array { json!([object]) } else { object };
            world.call(&operation, "").json(body)
        };
        let missing = faults.want(400, with(json!({"zzz": 1})), &operation.name()).await;
        for name in &required {
            faults.unless(has(&missing, name), || {
                format!("{}: without {name}: {missing}", operation.name())
            });
        }
        for (field, schema) in &fields {
            for value in bad_values(field, schema, required.contains(field)) {
                let what = format!("{}: {field} = {:.80}", operation.name(), value.to_string());
                let errors = faults.want(400, with(json!({field: value, "zzz": 1})), &what).await;
                let is_read = !errors[format!("{prefix}{field}")].to_string().contains("unknown");
                let named = has(&errors, field) && is_read && has(&errors, "zzz");
                faults.unless(named, || format!("{what}: {errors}"));
                tried += 1;
            }
            // Twice, and equal: still nobody's intention.
            let twice = format!("{{\"{field}\":null,\"{field}\":null,\"zzz\":1}}");
            let twice = if is_array { format!("[{twice}]") } else { twice };
            let call = world.call(&operation, "").body("application/json", twice);
            let what = format!("{}: {field} twice", operation.name());
            let errors = faults.want(400, call, &what).await;
            faults.unless(has(&errors, field), || format!("{what}: {errors}"));
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(before == world.state(), "something was done");
}

#[tokio::test]
async fn every_body_is_well_formed_json_of_the_right_kind_or_refused() {
    let world = World::new().await;
    let (before, mut faults) = (world.state(), Faults::default());
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let wide = format!("[{}0]", "0,".repeat(100_001));
    for operation in world.operations() {
        let Some(_) = &operation.body else { continue };
        let name = operation.name();
        let bodies: [&[u8]; 14] = [
            b"{\"canary-7f3a\": ",
            b"{canary-7f3a}",
            b"{\"name\": \"canary-7f3a\" \"x\": 1}",
            b"\"canary-7f3a\"",
            b"canary-7f3a",
            b"null",
            b"true",
            b"1",
            b"{\"name\": \"\xff\xfe canary-7f3a\"}",
            b"{\"name\": \"\\ud800 canary-7f3a\"}",
            b"{\"name\": \"canary-7f3a\x07\"}",
            b"\xef\xbb\xbf{\"zzz\": 1}",
            deep.as_bytes(),
            wide.as_bytes(),
        ];
        for body in bodies {
            let call = world.call(&operation, "").body("application/json", body.to_vec());
            // A call may take less than others, and then says so first.
            let statuses: &[u16] = if body.len() > 10_000 { &[400, 413] } else { &[400] };
            let what = format!("{name}: {:.60}", String::from_utf8_lossy(body));
            faults.among(statuses, call, &what).await;
        }
        let form = "application/x-www-form-urlencoded";
        for content_type in ["text/plain", form, "multipart/form-data; boundary=x", "x"] {
            let call = world
                .call(&operation, "")
                .body(content_type, "{\"zzz\": \"canary-7f3a\"}");
            faults.want(415, call, &name).await;
        }
        let huge = vec![b' '; 9 * 1024 * 1024];
        let call = world.call(&operation, "").body("application/json", huge);
        faults.want(413, call, &name).await;
    }
    assert!(before == world.state(), "something was done");
}

#[tokio::test]
async fn every_query_parameter_refuses_what_it_does_not_take_by_name() {
    let world = World::new().await;
    let (before, mut faults) = (world.state(), Faults::default());
    let mut tried = 0;
    for operation in world.operations() {
        let name = operation.name();
        // The body is read after the query, and so never.
        let call = world.call(&operation, "?zzz=canary-7f3a");
        let errors = faults.want(400, call, &name).await;
        faults.unless(errors["zzz"].is_array(), || format!("{name}: {errors}"));
        for query in ["?a=%ff", "?a=%zz", "?%ff", "?a=%"] {
            let what = format!("{name}{query}");
            faults.want(400, world.call(&operation, query), &what).await;
        }
        let in_query = |parameter: &&Value| parameter["in"] == "query";
        for parameter in operation.parameters.iter().filter(in_query) {
            let (field, schema) = (parameter["name"].as_str().unwrap(), world.resolve(&parameter["schema"]));
            let mut bad = vec![];
            if takes(schema, "integer") {
                bad.extend(["canary-7f3a", "-1", "1.5", "+1", "99999999999999999999"]);
                bad.extend(["1e3", "0x1", "%201", ""]);
            }
            if takes(schema, "boolean") {
                bad.extend(["canary-7f3a", "1", "TRUE", ""]);
            }
            if !takes(schema, "array") && field != "label" {
                bad.push("1&SAME=1");
            }
            for value in bad {
                let query = format!("?zzz=1&{field}={}", value.replace("SAME", field));
                let what = format!("{name}{query}");
                let errors = faults.want(400, world.call(&operation, &query), &what).await;
                faults.unless(errors[field].is_array(), || format!("{what}: {errors}"));
                tried += 1;
            }
        }
    }
    assert!(tried > 50, "{tried}");
    assert!(before == world.state(), "something was done");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_405_with_those_that_it_takes() {
    let world = World::new().await;
    let (before, mut faults) = (world.state(), Faults::default());
    let mut by_path: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for operation in world.operations() {
        by_path.entry(operation.path).or_default().push(operation.method);
    }
    for (path, methods) in by_path {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
            if methods.iter().any(|known| known == method) {
                continue;
            }
            let what = format!("{method} {path}");
            let reply = faults.among(&[405], world.reach(method, &path), &what).await;
            let allow = reply.headers.get("allow").map(|allow| allow.to_str().unwrap());
            let allow: Vec<&str> = allow.unwrap_or_default().split(',').map(str::trim).collect();
            let all = methods.iter().all(|method| allow.contains(&method.as_str()));
            faults.unless(all, || format!("{what}: {allow:?}"));
        }
        if methods.iter().any(|method| method == "GET") {
            let reply = world.reach("HEAD", &path).send().await;
            let is_right = reply.text.is_empty() && reply.status < 500;
            faults.unless(is_right, || format!("HEAD {path}: {}", reply.status));
        }
    }
    // A HEAD is a read like any other, and on record as such.
    assert!(before.0 == world.state().0, "something was done");
}

#[tokio::test]
async fn who_may_not_call_hears_that_and_nothing_about_the_body() {
    let world = World::new().await;
    let stranger = world.server.user("stranger@example.com").await;
    let member = world.server.member("default", "reader@example.com", "member").await;
    let account = world.server.account("nobody", &[]).await;
    let (before, mut faults) = (world.state(), Faults::default());
    let mut tried = 0;
    for operation in world.operations() {
        let (name, path) = (operation.name(), &operation.path);
        if operation.body.is_none() || !path.starts_with("/api/orgs/default") {
            continue;
        }
        let with = || world.server.call(&operation.method, path).json(json!({"zzz": CANARY}));
        faults.want(404, with().bearer(&stranger.token), &name).await;
        // What a bundle may hold depends on the question.
        if !path.ends_with("/bundle") {
            faults.want(403, with().bearer(&member.token), &name).await;
            faults.want(403, with().key(&account.key), &name).await;
        }
        tried += 1;
    }
    assert!(tried > 10, "{tried}");
    assert!(before == world.state(), "something was done");
}

/// Sends a request line as it is, with the admin key; the status of the answer, and all of it.
async fn raw(server: &Server, line: &[u8]) -> (u16, String) {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(" HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ADMIN}\r\n\r\n");
    connection.write_all(&[line, head.as_bytes()].concat()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test]
async fn a_path_is_what_it_says_and_leads_nowhere_else() {
    let world = World::new().await;
    let server = &world.server;
    let long = "a".repeat(20_000);
    for path in [
        format!("{O}/../other/acl"),
        format!("{O}/./acl"),
        format!("{O}//acl"),
        format!("{O}/acl/"),
        format!("/{O}/acl"),
        "/api/management/../orgs/default/acl".to_owned(),
        "/api/management/%2e%2e/orgs/default/acl".to_owned(),
        "/api/orgs/..".to_owned(),
        "/api/orgs/%2e%2e/acl".to_owned(),
        "/api/orgs/default%2Facl".to_owned(),
        "/api/orgs/default%2f..%2fother/acl".to_owned(),
        "/api/orgs/default%00/acl".to_owned(),
        "/api/orgs/%00/acl".to_owned(),
        "/api/orgs/%ff/acl".to_owned(),
        "/api/orgs/%zz/acl".to_owned(),
        "/api/orgs/%/acl".to_owned(),
        "/api/orgs/DEFAULT/acl".to_owned(),
        "/api/orgs/default%20/acl".to_owned(),
        "/api/orgs/default;x=1/acl".to_owned(),
        "/API/orgs/default/acl".to_owned(),
        format!("{M}/sho%70/secrets/%2e%2e"),
        format!("{M}/shop/secrets/.."),
        format!("{M}/shop/secrets/db%00"),
        format!("{M}/shop/secrets/{long}"),
        format!("{O}/projects/shop/envs/local/secrets/..%2f..%2fdb"),
        format!("{O}/projects/shop/envs/local/secrets/%64b%2f"),
        format!("{O}/acl/not-a-uuid"),
        format!("{O}/acl/{long}"),
    ] {
        let (status, answer) = raw(server, format!("GET {path}").as_bytes()).await;
        assert!(matches!(status, 400 | 404), "{path:.100}: {status}");
        assert!(
            answer.contains("application/problem+json"),
            "{path:.100}: {answer:.300}"
        );
    }
    // Another spelling of the same characters is the same name, within one segment.
    let (status, _) = raw(server, format!("GET {O}/projects/%73hop").as_bytes()).await;
    assert_eq!(status, 200);
    // No names of secrets either that would lead elsewhere once they are files.
    for key in ["..", ".hidden", "a/b", "a\\b", "a\u{0}b", "a b", "é", &"a".repeat(201)] {
        let path = format!("{O}/projects/shop/envs/local/secrets/{}", encoded(key));
        let (status, answer) = raw_put(server, &path).await;
        assert_eq!(status, 400, "{key:?}: {answer}");
        assert!(!answer.contains(CANARY), "{answer}");
    }
    // What is no HTTP at all ends the connection.
    for line in [
        &b"GET /\x00"[..],
        b"GET /api/orgs/\xff",
        b"GET",
        b"GET  /",
        b"\x16\x03\x01",
    ] {
        let (status, _) = raw(server, line).await;
        assert!(matches!(status, 400 | 404), "{line:?}: {status}");
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .fold(String::new(), |all, byte| all + &format!("%{byte:02X}"))
}

async fn raw_put(server: &Server, path: &str) -> (u16, String) {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = format!("{{\"value\": \"{CANARY}\"}}");
    let request = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ADMIN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test]
async fn ids_of_another_organization_are_as_unknown_as_any() {
    let world = World::new().await;
    let before = world.state();
    let mut tried = 0;
    for operation in world.operations() {
        for (word, foreign) in &world.foreign {
            let parts: Vec<&str> = operation.path.split('/').collect();
            let Some(at) = parts.iter().position(|part| part == word) else {
                continue;
            };
            if at + 1 >= parts.len() {
                continue;
            }
            let with = |id: &str| {
                let mut parts = parts.clone();
                parts[at + 1] = id;
                world.server.admin(&operation.method, &parts.join("/"))
            };
            // With a body that is right where there has to be one.
            let send = async |id: &str| match &operation.body {
                Some(_) if operation.method == "PATCH" => with(id).json(json!({"role": "member"})).send().await,
                Some(_) => with(id).json(json!({})).send().await,
                None => with(id).send().await,
            };
            let (theirs, nobodys) = (send(foreign).await, send(&Uuid::now_v7().to_string()).await);
            assert_eq!(theirs.status, 404, "{}: {}", operation.name(), theirs.text);
            assert_eq!(theirs.text, nobodys.text, "{}", operation.name());
            tried += 1;
        }
    }
    assert!(tried >= 6, "{tried}");
    assert!(before == world.state(), "something was done");
}

#[tokio::test]
async fn headers_of_any_form_are_survived() {
    let world = World::new().await;
    let address = world.server.url.strip_prefix("http://").unwrap();
    for header in [
        "authorization: Bearer",
        "authorization: \u{ff}",
        "authorization: Bearer a, Bearer b",
        "x-api-key: cr_sa_\u{0}",
        "x-api-key: cr_sa_canary-7f3a",
        "x-forwarded-for: canary-7f3a, ,,,",
        "x-request-id: {canary-7f3a}",
        "user-agent: \u{1b}[31mcanary-7f3a",
        "if-none-match: \",,W/\"",
        "content-length: -1",
        "content-length: 99999999999999999999",
        "transfer-encoding: canary-7f3a",
        "expect: canary-7f3a",
        "upgrade: canary-7f3a\r\nconnection: upgrade",
    ] {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("GET {O}/projects HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Where the body's length makes no sense, the connection may end without a word.
        let _ = connection.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{header}: {answer}");
        assert!(!answer.contains(CANARY), "{header}: {answer}");
    }
}
