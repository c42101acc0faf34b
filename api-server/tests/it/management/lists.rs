//! Lists: page by page where `limit` asks for it, else everything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{ADMIN, Application, M, Reply, Server};

/// The path of the next page, without the server.
fn next(page: &Reply) -> Option<String> {
    let link = page.headers.get("link")?.to_str().unwrap();
    let (path, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    Some(path.to_owned())
}

/// All pages of a list, each with how many items it has.
async fn walk(server: &Server, first: String) -> (Vec<Value>, Vec<usize>) {
    let (mut items, mut sizes, mut path) = (vec![], vec![], Some(first));
    while let Some(at) = path {
        let page = server.admin("GET", &at).status(200).await;
        items.extend(page.list().clone());
        sizes.push(page.list().len());
        path = next(&page);
    }
    (items, sizes)
}

async fn shop(server: &Server) -> Application<'_> {
    let app = server.application("shop").await;
    for name in ["b", "a/b", "é?&=#", "c"] {
        app.secret(name).await;
    }
    for n in 0..5 {
        app.set("b", "local", &n.to_string(), json!({})).await;
    }
    for (environment, slug) in [("Staging", "staging"), ("Dev", "dev"), ("Prod", "prod")] {
        app.admin("POST", "/environments")
            .json(json!({"name": environment, "labels": {"tier/a": "x&y"}}))
            .status(201)
            .await;
        for key in ["K:1", "é/2", "a b"] {
            let entry = json!({"environmentSlug": slug, "key": key, "value": "v"});
            app.admin("POST", "/configurations").json(entry).status(201).await;
        }
    }
    app
}

#[tokio::test]
async fn pages_are_the_list() {
    let server = Server::start().await;
    let app = shop(&server).await;
    for n in 0..3 {
        let labels = json!({"name": format!("app {n}"), "labels": {"team": "a=b c"}});
        server.admin("POST", M).json(labels).status(201).await;
    }
    let below = |path: &str| format!("{M}/{}{path}", app.slug);
    for (list, total) in [
        (M.to_owned(), 4),
        (format!("{M}?label=team%3Da%3Db%20c"), 3),
        (below("/environments"), 4),
        (below("/environments?label=tier%2Fa%3Dx%26y"), 3),
        (below("/secrets"), 4),
        (below("/secrets/b/versions/local"), 5),
        (below("/configurations"), 9),
    ] {
        let whole = server.admin("GET", &list).status(200).await;
        assert!(whole.headers.get("link").is_none());
        assert_eq!(whole.list().len(), total, "{list}");
        let joint = if list.contains('?') { '&' } else { '?' };
        for limit in 1..=total {
            let (items, sizes) = walk(&server, format!("{list}{joint}limit={limit}")).await;
            assert_eq!(&items, whole.list(), "{list} by {limit}");
            assert!(sizes.len() == total.div_ceil(limit), "{list}: {sizes:?}");
        }
        let first = server.admin("GET", &format!("{list}{joint}limit=1")).status(200).await;
        let rest = next(&first).unwrap().replace("limit=1&", "");
        let rest = server.admin("GET", &rest).status(200).await;
        assert_eq!(rest.list(), &whole.list()[1..], "without a limit, the rest");
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2"] {
            server
                .admin("GET", &format!("{list}{joint}{bad}"))
                .invalid("limit")
                .await;
        }
        for bad in ["after=", "after=a&after=b", "after=%0A"] {
            server
                .admin("GET", &format!("{list}{joint}{bad}"))
                .invalid("after")
                .await;
        }
    }
    for bad in [
        below("/configurations?after=zzz"),
        below("/configurations?after=WyJhIl0"),
        below("/secrets/b/versions/local?after=b"),
        below("/secrets/b/versions/local?after=0"),
    ] {
        server.admin("GET", &bad).invalid("after").await;
    }
    for missing in [
        "-no/secrets?limit=1",
        "-no/environments?limit=1",
        "-no/configurations",
        "/secrets/no/versions/local",
    ] {
        server.admin("GET", &below(missing)).problem(404, "not_found").await;
    }
}

#[tokio::test]
async fn what_is_made_or_deleted_between_two_pages_moves_nothing_else() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d"] {
        server.application(name).await;
    }
    let first = server.admin("GET", &format!("{M}?limit=2")).status(200).await;
    server.application("aa").await;
    server.application("bb").await;
    server.admin("DELETE", &format!("{M}/b")).status(204).await;
    let (rest, _) = walk(&server, next(&first).unwrap()).await;
    let slugs: Vec<_> = rest.iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["bb", "c", "d"]);
}

/// Makes so many applications behind the server's back, with descriptions of 4,000 bytes: quicker than by requests.
async fn many(server: &Server, count: u32) {
    let organization = server.store.organization("default").await.unwrap();
    let other = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    other
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO projects (id, organization_id, slug, display_name, description, labels, created_at, updated_at)
             SELECT randomblob(16), ?2, printf('app-%06d', i), 'App', ?3, '{}', 0, 0 FROM n",
            (count, organization.id.0.as_bytes(), "𝕊".repeat(1_000)),
        )
        .unwrap();
}

#[tokio::test]
async fn without_a_limit_everything_is_sent_in_pieces() {
    let server = Server::start().await;
    many(&server, 1_000).await;
    let whole = server.admin("GET", M).status(200).await;
    assert!(whole.headers.get("content-length").is_none(), "it is a stream");
    assert_eq!(whole.header("content-type"), "application/json");
    let slugs: Vec<_> = whole.list().iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs.len(), 1_000);
    assert!(slugs.is_sorted_by(|a, b| a < b));
    // A piece that ends where the list ends.
    let after = server.admin("GET", &format!("{M}?after=app-000800")).status(200).await;
    assert_eq!(after.list().len(), 200);
}

#[tokio::test]
async fn a_list_that_cannot_go_on_does_not_look_like_a_whole_one() {
    let server = Server::start().await;
    many(&server, 6_000).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut reply = client
        .get(format!("{}{M}", server.url))
        .bearer_auth(ADMIN)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    let mut read = reply.chunk().await.unwrap().unwrap().len();
    // 24 MB do not fit between the two, so most of it is still to be read from the database.
    server.store.close().await;
    let broken = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match reply.chunk().await {
                Ok(Some(part)) => read += part.len(),
                Err(_) => return true,
                Ok(None) => return false,
            }
        }
    });
    assert!(
        broken.await.unwrap(),
        "the connection was broken off, after {read} bytes"
    );
    assert!(read < 24_000_000);
}
