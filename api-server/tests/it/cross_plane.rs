//! One set of rows, three planes: what is done on one is read on the others.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{Application, Call, M, O, Reply, Server, time};

/// Text as one segment of a path, whatever it holds.
fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A value, its version and its encoding.
type Held = (String, u64, String);

/// What each plane gives out for a secret, which must be the same everywhere: the organization plane by name and in a
/// bundle, the consumer plane by name. `None` where each says that there is nothing.
async fn everywhere(server: &Server, app: &Application<'_>, env: &str, name: &str) -> Option<Held> {
    let held = |body: &Value, properties: &Value| -> Held {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let version = properties["version"].as_u64().unwrap();
        (text(&body["value"]), version, text(&properties["encoding"]))
    };
    let environment = format!("{O}/projects/{}/envs/{env}", app.slug);
    let single = server
        .admin("GET", &format!("{environment}/secrets/{}", segment(name)))
        .send()
        .await;
    let consumer = app
        .consumer(&format!("/secrets/{}?environment={env}", segment(name)))
        .send()
        .await;
    let bundle = server
        .admin("GET", &format!("{environment}/bundle?key={}", segment(name)))
        .send()
        .await;
    let listed = server.admin("GET", &format!("{environment}/secrets")).send().await;
    let item = listed
        .body
        .as_array()
        .and_then(|list| list.iter().find(|item| item["key"] == name));
    assert_eq!(single.status, consumer.status, "{} {}", single.text, consumer.text);
    if single.status == 404 {
        assert!(
            bundle.status == 404 || bundle.body["missing"][0] == name,
            "{}",
            bundle.text
        );
        assert!(item.is_none_or(|item| item["version"].is_null()), "{}", listed.text);
        return None;
    }
    assert_eq!(single.status, 200, "{}", single.text);
    assert_eq!(
        (&single.body["key"], &consumer.body["name"]),
        (&json!(name), &json!(name))
    );
    let all = [
        held(&single.body, &single.body),
        held(&consumer.body, &consumer.body["properties"]),
        held(&bundle.body["secrets"][name], &bundle.body["secrets"][name]),
    ];
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(item.unwrap()["version"], all[0].1);
    Some(all[0].clone())
}

fn text(value: &str, version: u64) -> Held {
    (value.to_owned(), version, "utf8".to_owned())
}

/// The numbers of a secret's versions, newest first, which both planes must list alike.
async fn numbers(server: &Server, app: &Application<'_>, env: &str, name: &str) -> Vec<u64> {
    let of = |reply: &Reply| -> Vec<u64> {
        reply
            .list()
            .iter()
            .map(|item| item["version"].as_u64().unwrap())
            .collect()
    };
    let name = segment(name);
    let management = app
        .admin("GET", &format!("/secrets/{name}/versions/{env}"))
        .status(200)
        .await;
    let path = format!("{O}/projects/{}/envs/{env}/secrets/{name}/versions", app.slug);
    let organization = server.admin("GET", &path).status(200).await;
    assert_eq!(of(&management), of(&organization));
    for (ours, theirs) in management.list().iter().zip(organization.list()) {
        for (camel, snake) in [
            ("isEnabled", "is_enabled"),
            ("expiresAt", "expires_at"),
            ("notBefore", "not_before"),
            ("createdAt", "created_at"),
        ] {
            assert_eq!(ours[camel], theirs[snake], "{camel}");
        }
    }
    of(&management)
}

