//! Secrets of others, and what cannot be written.

use super::*;

#[tokio::test]
async fn a_secret_of_somebody_else_is_never_written() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy", "deletionPolicy": "Delete"}));
    for labels in [json!({}), json!({COPY_OF_LABEL: "uid-of-an-earlier-binding"})] {
        let foreign = json!({"kind": "Secret", "metadata": {"name": "copy", "uid": "x", "labels": labels}, "data": {"a": "eA=="}});
        world.kube.put(COPY, foreign);
        let outcome = look(&world, &object).await.unwrap().unwrap();
        assert_eq!(outcome.condition.reason, reasons::SECRET_NOT_OWNED);
        let message = outcome.condition.message;
        assert!(
            message.contains("label --overwrite secret copy sealpod.dev/copy-of=uid"),
            "{message}"
        );
        assert!(outcome.copy.is_none(), "no workload follows it");
        clean_up(&object, &world.context).await.unwrap();
        assert_eq!(text(&world, "a").as_deref(), Some("x"));
    }
    assert_eq!((world.kube.take_writes().len(), reads(&world).await), (0, 0));
    // Whoever may write it hands it over.
    let mut foreign = world.kube.get(COPY).unwrap();
    foreign["metadata"]["labels"][COPY_OF_LABEL] = json!("uid");
    world.kube.put(COPY, foreign);
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    assert_eq!(text(&world, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn one_that_appears_between_two_looks_is_not_written() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    world
        .kube
        .refuse("POST /api/v1/namespaces/shop/secrets", 409, "AlreadyExists");
    assert!(matches!(look(&world, &object).await, Err(Error::NotNow(_))));
    world.kube.allow();
    look(&world, &object).await.unwrap();
    // Changed between reading and writing.
    has(&world, "e2", &[("a", "2", 2)]).await;
    world.kube.refuse(&format!("PUT {COPY}"), 409, "Conflict");
    assert!(matches!(look(&world, &object).await, Err(Error::NotNow(_))));
    assert_eq!(text(&world, "a").as_deref(), Some("1"));
}

/// R12.
#[tokio::test]
async fn no_failure_of_the_server_deletes_or_blanks_the_secret() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy", "deletionPolicy": "Delete"}));
    look(&world, &object).await.unwrap();
    let before = world.kube.get(COPY);
    world.kube.take_writes();
    for (status, body) in [
        (404, json!({})),
        (403, json!({})),
        (401, json!({})),
        (500, json!({})),
        (200, json!({})),
        (200, json!("")),
        (200, json!({"etag": "e9", "next_change_at": null, "secrets": {}})),
    ] {
        world.server.reset().await;
        world.answers("GET", BUNDLE, status, body.clone()).await;
        // Whatever it comes to.
        let _ = look(&world, &object).await;
        world.context.copies.compared.forget("uid");
        assert_eq!(world.kube.get(COPY), before, "{status} {body}");
    }
    // The state moves, and the values cannot be read.
    for status in [404, 403, 401, 500] {
        world.server.reset().await;
        let moved = json!({"etag": "e2", "next_change_at": null, "secrets": {"a": {"version": 2}}});
        wiremock::Mock::given(wiremock::matchers::query_param("values", "false"))
            .respond_with(wiremock::ResponseTemplate::new(200).set_body_json(moved))
            .mount(&world.server)
            .await;
        world.answers("GET", BUNDLE, status, json!({})).await;
        assert!(look(&world, &object).await.is_err(), "{status}");
        assert_eq!(world.kube.get(COPY), before, "{status}");
    }
    assert_eq!(world.kube.take_writes(), [""; 0]);
}

