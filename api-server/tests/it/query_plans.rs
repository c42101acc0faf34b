//! What runs in the database when a request comes. Beside these, every [`Server`] of every test insists at its end that
//! nothing it ran reads a whole table.

use rusqlite::Connection;

use crate::statements::scans;
use crate::support::Server;

#[tokio::test]
async fn statements_are_told_with_the_names_of_their_parameters_only() {
    let server = Server::start().await;
    server.application("shop-canary").await;
    let statements = server.statements.take();
    assert!(
        statements
            .iter()
            .any(|sql| sql.contains("INSERT INTO projects") && sql.contains("?1")),
        "{statements:?}"
    );
    assert!(!format!("{statements:?}").contains("canary"));
}

#[tokio::test]
async fn a_statement_that_reads_a_whole_table_is_noticed() {
    let server = Server::start().await;
    let connection = Connection::open(server.dir().join("sealpod.db")).unwrap();
    for sql in [
        "SELECT count(*) FROM projects",
        "SELECT p.id FROM projects p WHERE p.display_name = ?1",
        "SELECT s.id FROM projects AS p JOIN secrets AS s ON s.project_id = p.id",
        "UPDATE projects SET display_name = 'x' WHERE labels = ?1",
        "DELETE FROM projects WHERE labels = ?1",
        "WITH some(id) AS (SELECT id FROM projects) SELECT * FROM some",
    ] {
        assert!(!scans(&connection, sql).is_empty(), "{sql}");
    }
    for sql in [
        "SELECT id FROM projects WHERE id = ?1",
        "SELECT value FROM json_each(?1)",
        "WITH some(id) AS (VALUES (?1)) SELECT * FROM some",
        "SELECT EXISTS (SELECT 1 FROM meta WHERE name = ?1)",
        "BEGIN",
    ] {
        assert_eq!(scans(&connection, sql), Vec::<String>::new(), "{sql}");
    }
}
