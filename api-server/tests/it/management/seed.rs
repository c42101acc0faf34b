//! The text that the management and consumer planes were specified by, where no other file has the sentence.

use serde_json::{Value, json};

use crate::support::{Application, M, O, Reply, Server, time};

/// The names of an object's fields, in the order of the alphabet.
fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn all<'r>(reply: &'r Reply, field: &str) -> Vec<&'r str> {
    reply.list().iter().map(|item| item[field].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_answer_has_the_fields_of_the_contract_and_no_others() {
    let server = Server::start().await;
    let made = server.admin("POST", M).json(json!({"name": "Shop"})).status(201).await;
    assert_eq!(
        fields(&made.body),
        [
            "createdAt",
            "description",
            "id",
            "labels",
            "name",
            "plainApiKey",
            "slug"
        ]
    );
    let application = ["createdAt", "description", "id", "labels", "name", "slug", "updatedAt"];
    assert_eq!(fields(&server.admin("GET", M).status(200).await.body[0]), application);
    let app = Application::new(&server, "shop", &made.text_at("plainApiKey"));
    assert_eq!(fields(&app.admin("GET", "").status(200).await.body), application);
    let update = app.admin("PUT", "").json(json!({"name": "Shop"})).status(200).await;
    assert_eq!(fields(&update.body), application);
    let rotated = app.admin("POST", "/rotate-key").status(200).await;
    assert_eq!(fields(&rotated.body), ["plainApiKey"]);
    let app = Application::new(&server, "shop", &rotated.text_at("plainApiKey"));

    let environment = ["createdAt", "id", "labels", "name", "slug"];
    let made = app.admin("POST", "/environments").json(json!({"name": "Prod"}));
    assert_eq!(fields(&made.status(201).await.body), environment);
    let listed = app.admin("GET", "/environments").status(200).await;
    assert_eq!(fields(&listed.body[0]), environment);

    let made = app.secret("db").await;
    let secret = [
        "createdAt",
        "description",
        "id",
        "name",
        "requiredEnvironments",
        "updatedAt",
    ];
    assert_eq!(fields(&made.body), secret);
    assert_eq!(
        fields(&made.body["requiredEnvironments"][0]),
        ["name", "slug", "valueProvided"]
    );
    assert_eq!(fields(&app.admin("GET", "/secrets/db").status(200).await.body), secret);
    let listed = app.admin("GET", "/secrets").status(200).await;
    assert_eq!(
        fields(&listed.body[0]),
        ["createdAt", "description", "id", "name", "updatedAt"]
    );
    app.set("db", "local", "v", json!({})).await;
    let version = ["createdAt", "expiresAt", "id", "isEnabled", "notBefore", "version"];
    let listed = app.admin("GET", "/secrets/db/versions/local").status(200).await;
    assert_eq!(fields(&listed.body[0]), version);
    let patched = app.admin("PATCH", "/secrets/db/versions/local/1").json(json!({}));
    assert_eq!(patched.status(200).await.body, listed.body[0]);

    let entry = json!({"environmentSlug": "local", "key": "k", "value": "v"});
    let made = app.admin("POST", "/configurations").json(entry).status(201).await;
    let configuration = [
        "createdAt",
        "description",
        "environmentSlug",
        "id",
        "key",
        "updatedAt",
        "value",
    ];
    assert_eq!(fields(&made.body), configuration);
    assert_eq!(
        app.admin("GET", "/configurations").status(200).await.body,
        json!([made.body])
    );

    let read = app.consumer("/secrets/db?environment=local").status(200).await;
    assert_eq!(fields(&read.body), ["name", "properties", "value"]);
    let properties = [
        "createdOn",
        "enabled",
        "encoding",
        "expiresOn",
        "notBefore",
        "updatedOn",
        "version",
    ];
    assert_eq!(fields(&read.body["properties"]), properties);
    let read = app.consumer("/configurations?environment=local").status(200).await;
    assert_eq!(fields(&read.body), ["items"]);
    assert_eq!(fields(&read.body["items"][0]), ["key", "label", "value"]);
}

#[tokio::test]
async fn a_key_is_grm_and_forty_hex_digits_and_shown_once() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let rotated = app
        .admin("POST", "/rotate-key")
        .status(200)
        .await
        .text_at("plainApiKey");
    for key in [&app.key, &rotated] {
        let digits = key.strip_prefix("grm_").unwrap();
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        assert!(digits.len() == 40 && digits.bytes().all(hex), "{key}");
        for path in ["", "/environments", "/secrets"] {
            assert!(!app.admin("GET", path).status(200).await.text.contains(&key[..12]));
        }
        assert!(!server.admin("GET", M).status(200).await.text.contains(&key[..12]));
    }
}

