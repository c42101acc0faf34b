use std::collections::BTreeSet;

use futures::{FutureExt, StreamExt};
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::matchers::{method, path, query_param, query_param_is_missing};
use wiremock::{Mock, ResponseTemplate};

use super::*;
use crate::controller::binding::world::{World, world};

const FEED: &str = "/api/management/changes";

fn application(namespace: &str, name: &str, slug: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "uid": name}, "spec": {"slug": slug}})
}

fn environment(name: &str, application: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"applicationRef": {"name": application}}})
}

fn binding(namespace: &str, name: &str, extra: &Value) -> Value {
    let mut spec = json!({"applicationRef": {"name": "app", "namespace": "shop"}, "environment": "prod"});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}")}, "spec": spec})
}

fn stored<K>(objects: Vec<Value>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}

fn stores() -> Stores {
    Stores {
        applications: stored(vec![
            application("shop", "app", "shop-app"),
            application("shop", "other", "other"),
        ]),
        environments: stored(vec![environment("prod", "app"), environment("dev", "app")]),
        bindings: stored(vec![
            binding("shop", "all", &json!({})),
            binding(
                "shop",
                "named",
                &json!({"secrets": [{"name": "a"}, {"pattern": "tls-*"}]}),
            ),
            binding("shop", "dev", &json!({"environment": "dev", "configurations": {}})),
            binding("team", "elsewhere", &json!({"secrets": [{"name": "b"}]})),
            binding("shop", "others", &json!({"applicationRef": {"name": "other"}})),
        ]),
    }
}

fn change(kind: &str, name: &str, environment: Option<&str>) -> Change {
    let change = json!({
        "kind": kind, "id": Uuid::from_u128(1), "deleted": false, "name": name, "application": "shop-app",
        "environment": environment,
    });
    serde_json::from_value(change).unwrap()
}

fn names(concerned: Concerned) -> [BTreeSet<String>; 3] {
    let of = |names: Vec<String>| names.into_iter().collect();
    [
        of(concerned.applications.into_iter().map(|o| o.name).collect()),
        of(concerned.environments.into_iter().map(|o| o.name).collect()),
        of(concerned.bindings.into_iter().map(|o| o.name).collect()),
    ]
}

fn told(changes: &[Change]) -> [BTreeSet<String>; 3] {
    let stores = stores();
    let objects = Objects {
        applications: stores.applications.state(),
        environments: stores.environments.state(),
        bindings: stores.bindings.state(),
    };
    let account_of = |uid: &str| (uid == "uid-named").then(|| Uuid::from_u128(7));
    names(concerned::concerned(
        &changes.iter().collect::<Vec<_>>(),
        &objects,
        "cluster",
        account_of,
    ))
}

#[test]
fn a_change_concerns_what_reads_it_and_nothing_else() {
    let no: [&str; 0] = [];
    let mut grant = change("grant", "", None);
    grant.application = None;
    grant.subject_id = Some(Uuid::from_u128(7));
    let mut strangers_grant = grant.clone();
    strangers_grant.subject_id = Some(Uuid::from_u128(8));
    let mut account = change("account", "k8s/cluster/team/elsewhere", None);
    account.application = None;
    let mut of_another_cluster = account.clone();
    of_another_cluster.name = Some("k8s/cluster2/team/elsewhere".to_owned());
    let mut unknown = change("version", "a", Some("prod"));
    unknown.application = Some("nobodys".to_owned());
    for (what, change, applications, environments, bindings) in [
        (
            "a value",
            change("version", "a", Some("prod")),
            &no[..],
            &no[..],
            &["all", "named"][..],
        ),
        (
            "one of a pattern",
            change("version", "tls-key", Some("prod")),
            &no,
            &no,
            &["all", "named"],
        ),
        (
            "one of another namespace's",
            change("version", "b", Some("prod")),
            &no,
            &no,
            &["all", "elsewhere"],
        ),
        (
            "one of another environment",
            change("version", "a", Some("qa")),
            &no,
            &no,
            &no,
        ),
        (
            "a secret everywhere",
            change("secret", "a", None),
            &no,
            &no,
            &["all", "named", "dev"],
        ),
        (
            "a configuration",
            change("configuration", "LOG", Some("dev")),
            &["app"],
            &["dev"],
            &["dev"],
        ),
        (
            "one that no binding reads",
            change("configuration", "LOG", Some("prod")),
            &["app"],
            &["prod"],
            &no,
        ),
        (
            "an environment",
            change("environment", "dev", Some("dev")),
            &["app"],
            &["dev"],
            &["dev"],
        ),
        (
            "an application",
            change("application", "shop-app", None),
            &["app"],
            &["dev", "prod"],
            &["all", "named", "dev", "elsewhere"],
        ),
        ("a rule", grant, &no, &no, &["named"]),
        ("the rule of a stranger", strangers_grant, &no, &no, &no),
        ("an account", account, &no, &no, &["elsewhere"]),
        ("an account of another cluster", of_another_cluster, &no, &no, &no),
        ("something of an unknown application", unknown, &no, &no, &no),
    ] {
        let want = [applications, environments, bindings].map(|names| names.iter().map(|&n| n.to_owned()).collect());
        assert_eq!(told(&[change]), want, "{what}");
    }
}

async fn answers(world: &World, since: Option<&str>, status: u16, body: Value) {
    let mock = Mock::given(method("GET")).and(path(FEED));
    let mock = match since {
        Some(cursor) => mock.and(query_param("since", cursor)),
        None => mock.and(query_param_is_missing("since")),
    };
    let media_type = if status == 200 {
        "application/json"
    } else {
        "application/problem+json"
    };
    let answer = ResponseTemplate::new(status).set_body_raw(body.to_string(), media_type);
    mock.respond_with(answer).mount(&world.server).await;
}

