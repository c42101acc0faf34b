//! The commands that look at a database, or bring it up to date: of the one that is there, and of no other.

use std::path::Path;
use std::process::Output;

use crate::process::{command, text};
use crate::store_support::{OLDER_KEY, older_database};

const LOOKS: [&[&str]; 3] = [&["audit", "verify"], &["audit", "export", "--instance"], &["check"]];

fn of(database: &Path, arguments: &[&str]) -> Output {
    let mut command = command(arguments);
    command
        .env("SEALPOD_DATABASE_URL", format!("sqlite:{}", database.display()))
        .env("SEALPOD_MASTER_KEY", OLDER_KEY)
        .env("SEALPOD_ADMIN_API_KEY", crate::support::ADMIN);
    command.output().unwrap()
}

#[test]
fn a_path_without_a_database_is_an_error_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in LOOKS.into_iter().chain([&["migrate"][..]]) {
        let output = of(&dir.path().join("mistyped.db"), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("there is no database at") && said.contains("mistyped.db"),
            "{said}"
        );
        assert_eq!(crate::backups::files(dir.path()), [""; 0], "{arguments:?}");
        // Nor is an empty file one.
        let empty = dir.path().join("empty.db");
        std::fs::write(&empty, "").unwrap();
        assert_eq!(of(&empty, arguments).status.code(), Some(1), "{arguments:?}");
        assert_eq!(empty.metadata().unwrap().len(), 0, "{arguments:?}");
        for name in crate::backups::files(dir.path()) {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}

#[test]
fn whoever_looks_at_an_older_database_leaves_it_as_it_is_and_is_told_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (database, content) = (dir.path().join("old.db"), older_database(1));
    std::fs::write(&database, &content).unwrap();
    for arguments in LOOKS {
        let output = of(&database, arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("schema 1") && said.contains("`migrate` brings it up to date"),
            "{said}"
        );
        assert!(std::fs::read(&database).unwrap() == content, "{arguments:?}");
        assert!(!dir.path().join("old.db.schema-1").exists(), "{arguments:?}");
    }
    for arguments in [&["migrate"][..]].into_iter().chain(LOOKS) {
        let output = of(&database, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }
}
