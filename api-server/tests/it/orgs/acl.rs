use serde_json::json;
use uuid::Uuid;

use crate::support::{O, Server};

#[tokio::test]
async fn a_rule_is_granted_changed_and_revoked() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let path = format!("{O}/acl");
    let rule = |permission: &str| {
        json!({
            "subject_type": "service_account", "subject_id": account.id, "project_pattern": "api-{v1,v2}",
            "env_pattern": "*-prod", "permission": permission,
        })
    };
    let made = server.admin("POST", &path).json(rule("read")).status(201).await;
    assert_eq!(
        (&made.body["key_pattern"], &made.body["configurations"]),
        (&json!("*"), &json!(false))
    );
    assert_eq!(
        server.admin("GET", made.header("location")).status(200).await.body,
        made.body
    );
    let changed = server.admin("POST", &path).json(rule("write")).status(200).await;
    assert_eq!(
        (&changed.body["id"], &changed.body["permission"]),
        (&made.body["id"], &json!("write"))
    );
    assert_eq!(
        server.admin("GET", &path).status(200).await.list(),
        std::slice::from_ref(&changed.body)
    );
    server.admin("DELETE", made.header("location")).status(204).await;
    server
        .admin("DELETE", made.header("location"))
        .problem(404, "not_found")
        .await;
    assert!(server.admin("GET", &path).status(200).await.list().is_empty());
}

#[tokio::test]
async fn rules_are_checked() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let grant = |field: &str, value: serde_json::Value| {
        let mut rule = json!({
            "subject_type": "service_account", "subject_id": account.id, "project_pattern": "*", "env_pattern": "*",
            "permission": "read",
        });
        if value.is_null() {
            rule.as_object_mut().unwrap().remove(field);
        } else {
            rule[field] = value;
        }
        server.admin("POST", &format!("{O}/acl")).json(rule)
    };
    for field in [
        "project_pattern",
        "env_pattern",
        "permission",
        "subject_type",
        "subject_id",
    ] {
        grant(field, json!(null)).invalid(field).await;
    }
    grant("project_pattern", json!("{a,{b,c}}"))
        .invalid("project_pattern")
        .await;
    grant("key_pattern", json!("a".repeat(257)))
        .invalid("key_pattern")
        .await;
    grant("permission", json!("owner")).invalid("permission").await;
    grant("subject_id", json!("not-a-uuid")).invalid("subject_id").await;
    grant("email", json!("a@b.c")).invalid("email").await;
    grant("subject_id", json!(Uuid::now_v7()))
        .problem(404, "not_found")
        .await;
    grant("subject_type", json!("user")).problem(404, "not_found").await;
}

#[tokio::test]
async fn rules_are_listed_by_subject_and_in_pieces() {
    let server = Server::start().await;
    let (one, two) = (server.account("one", &[]).await, server.account("two", &[]).await);
    let mut ids = vec![];
    for key in ["a", "b", "c"] {
        ids.push(server.grant(&one.id, ["shop", "*", key, "read"]).await);
    }
    let other = server.grant(&two.id, ["shop", "*", "a", "read"]).await;
    let list = async |query: &str| -> Vec<String> {
        let reply = server.admin("GET", &format!("{O}/acl{query}")).status(200).await;
        let id = |rule: &serde_json::Value| rule["id"].as_str().unwrap().to_owned();
        reply.list().iter().map(id).collect()
    };
    let all = [&ids[..], std::slice::from_ref(&other)].concat();
    assert_eq!(list("").await, all);
    assert_eq!(list("?subject_type=service_account").await, all);
    assert!(list("?subject_type=user").await.is_empty());
    assert_eq!(list(&format!("?subject_id={}", one.id)).await, ids);
    assert_eq!(
        list(&format!("?subject_type=service_account&subject_id={}", two.id)).await,
        [other]
    );
    assert!(
        list(&format!("?subject_type=user&subject_id={}", one.id))
            .await
            .is_empty()
    );
    assert!(list(&format!("?subject_id={}", Uuid::now_v7())).await.is_empty());

    assert_eq!(list("?limit=2").await, all[..2]);
    // A place to go on from outlives the rule that it names.
    server.admin("DELETE", &format!("{O}/acl/{}", all[1])).status(204).await;
    assert_eq!(list(&format!("?limit=2&after={}", all[1])).await, all[2..]);
    assert_eq!(
        list(&format!("?limit=1&subject_id={}&after={}", one.id, all[1])).await,
        all[2..3]
    );
    assert!(list(&format!("?after={}", all[3])).await.is_empty());

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=x", "after"),
        ("subject_id=x", "subject_id"),
        ("subject_type=group", "subject_type"),
        ("subject_type=user&subject_type=user", "subject_type"),
    ] {
        server.admin("GET", &format!("{O}/acl?{query}")).invalid(field).await;
    }
}