/// Longer than a test lasts.
async fn then_waits(world: &World, cursor: &str) {
    let answer = ResponseTemplate::new(200).set_delay(Duration::from_secs(5));
    let mock = Mock::given(method("GET"))
        .and(path(FEED))
        .and(query_param("since", cursor));
    mock.respond_with(answer).mount(&world.server).await;
}

/// The bindings that are woken until `count` of them are.
async fn woken(world: &World, count: usize) -> Vec<String> {
    woken_by(world, count, wakes()).await
}

async fn woken_by(world: &World, count: usize, (wakes, woken): (Wakes, Woken)) -> Vec<String> {
    let feed = Feed::begin(&world.context).await;
    let stores = stores();
    tokio::select! {
        () = feed.run(&world.context, &stores, &wakes) => unreachable!("it listens for ever"),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nobody was woken"),
        names = woken.bindings.take(count).map(|binding| binding.name).collect() => names,
    }
}

#[tokio::test]
async fn a_change_wakes_its_bindings_and_our_own_changes_wake_none() {
    let world = world().await;
    let own = json!({"kind": "account", "id": Uuid::from_u128(9), "deleted": false, "name": "k8s/cluster/shop/all",
        "application": null, "environment": null});
    world.context.echoes.changed_on_server(Uuid::from_u128(9), false);
    let foreign = serde_json::to_value(change("version", "b", Some("prod"))).unwrap();
    answers(&world, None, 200, json!({"cursor": "one", "changes": []})).await;
    answers(&world, Some("one"), 200, json!({"cursor": "two", "changes": [own]})).await;
    answers(
        &world,
        Some("two"),
        200,
        json!({"cursor": "three", "changes": [foreign]}),
    )
    .await;
    then_waits(&world, "three").await;
    let mut woken = woken(&world, 2).await;
    woken.sort();
    assert_eq!(woken, ["all", "elsewhere"]);
}

#[tokio::test]
async fn an_edit_of_others_in_one_entry_with_our_own_is_looked_at_later() {
    let world = world().await;
    let mut own = change("account", "k8s/cluster/shop/all", None);
    own.application = None;
    world.context.echoes.changed_on_server(own.id, false);
    let (wakes, mut woken) = wakes();
    let (stores, echoed) = (stores(), Echoed::default());
    tell(vec![own], &echoed, &world.context, &stores, &wakes).await;
    assert!(woken.bindings.next().now_or_never().is_none(), "not at once");
    echoed.tell(&world.context, &stores, &wakes);
    let binding = woken.bindings.next().now_or_never().flatten();
    assert_eq!(binding.unwrap().name, "all");
    echoed.tell(&world.context, &stores, &wakes);
    assert!(woken.bindings.next().now_or_never().is_none(), "and once");
}

#[tokio::test]
async fn after_a_restore_everything_is_looked_at_once() {
    let world = world().await;
    let gone = json!({"type": "about:blank", "title": "Gone", "status": 410, "detail": "", "code": "cursor_gone"});
    Mock::given(method("GET"))
        .and(path(FEED))
        .and(query_param_is_missing("since"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"cursor": "old", "changes": []})))
        .up_to_n_times(1)
        .mount(&world.server)
        .await;
    answers(&world, None, 200, json!({"cursor": "new", "changes": []})).await;
    answers(&world, Some("old"), 410, gone).await;
    then_waits(&world, "new").await;
    assert_eq!(woken(&world, 5).await.len(), 5);
}

#[tokio::test]
async fn when_a_watch_cannot_tell_what_has_gone_everything_is_looked_at_once() {
    let world = world().await;
    answers(&world, None, 200, json!({"cursor": "one", "changes": []})).await;
    then_waits(&world, "one").await;
    let (wakes, woken) = wakes();
    wakes.all().notify_one();
    assert_eq!(woken_by(&world, 5, (wakes, woken)).await.len(), 5);
}

#[tokio::test]
async fn without_a_first_cursor_everything_is_looked_at_once_there_is_one() {
    let world = world().await;
    Mock::given(method("GET"))
        .and(path(FEED))
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(3)
        .mount(&world.server)
        .await;
    answers(&world, None, 200, json!({"cursor": "new", "changes": []})).await;
    then_waits(&world, "new").await;
    assert_eq!(woken(&world, 5).await.len(), 5);
}

#[tokio::test]
async fn a_server_that_does_not_wait_is_not_asked_without_a_pause() {
    let world = world().await;
    answers(&world, None, 200, json!({"cursor": "one", "changes": []})).await;
    answers(&world, Some("one"), 200, json!({"cursor": "one", "changes": []})).await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), woken(&world, 1)).await;
    assert!(quiet.is_err());
    let asked = world.asked().await.len();
    assert!(asked <= 12, "{asked} polls in 0.3 s");
}

#[tokio::test]
async fn when_the_server_is_back_what_failed_is_looked_at_again() {
    let world = world().await;
    answers(&world, None, 200, json!({"cursor": "one", "changes": []})).await;
    // Away as long as one waits for it.
    Mock::given(method("GET"))
        .and(path(FEED))
        .and(query_param("since", "one"))
        .and(query_param("wait", WAIT.to_string()))
        .respond_with(ResponseTemplate::new(503))
        .mount(&world.server)
        .await;
    answers(&world, Some("one"), 200, json!({"cursor": "two", "changes": []})).await;
    then_waits(&world, "two").await;
    world.context.retries.failed("uid-elsewhere");
    assert_eq!(woken(&world, 1).await, ["elsewhere"]);
}