fn slugs(reply: &Reply, field: &str) -> BTreeSet<String> {
    reply
        .list()
        .iter()
        .map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_application_is_a_project_and_a_project_is_an_application() {
    let server = Server::start().await;
    let body = json!({"name": "Shop №1", "description": "sells", "slug": "shop"});
    let made = server.admin("POST", M).json(body).status(201).await;
    let project = server.admin("GET", &format!("{O}/projects/shop")).status(200).await;
    for (ours, theirs) in [
        ("id", "id"),
        ("slug", "name"),
        ("name", "display_name"),
        ("description", "description"),
        ("createdAt", "created_at"),
    ] {
        assert_eq!(made.body[ours], project.body[theirs], "{ours}");
    }
    let body = json!({"name": "core", "display_name": "The Core", "description": "all else"});
    server
        .admin("POST", &format!("{O}/projects"))
        .json(body)
        .status(201)
        .await;
    let application = server.admin("GET", &format!("{M}/core")).status(200).await;
    assert_eq!(
        (&application.body["name"], &application.body["description"]),
        (&json!("The Core"), &json!("all else"))
    );

    for (slug, want) in [("shop", vec!["local"]), ("core", vec!["dev", "prod", "staging"])] {
        let ours = server
            .admin("GET", &format!("{M}/{slug}/environments"))
            .status(200)
            .await;
        let theirs = server
            .admin("GET", &format!("{O}/projects/{slug}/envs"))
            .status(200)
            .await;
        assert_eq!(slugs(&ours, "slug"), want.iter().map(ToString::to_string).collect());
        assert_eq!(slugs(&ours, "id"), slugs(&theirs, "id"));
        assert_eq!(slugs(&ours, "slug"), slugs(&theirs, "name"));
    }
    let all = server.admin("GET", M).status(200).await;
    let same = server.admin("GET", &format!("{O}/projects")).status(200).await;
    assert_eq!(slugs(&all, "id"), slugs(&same, "id"));
}

#[tokio::test]
async fn a_change_of_name_shows_on_every_plane_and_leaves_keys_and_values_alone() {
    let server = Server::start().await;
    let mut app = server.application("shop").await;
    app.secret("k").await;
    app.set("k", "local", "v", json!({})).await;
    server
        .admin("PUT", &format!("{M}/shop"))
        .json(json!({"name": "Store"}))
        .status(200)
        .await;
    let project = server.admin("GET", &format!("{O}/projects/shop")).status(200).await;
    assert_eq!(project.body["display_name"], "Store");

    let path = format!("{O}/projects/shop");
    server
        .admin("PATCH", &path)
        .json(json!({"name": "store", "display_name": "The Store"}))
        .status(200)
        .await;
    server
        .admin("GET", &format!("{M}/shop"))
        .problem(404, "not_found")
        .await;
    let application = server.admin("GET", &format!("{M}/store")).status(200).await;
    assert_eq!(
        (&application.body["name"], &application.body["id"]),
        (&json!("The Store"), &project.body["id"])
    );
    app.slug = "store".to_owned();
    assert_eq!(everywhere(&server, &app, "local", "k").await, Some(text("v", 1)));

    app.admin("PUT", "/environments/local")
        .json(json!({"name": "Laptops"}))
        .status(200)
        .await;
    let environments = server
        .admin("GET", &format!("{O}/projects/store/envs"))
        .status(200)
        .await;
    assert_eq!(environments.list()[0]["display_name"], "Laptops");
}

#[tokio::test]
async fn versions_count_on_whichever_plane_sets_them() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.admin("POST", "/environments")
        .json(json!({"name": "Prod"}))
        .status(201)
        .await;
    // The organization plane makes the slot, the management plane knows it.
    server.put("shop", "local", "k", "one").await;
    let slot = app.admin("GET", "/secrets/k").status(200).await;
    let provided = |reply: &Reply| -> Vec<bool> {
        let environments = reply.body["requiredEnvironments"].as_array().unwrap();
        environments
            .iter()
            .map(|environment| environment["valueProvided"] == true)
            .collect()
    };
    assert_eq!(provided(&slot), [true, false]);
    assert_eq!(everywhere(&server, &app, "local", "k").await, Some(text("one", 1)));
    app.set("k", "local", "two", json!({})).await;
    assert_eq!(everywhere(&server, &app, "local", "k").await, Some(text("two", 2)));
    server.put("shop", "local", "k", "three").await;
    let rollback = format!("{O}/projects/shop/envs/local/secrets/k/rollback");
    server
        .admin("POST", &rollback)
        .json(json!({"version": 2}))
        .status(200)
        .await;
    assert_eq!(everywhere(&server, &app, "local", "k").await, Some(text("two", 4)));
    let both = json!([
        {"environmentSlug": "local", "value": "five"}, {"environmentSlug": "prod", "value": "first"},
        {"environmentSlug": "local", "value": "six"},
    ]);
    app.admin("POST", "/secrets/k/values").json(both).status(200).await;
    assert_eq!(everywhere(&server, &app, "local", "k").await, Some(text("six", 6)));
    assert_eq!(everywhere(&server, &app, "prod", "k").await, Some(text("first", 1)));
    assert_eq!(numbers(&server, &app, "local", "k").await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(numbers(&server, &app, "prod", "k").await, [1]);
    assert_eq!(
        provided(&app.admin("GET", "/secrets/k").status(200).await),
        [true, true]
    );
}

#[tokio::test]
async fn the_active_version_is_the_same_one_everywhere() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let (past, future) = (time(-3_600_000), time(3_600_000));
    let on = json!({});
    let off = json!({"isEnabled": false});
    let expired = json!({"expiresAt": past});
    let early = json!({"notBefore": future});
    let window = json!({"notBefore": past, "expiresAt": future});
    for (n, (versions, active)) in [
        (vec![&on], Some(1)),
        (vec![&on, &on], Some(2)),
        (vec![&on, &off], Some(1)),
        (vec![&on, &expired], Some(1)),
        (vec![&on, &early], Some(1)),
        (vec![&on, &window], Some(2)),
        (vec![&expired, &on, &off, &early], Some(2)),
        (vec![&off], None),
        (vec![&expired, &early, &off], None),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("k{n}");
        app.secret(&name).await;
        for (version, more) in (1..).zip(&versions) {
            app.set(&name, "local", &format!("v{version}"), (*more).clone()).await;
        }
        let want = active.map(|version| text(&format!("v{version}"), version));
        assert_eq!(everywhere(&server, &app, "local", &name).await, want, "{versions:?}");
    }
    // Whichever plane changes the state of a version.
    let path = format!("{O}/projects/shop/envs/local/secrets/k1/versions/2");
    server
        .admin("PATCH", &path)
        .json(json!({"is_enabled": false}))
        .status(200)
        .await;
    assert_eq!(everywhere(&server, &app, "local", "k1").await, Some(text("v1", 1)));
    let item = numbers(&server, &app, "local", "k1").await;
    assert_eq!(item, [2, 1], "an inactive version is listed");
    server
        .admin("PATCH", &path)
        .json(json!({"is_enabled": true, "expires_at": past}))
        .status(200)
        .await;
    assert_eq!(everywhere(&server, &app, "local", "k1").await, Some(text("v1", 1)));
    server
        .admin("PATCH", &path)
        .json(json!({"expires_at": null}))
        .status(200)
        .await;
    assert_eq!(everywhere(&server, &app, "local", "k1").await, Some(text("v2", 2)));
}

