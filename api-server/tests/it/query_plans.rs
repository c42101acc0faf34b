//! What runs in the database when a request comes.

use std::sync::{Arc, Mutex};

use sealpod_api_server::store::Trace;

use crate::support::Server;

/// A server, and every statement that its store has run so far.
async fn traced() -> (Server, Arc<Mutex<Vec<String>>>) {
    let statements = Arc::<Mutex<Vec<String>>>::default();
    let told = Arc::clone(&statements);
    let trace = Trace::new(move |sql| told.lock().unwrap().push(sql.to_owned()));
    let server = Server::with(|options| options.trace = Some(trace)).await;
    (server, statements)
}

#[tokio::test]
async fn statements_are_told_with_the_names_of_their_parameters_only() {
    let (server, statements) = traced().await;
    server.application("shop-canary").await;
    let statements = statements.lock().unwrap();
    assert!(
        statements
            .iter()
            .any(|sql| sql.contains("INSERT INTO projects") && sql.contains("?1")),
        "{statements:?}"
    );
    assert!(!format!("{statements:?}").contains("canary"));
}