#[tokio::test]
async fn values_that_are_too_much_for_one_answer_are_told_and_what_is_there_stays() {
    let world = world().await;
    has(&world, "e1", &[("password", "hunter2", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    look(&world, &object).await.unwrap();
    world.server.reset().await;
    let names = json!({"etag": "e2", "next_change_at": null, "secrets": {"password": {"version": 2}}});
    wiremock::Mock::given(wiremock::matchers::query_param("values", "false"))
        .respond_with(wiremock::ResponseTemplate::new(200).set_body_json(names))
        .mount(&world.server)
        .await;
    let refusal = async |field: &str| {
        let problem = json!({"status": 400, "code": "validation_failed", "errors": {field: ["is wrong"]}}).to_string();
        let refused =
            wiremock::ResponseTemplate::new(400).set_body_raw(problem, sealpod_core::wire::problem::CONTENT_TYPE);
        let any = wiremock::Mock::given(wiremock::matchers::any());
        any.respond_with(refused).up_to_n_times(1).mount(&world.server).await;
    };
    refusal("version").await;
    let error = look(&world, &object).await.err().unwrap();
    assert_eq!(
        error.reason(),
        reasons::SERVER_REFUSED,
        "another rejection is what it is"
    );
    refusal("key").await;
    for _ in 0..3 {
        assert_eq!(condition(&world, &object).await, (Status::False, reasons::TOO_LARGE));
    }
    assert_eq!(
        reads(&world).await,
        2,
        "values that are too much are not asked for again"
    );
    assert_eq!(text(&world, "password").as_deref(), Some("hunter2"));
}

#[tokio::test]
async fn what_cannot_be_written_is_told_without_reading_it_again_and_again() {
    let world = world().await;
    has(&world, "e1", &[("tls.crt", "1", 1)]).await;
    let object = binding(&json!({"name": "copy", "type": "kubernetes.io/tls"}));
    for _ in 0..3 {
        assert_eq!(
            condition(&world, &object).await,
            (Status::False, reasons::SECRETS_MISSING)
        );
    }
    assert_eq!((world.kube.get(COPY), reads(&world).await), (None, 1));
    has(&world, "e2", &[("tls.crt", "1", 1), ("tls.key", "1", 1)]).await;
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
}

#[tokio::test]
async fn what_kubernetes_refuses_is_told_without_its_words() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid")] {
        world.kube.refuse("POST /api/v1/namespaces/shop/secrets", code, reason);
        let outcome = look(&world, &object).await.unwrap().unwrap();
        assert_eq!(outcome.condition.reason, reasons::KUBERNETES_REFUSED);
        let message = outcome.condition.message;
        assert!(
            message.contains(reason) && !message.contains("as a test wants it"),
            "{message}"
        );
    }
    world
        .kube
        .refuse("POST /api/v1/namespaces/shop/secrets", 500, "InternalError");
    let error = look(&world, &object).await.err().unwrap();
    assert!(!error.to_string().contains("as a test wants it"), "{error}");
}

#[tokio::test]
async fn another_type_and_what_was_made_immutable_are_made_anew() {
    let world = world().await;
    has(&world, "e1", &[("password", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy"}))).await.unwrap();
    let other = binding(&json!({"name": "copy", "type": "kubernetes.io/basic-auth"}));
    assert_eq!(condition(&world, &other).await, (Status::True, "Synced"));
    assert_eq!(world.kube.get(COPY).unwrap()["type"], "kubernetes.io/basic-auth");
    let mut immutable = world.kube.get(COPY).unwrap();
    immutable["immutable"] = json!(true);
    world.kube.put(COPY, immutable);
    has(&world, "e2", &[("password", "2", 2)]).await;
    assert_eq!(condition(&world, &other).await, (Status::True, "Synced"));
    let secret = world.kube.get(COPY).unwrap();
    assert_eq!(
        (text(&world, "password").as_deref(), &secret["immutable"]),
        (Some("2"), &json!(null))
    );
}

#[tokio::test]
async fn a_secret_that_could_not_be_made_anew_is_not_deleted() {
    let world = world().await;
    has(&world, "e1", &[("password", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy"}))).await.unwrap();
    let before = world.kube.get(COPY).unwrap();
    world.kube.take_writes();
    let other = binding(&json!({"name": "copy", "type": "kubernetes.io/basic-auth"}));
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid")] {
        world.kube.refuse("POST /api/v1/namespaces/shop/secrets", code, reason);
        let outcome = look(&world, &other).await.unwrap().unwrap();
        assert_eq!(outcome.condition.reason, reasons::KUBERNETES_REFUSED);
        assert!(
            outcome.condition.message.contains("stays as it was"),
            "{}",
            outcome.condition.message
        );
    }
    world
        .kube
        .refuse("POST /api/v1/namespaces/shop/secrets", 500, "InternalError");
    assert!(look(&world, &other).await.is_err());
    assert_eq!(world.kube.get(COPY).unwrap(), before);
    let deletes = world
        .kube
        .take_writes()
        .into_iter()
        .filter(|write| write.starts_with("DELETE"));
    assert_eq!(deletes.count(), 0);
    world.kube.allow();
    assert_eq!(condition(&world, &other).await, (Status::True, "Synced"));
    assert_eq!(world.kube.get(COPY).unwrap()["type"], "kubernetes.io/basic-auth");
}