#[tokio::test]
async fn what_one_plane_deletes_is_gone_from_the_others_at_once() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    for name in ["Prod", "Test"] {
        app.admin("POST", "/environments")
            .json(json!({"name": name}))
            .status(201)
            .await;
    }
    for name in ["a", "b"] {
        app.secret(name).await;
        for env in ["local", "prod", "test"] {
            app.set(name, env, "v", json!({})).await;
        }
    }
    let project = format!("{O}/projects/shop");

    // 1. A secret in one environment, by the organization plane: elsewhere it stays, and its numbers go on.
    server
        .admin("DELETE", &format!("{project}/envs/local/secrets/a"))
        .status(204)
        .await;
    assert_eq!(everywhere(&server, &app, "local", "a").await, None);
    assert_eq!(everywhere(&server, &app, "prod", "a").await, Some(text("v", 1)));
    assert_eq!(
        app.admin("GET", "/secrets/a").status(200).await.body["requiredEnvironments"][0]["valueProvided"],
        false
    );
    app.admin("GET", "/secrets/a/versions/local").status(200).await;
    app.set("a", "local", "again", json!({})).await;
    assert_eq!(everywhere(&server, &app, "local", "a").await, Some(text("again", 2)));
    assert_eq!(numbers(&server, &app, "local", "a").await, [2]);

    // 2. A secret everywhere, by the management plane: what comes later under its name is another one.
    app.admin("DELETE", "/secrets/a").status(204).await;
    for env in ["local", "prod", "test"] {
        assert_eq!(everywhere(&server, &app, env, "a").await, None);
    }
    server.put("shop", "local", "a", "new").await;
    assert_eq!(everywhere(&server, &app, "local", "a").await, Some(text("new", 1)));
    assert_eq!(everywhere(&server, &app, "prod", "a").await, None);

    // 3. An environment, by either.
    app.admin("DELETE", "/environments/prod").status(204).await;
    server
        .admin("GET", &format!("{project}/envs/prod"))
        .problem(404, "not_found")
        .await;
    assert_eq!(everywhere(&server, &app, "prod", "b").await, None);
    server
        .admin("DELETE", &format!("{project}/envs/test"))
        .status(204)
        .await;
    assert_eq!(
        slugs(&app.admin("GET", "/environments").status(200).await, "slug"),
        ["local".to_owned()].into()
    );
    assert_eq!(everywhere(&server, &app, "test", "b").await, None);
    assert_eq!(everywhere(&server, &app, "local", "b").await, Some(text("v", 1)));
}

