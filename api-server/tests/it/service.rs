use crate::support::Server;

#[tokio::test]
async fn probes_need_no_credential() {
    let server = Server::start().await;
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(server.call("GET", path).status(200).await.body["status"], "ok"); // 6
    }
    server.call("GET", "/metrics").status(404).await;
}

#[tokio::test]
async fn the_database_is_readable_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start().await;
    server.application("shop").await;
    for entry in std::fs::read_dir(server.dir()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}