#[tokio::test]
async fn what_is_optional_may_be_left_out_or_null() {
    let server = Server::start().await;
    for more in [json!({}), json!({"description": null, "slug": null})] {
        let mut body = json!({"name": "Shop"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = server.admin("POST", M).json(body).status(201).await;
        assert!(made.body["description"].is_null());
        assert_eq!(made.text_at("slug"), "shop");
        server.admin("DELETE", &format!("{M}/shop")).status(204).await;
    }
    let app = server.application("bank").await;
    let body = json!({"name": "db", "description": null});
    let made = app.admin("POST", "/secrets").json(body).status(201).await;
    assert!(made.body["description"].is_null());
    let body = json!({"environmentSlug": "local", "key": "k", "value": "v", "description": null});
    let made = app.admin("POST", "/configurations").json(body).status(201).await;
    assert!(made.body["description"].is_null());
}

#[tokio::test]
async fn names_of_one_slug_are_one_name_and_lists_are_by_it() {
    let server = Server::start().await;
    for name in ["Shop", "bank", "Über 9"] {
        server.admin("POST", M).json(json!({"name": name})).status(201).await;
    }
    let app = server.application("apple").await;
    for (path, body) in [
        (M.to_owned(), json!({"name": "shop!"})),
        (M.to_owned(), json!({"name": "Other", "slug": "shop"})),
        (format!("{M}/apple/environments"), json!({"name": "LOCAL"})),
        (
            format!("{M}/apple/environments"),
            json!({"name": "Other", "slug": "local"}),
        ),
    ] {
        server.admin("POST", &path).json(body).problem(409, "conflict").await;
    }
    let listed = server.admin("GET", M).status(200).await;
    assert_eq!(all(&listed, "slug"), ["apple", "bank", "ber-9", "shop"]);
    for name in ["Zulu", "Alpha"] {
        let body = json!({"name": name});
        app.admin("POST", "/environments").json(body).status(201).await;
        app.secret(name).await;
    }
    let listed = app.admin("GET", "/environments").status(200).await;
    assert_eq!(all(&listed, "slug"), ["alpha", "local", "zulu"]);
    assert_eq!(
        all(&app.admin("GET", "/secrets").status(200).await, "name"),
        ["Alpha", "Zulu"]
    );
    for (environment, key) in [("zulu", "a"), ("alpha", "z"), ("alpha", "b")] {
        let entry = json!({"environmentSlug": environment, "key": key, "value": "v"});
        app.admin("POST", "/configurations").json(entry).status(201).await;
    }
    let listed = app.admin("GET", "/configurations").status(200).await;
    assert_eq!(all(&listed, "environmentSlug"), ["alpha", "alpha", "zulu"]);
    assert_eq!(all(&listed, "key"), ["b", "z", "a"]);
}

#[tokio::test]
async fn what_was_in_a_deleted_application_is_not_in_the_next_one_of_its_slug() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.admin("POST", "/environments")
        .json(json!({"name": "Prod"}))
        .status(201)
        .await;
    app.secret("db").await;
    app.set("db", "prod", "v", json!({})).await;
    let entry = json!({"environmentSlug": "prod", "key": "k", "value": "v"});
    app.admin("POST", "/configurations").json(entry).status(201).await;
    app.admin("DELETE", "").status(204).await;
    for path in [
        "/environments",
        "/secrets",
        "/secrets/db",
        "/secrets/db/versions/prod",
        "/configurations",
        "/configurations/prod/k",
    ] {
        app.admin("GET", path).problem(404, "not_found").await;
    }
    let app = server.application("shop").await;
    let listed = app.admin("GET", "/environments").status(200).await;
    assert_eq!(all(&listed, "slug"), ["local"]);
    for path in ["/secrets", "/configurations"] {
        assert_eq!(app.admin("GET", path).status(200).await.body, json!([]));
    }
}

#[tokio::test]
async fn whatever_is_done_to_what_is_not_there_is_not_found() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let (name, entry) = (
        json!({"name": "n"}),
        json!({"environmentSlug": "local", "key": "k", "value": "v"}),
    );
    let values = json!([{"environmentSlug": "local", "value": "v"}]);
    for (method, path, body) in [
        ("PUT", "no", Some(&name)),
        ("DELETE", "no", None),
        ("POST", "no/rotate-key", None),
        ("POST", "no/environments", Some(&name)),
        ("GET", "no/environments/local", None),
        ("PUT", "shop/environments/no", Some(&name)),
        ("DELETE", "no/environments/local", None),
        ("GET", "no/secrets", None),
        ("POST", "no/secrets", Some(&name)),
        ("GET", "no/secrets/db", None),
        ("DELETE", "no/secrets/db", None),
        ("DELETE", "shop/secrets/no", None),
        ("POST", "no/secrets/db/values", Some(&values)),
        ("POST", "no/configurations", Some(&entry)),
        ("GET", "shop/configurations/no/k", None),
        ("GET", "shop/configurations/local/no", None),
        ("PUT", "shop/configurations/no/k", Some(&json!({"value": "v"}))),
        ("DELETE", "shop/configurations/local/no", None),
        ("DELETE", "shop/configurations/no/k", None),
    ] {
        let call = server.admin(method, &format!("{M}/{path}"));
        let call = match body {
            Some(body) => call.json(body.clone()),
            None => call,
        };
        call.problem(404, "not_found").await;
    }
}