#[tokio::test]
async fn a_whole_application_that_one_plane_deletes_takes_its_key_along() {
    let server = Server::start().await;
    for path in [M.to_owned(), format!("{O}/projects")] {
        let app = server.application("shop").await;
        server.put("shop", "local", "k", "v").await;
        assert_eq!(everywhere(&server, &app, "local", "k").await, Some(text("v", 1)));
        server.admin("DELETE", &format!("{path}/shop")).status(204).await;
        app.consumer("/secrets/k?environment=local")
            .problem(401, "unauthorized")
            .await;
        for path in [
            format!("{M}/shop"),
            format!("{M}/shop/secrets/k"),
            format!("{O}/projects/shop"),
            format!("{O}/projects/shop/envs/local/secrets/k"),
            format!("{O}/projects/shop/envs/local/bundle"),
        ] {
            server.admin("GET", &path).problem(404, "not_found").await;
        }
        assert!(server.admin("GET", M).status(200).await.list().is_empty());
        assert!(
            server
                .admin("GET", &format!("{O}/projects"))
                .status(200)
                .await
                .list()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_configuration_is_the_same_entry_for_consumers_and_in_bundles() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let bundle = format!("{O}/projects/shop/envs/local/bundle?configurations=true");
    let read = async |want: Value| {
        let all = app.consumer("/configurations?environment=local").status(200).await;
        let items = all.body["items"].as_array().unwrap();
        let pairs = items
            .iter()
            .map(|item| (item["key"].as_str().unwrap().to_owned(), item["value"].clone()));
        assert_eq!(Value::Object(pairs.collect()), want);
        assert_eq!(
            server.admin("GET", &bundle).status(200).await.body["configurations"],
            want
        );
    };
    let key = "Feature:Dark/Mode ✓";
    let entry = json!({"environmentSlug": "local", "key": key, "value": "on"});
    app.admin("POST", "/configurations").json(entry).status(201).await;
    read(json!({key: "on"})).await;
    let path = format!("/configurations/local/{}", segment(key));
    app.admin("PUT", &path).json(json!({"value": "off"})).status(200).await;
    read(json!({key: "off"})).await;
    let one = app
        .consumer(&format!("/configurations/{}?environment=local", segment(key)))
        .status(200)
        .await;
    assert_eq!(one.body, json!({"key": key, "value": "off", "label": "local"}));
    app.admin("DELETE", &path).status(204).await;
    read(json!({})).await;
}

#[tokio::test]
async fn a_consumer_cannot_tell_one_kind_of_absence_from_another() {
    let server = Server::start().await;
    let (app, other) = (server.application("shop").await, server.application("other").await);
    app.admin("POST", "/environments")
        .json(json!({"name": "Gone"}))
        .status(201)
        .await;
    for (name, more) in [
        ("off", json!({"isEnabled": false})),
        ("expired", json!({"expiresAt": time(-60_000)})),
        ("early", json!({"notBefore": time(60_000)})),
        ("deleted", json!({})),
        ("hidden", json!({})),
        ("kept", json!({})),
    ] {
        app.secret(name).await;
        app.set(name, "local", "v", more).await;
    }
    app.secret("slot").await;
    app.set("kept", "gone", "v", json!({})).await;
    app.admin("DELETE", "/environments/gone").status(204).await;
    app.admin("DELETE", "/secrets/deleted").status(204).await;
    server
        .admin("DELETE", &format!("{O}/projects/shop/envs/local/secrets/hidden"))
        .status(204)
        .await;
    other.secret("theirs").await;
    other.set("theirs", "local", "v", json!({})).await;

    let mut answers = BTreeSet::new();
    for path in [
        "/secrets/never?environment=local",
        "/secrets/kept?environment=never",
        "/secrets/kept?environment=gone",
        "/secrets/kept?environment=Local",
        "/secrets/slot?environment=local",
        "/secrets/off?environment=local",
        "/secrets/expired?environment=local",
        "/secrets/early?environment=local",
        "/secrets/deleted?environment=local",
        "/secrets/hidden?environment=local",
        "/secrets/theirs?environment=local",
        "/secrets/never?environment=never",
    ] {
        let reply = app.consumer(path).problem(404, "not_found").await;
        let names = reply.headers.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
        answers.insert((reply.text, names));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    app.consumer("/secrets/kept?environment=local").status(200).await;
}

#[tokio::test]
async fn bytes_come_back_as_they_were_set_and_as_text_where_they_are_text() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    for (n, bytes) in [
        &b"plain"[..],
        "ünï 🔑\u{200f}".as_bytes(),
        b"\0\x01",
        &[0xff, 0x00, 0xfe],
        &[0x80; 1000],
    ]
    .into_iter()
    .enumerate()
    {
        let encoded = BASE64.encode(bytes);
        let want = match std::str::from_utf8(bytes) {
            Ok(text) => (text.to_owned(), "utf8".to_owned()),
            Err(_) => (encoded.clone(), "base64".to_owned()),
        };
        let of = |version| Some((want.0.clone(), version, want.1.clone()));
        let name = format!("k{n}");
        app.secret(&name).await;
        app.set(&name, "local", &encoded, json!({"encoding": "base64"})).await;
        assert_eq!(everywhere(&server, &app, "local", &name).await, of(1));
        let path = format!("{O}/projects/shop/envs/local/secrets/{name}");
        let put = |body: Value| -> Call { server.admin("PUT", &path).json(body) };
        put(json!({"value": encoded, "encoding": "base64"})).status(200).await;
        assert_eq!(everywhere(&server, &app, "local", &name).await, of(2));
        // As it came out, it goes in again.
        put(json!({"value": want.0, "encoding": want.1})).status(200).await;
        assert_eq!(everywhere(&server, &app, "local", &name).await, of(3));
    }
}

#[tokio::test]
async fn any_name_that_the_management_plane_took_is_read_on_the_others() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let long = "ü".repeat(200);
    let names = [
        "db/password",
        "a%2Fb",
        "a b?c#d&e=f+g;h",
        "🔑 of the 🏠",
        "ab\u{200f}cd\u{202e}ef",
        "...",
        "\\back\\slash",
        "'; DROP TABLE secrets; --",
        &long,
    ];
    for name in names {
        app.secret(name).await;
        app.set(&segment(name), "local", name, json!({})).await;
        assert_eq!(
            everywhere(&server, &app, "local", name).await,
            Some(text(name, 1)),
            "{name}"
        );
        let found = app
            .admin("GET", &format!("/secrets/{}", segment(name)))
            .status(200)
            .await;
        assert_eq!(found.body["name"], name);
        assert_eq!(numbers(&server, &app, "local", name).await, [1]);
        // The organization plane makes no such name, and goes on with one that is there.
        let path = format!("{O}/projects/shop/envs/local/secrets/{}", segment(name));
        server
            .admin("PUT", &path)
            .json(json!({"value": "next"}))
            .status(200)
            .await;
        assert_eq!(
            everywhere(&server, &app, "local", name).await,
            Some(text("next", 2)),
            "{name}"
        );
    }
    let listed = server
        .admin("GET", &format!("{O}/projects/shop/envs/local/secrets"))
        .status(200)
        .await;
    assert_eq!(slugs(&listed, "key"), names.iter().map(ToString::to_string).collect());
    assert_eq!(
        slugs(&app.admin("GET", "/secrets").status(200).await, "name"),
        slugs(&listed, "key")
    );
}

#[tokio::test]
async fn a_key_reads_its_own_application_and_no_other() {
    let server = Server::start().await;
    let (one, two) = (server.application("one").await, server.application("two").await);
    for (app, value) in [(&one, "first"), (&two, "second")] {
        app.secret("k").await;
        app.set("k", "local", value, json!({})).await;
        let entry = json!({"environmentSlug": "local", "key": "c", "value": value});
        app.admin("POST", "/configurations").json(entry).status(201).await;
    }
    for (app, value) in [(&one, "first"), (&two, "second")] {
        assert_eq!(everywhere(&server, app, "local", "k").await, Some(text(value, 1)));
        let entry = app.consumer("/configurations/c?environment=local").status(200).await;
        assert_eq!(entry.body["value"], value);
    }
    // A project of the organization plane gets its key when somebody asks for one.
    server
        .admin("POST", &format!("{O}/projects"))
        .json(json!({"name": "three"}))
        .status(201)
        .await;
    server.put("three", "dev", "k", "third").await;
    let key = server
        .admin("POST", &format!("{M}/three/rotate-key"))
        .status(200)
        .await
        .text_at("plainApiKey");
    let read = |path: &str| server.call("GET", &format!("/api/consumer{path}")).key(&key);
    assert_eq!(
        read("/secrets/k?environment=dev").status(200).await.body["value"],
        "third"
    );
    read("/secrets/k?environment=local").problem(404, "not_found").await;
    one.consumer("/secrets/k?environment=dev")
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn the_management_plane_sees_its_own_organization_only() {
    let server = Server::start().await;
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "elsewhere"}))
        .status(201)
        .await;
    let projects = "/api/orgs/elsewhere/projects";
    server
        .admin("POST", projects)
        .json(json!({"name": "shop"}))
        .status(201)
        .await;
    server
        .admin("GET", &format!("{M}/shop"))
        .problem(404, "not_found")
        .await;
    assert!(server.admin("GET", M).status(200).await.list().is_empty());
    // The same name is free here, and means another one.
    let app = server.application("shop").await;
    server.admin("DELETE", &format!("{projects}/shop")).status(204).await;
    app.admin("GET", "").status(200).await;
}