#[tokio::test]
async fn a_secret_tells_in_which_of_all_environments_it_has_a_value() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    for name in ["Staging", "Dev"] {
        let body = json!({"name": name});
        app.admin("POST", "/environments").json(body).status(201).await;
    }
    let made = app.secret("db").await;
    let provided = |local: bool, staging: bool| {
        json!([
            {"slug": "dev", "name": "Dev", "valueProvided": false},
            {"slug": "local", "name": "Local", "valueProvided": local},
            {"slug": "staging", "name": "Staging", "valueProvided": staging},
        ])
    };
    assert_eq!(made.body["requiredEnvironments"], provided(false, false));
    app.set("db", "local", "v", json!({})).await;
    // Set is set, though it cannot be read now.
    app.set("db", "staging", "v", json!({"isEnabled": false})).await;
    let read = app.admin("GET", "/secrets/db").status(200).await;
    assert_eq!(read.body["requiredEnvironments"], provided(true, true));
    app.admin("DELETE", "/environments/staging").status(204).await;
    let read = app.admin("GET", "/secrets/db").status(200).await;
    assert_eq!(read.body["requiredEnvironments"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn values_are_set_as_the_text_has_it() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let staging = json!({"name": "Staging"});
    app.admin("POST", "/environments").json(staging).status(201).await;
    app.secret("db").await;
    let body = json!([
        {"environmentSlug": "local", "value": "dev-password-123", "isEnabled": true, "expiresAt": null, "notBefore": null},
        {"environmentSlug": "staging", "value": "stg-password-456", "isEnabled": true, "expiresAt": "2025-12-31T23:59:59Z"},
    ]);
    let set = app.admin("POST", "/secrets/db/values").json(body).status(200).await;
    assert_eq!(set.text, "");
    let read = app.consumer("/secrets/db?environment=local").status(200).await;
    assert_eq!(read.body["value"], "dev-password-123");
    let listed = app.admin("GET", "/secrets/db/versions/staging").status(200).await;
    assert_eq!(listed.body[0]["expiresAt"], "2025-12-31T23:59:59Z");
    let metadata = app.admin("GET", "/secrets/db").status(200).await.text + &listed.text;
    assert!(!metadata.contains("password-"), "{metadata}");
    // Enough for any application, and nothing that a mistake could not exceed.
    let item = json!({"environmentSlug": "local", "value": "v"});
    let many = Value::Array(vec![item; 1_001]);
    app.admin("POST", "/secrets/db/values").json(many).invalid("body").await;
    assert_eq!(
        app.admin("GET", "/secrets/db/versions/local")
            .status(200)
            .await
            .list()
            .len(),
        1
    );
}

#[tokio::test]
async fn lengths_are_counted_in_characters() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    // Two bytes each, and four: neither bytes nor UTF-16 units are what is counted.
    for letter in ["é", "𝕊"] {
        let text = |count: usize| letter.repeat(count);
        let create = |name: String, slug: &str| server.admin("POST", M).json(json!({"name": name, "slug": slug}));
        let slug = format!("longest-{}", letter.len());
        let made = create(text(200), &slug).status(201).await;
        assert_eq!(made.text_at("name"), text(200));
        create(text(201), "longer").invalid("name").await;
        let path = format!("{M}/{slug}");
        let put = |body: Value| server.admin("PUT", &path).json(body);
        let put_ok = json!({"name": text(200), "description": text(1_000)});
        assert_eq!(put(put_ok).status(200).await.text_at("description"), text(1_000));
        put(json!({"name": text(201)})).invalid("name").await;
        put(json!({"name": "n", "description": text(1_001)}))
            .invalid("description")
            .await;

        let create = |name: String| {
            let body = json!({"name": name, "slug": format!("env-{}", letter.len())});
            app.admin("POST", "/environments").json(body)
        };
        create(text(101)).invalid("name").await;
        assert_eq!(create(text(100)).status(201).await.text_at("name"), text(100));
        let create = |key: String| {
            let entry = json!({"environmentSlug": "local", "key": key, "value": text(1)});
            app.admin("POST", "/configurations").json(entry)
        };
        create(text(501)).invalid("key").await;
        let made = create(text(500)).status(201).await;
        let read = server.admin("GET", made.header("location")).status(200).await;
        assert_eq!(read.text_at("key"), text(500));
    }
    let slug = |length: usize| json!({"name": "n", "slug": "a".repeat(length)});
    server.admin("POST", M).json(slug(201)).invalid("slug").await;
    server.admin("POST", M).json(slug(200)).status(201).await;
    app.admin("POST", "/environments").json(slug(101)).invalid("slug").await;
    app.admin("POST", "/environments").json(slug(100)).status(201).await;
}

#[tokio::test]
async fn names_in_any_script_are_kept_as_they_are_given() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    for (at, name) in [
        "Zahlungen für Köln",
        "決済 API",
        "🛒 shop 👩‍💻",
        "\u{200f}مدفوعات\u{200e} x",
        "a\u{202e}b\u{202c}c",
        "e\u{301}",
        "  spaced  ",
        "a/b\\c?d#e%2Ff",
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"name": name, "slug": format!("n{at}"), "description": name});
        let made = server.admin("POST", M).json(body.clone()).status(201).await;
        let read = server.admin("GET", made.header("location")).status(200).await;
        assert_eq!(
            (read.text_at("name"), read.text_at("description")),
            (name.into(), name.into())
        );
        let body = json!({"name": name, "slug": format!("n{at}")});
        let made = app.admin("POST", "/environments").json(body).status(201).await;
        let read = server.admin("GET", made.header("location")).status(200).await;
        assert_eq!(read.text_at("name"), name);
        let made = app.secret(name).await;
        let read = server.admin("GET", made.header("location")).status(200).await;
        assert_eq!(read.text_at("name"), name);
        let entry = json!({"environmentSlug": "local", "key": name, "value": name});
        let made = app.admin("POST", "/configurations").json(entry).status(201).await;
        let read = server.admin("GET", made.header("location")).status(200).await;
        assert_eq!((read.text_at("key"), read.text_at("value")), (name.into(), name.into()));
        // What was made by its place goes by it too.
        server.admin("DELETE", made.header("location")).status(204).await;
    }
    // A name of which nothing is left has no place, unless it is given one.
    for name in ["!!!", "🔑", "مفتاح", "___", "-", "…"] {
        server
            .admin("POST", M)
            .json(json!({"name": name}))
            .invalid("name")
            .await;
        app.admin("POST", "/environments")
            .json(json!({"name": name}))
            .invalid("name")
            .await;
    }
    for slug in ["", "-", "A", "a_b", "é", "a b", "a--b", "\u{200f}a"] {
        let body = json!({"name": "n", "slug": slug});
        server.admin("POST", M).json(body.clone()).invalid("slug").await;
        app.admin("POST", "/environments").json(body).invalid("slug").await;
    }
    // The organization plane's names are labels, and its free text is as free.
    for name in ["ä", "🛒", "a\u{200f}b", "a/b", "", "a b"] {
        let body = json!({"name": name});
        let projects = format!("{O}/projects");
        server.admin("POST", &projects).json(body.clone()).invalid("name").await;
        let environments = format!("{projects}/shop/envs");
        server.admin("POST", &environments).json(body).invalid("name").await;
    }
}

#[tokio::test]
async fn a_change_of_a_configuration_follows_the_rules_of_a_new_one() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let entry = json!({"environmentSlug": "local", "key": "a/b c", "value": "v", "description": "d"});
    let made = app.admin("POST", "/configurations").json(entry).status(201).await;
    let put = |body: Value| server.admin("PUT", made.header("location")).json(body);
    put(json!({})).invalid("value").await;
    put(json!({"value": null})).invalid("value").await;
    put(json!({"value": ""})).invalid("value").await;
    put(json!({"value": 1})).invalid("value").await;
    put(json!({"value": "v", "key": "other"})).invalid("key").await;
    put(json!({"value": "v", "description": "d".repeat(1_001)}))
        .invalid("description")
        .await;
    let read = server.admin("GET", made.header("location")).status(200).await;
    assert_eq!(read.body, made.body);
    let changed = put(json!({"value": "w", "description": ""})).status(200).await;
    assert_eq!(changed.text_at("description"), "", "empty is a text, too");
    assert_eq!(
        (&changed.body["id"], &changed.body["createdAt"]),
        (&made.body["id"], &made.body["createdAt"])
    );
}

#[tokio::test]
async fn an_application_reads_all_of_its_environments_and_writes_nothing() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let body = json!({"name": "Prod"});
    app.admin("POST", "/environments").json(body).status(201).await;
    app.secret("db").await;
    let (begin, end) = (time(-3_600_000), time(3_600_000));
    let window = json!({"notBefore": begin, "expiresAt": end});
    app.set("db", "local", "one", json!({})).await;
    app.set("db", "prod", "two", window).await;
    let listed = app.admin("GET", "/secrets/db/versions/prod").status(200).await;
    let version = &listed.body[0];
    let read = app.consumer("/secrets/db?environment=prod").status(200).await;
    assert_eq!(read.body["value"], "two");
    let properties = &read.body["properties"];
    for (theirs, ours) in [
        ("createdOn", "createdAt"),
        ("expiresOn", "expiresAt"),
        ("notBefore", "notBefore"),
        ("enabled", "isEnabled"),
        ("version", "version"),
    ] {
        assert_eq!(properties[theirs], version[ours], "{theirs}");
    }
    let read = app.consumer("/secrets/db?environment=local").status(200).await;
    assert_eq!(read.body["value"], "one");
    assert!(read.body["properties"]["expiresOn"].is_null());

    for query in [
        "",
        "?environment=",
        "?environment",
        "?environment=local&environment=prod",
    ] {
        for path in ["/secrets/db", "/configurations", "/configurations/k"] {
            app.consumer(&format!("{path}{query}")).invalid("environment").await;
        }
    }
    app.consumer("/secrets/db?environment=local&version=1")
        .invalid("version")
        .await;
    for path in ["secrets/db", "configurations", "configurations/k"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let call = server.call(method, &format!("/api/consumer/{path}?environment=local"));
            let refused = call.key(&app.key).problem(405, "method_not_allowed").await;
            assert!(refused.header("allow").contains("GET"));
        }
    }
    // No list of secrets, and nothing else.
    app.consumer("/secrets?environment=local")
        .problem(404, "not_found")
        .await;
    app.consumer("").problem(404, "not_found").await;
}
