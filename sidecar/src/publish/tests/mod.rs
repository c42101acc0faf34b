mod crash;
mod readers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const LIMIT: u64 = 1 << 20;
const GRACE: Duration = Duration::from_millis(50);

fn file(path: &str, content: impl AsRef<[u8]>) -> File {
    File {
        path: path.parse().unwrap(),
        mode: 0o440,
        content: Content(Zeroizing::new(content.as_ref().to_vec())),
    }
}

fn set<const N: usize>(files: [(&str, &str); N]) -> FileSet {
    FileSet {
        write: files.into_iter().map(|(path, content)| file(path, content)).collect(),
        keep: vec![],
    }
}

fn open(dir: &Path) -> Publisher {
    Publisher::open(dir, LIMIT, GRACE).unwrap()
}

/// What a reader finds below the top-level names, the writer's own aside.
fn shown(dir: &Path) -> BTreeMap<String, String> {
    fn walk(dir: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("..") {
                continue;
            }
            if fs::metadata(entry.path()).unwrap().is_dir() {
                walk(&entry.path(), &format!("{prefix}{name}/"), found);
            } else {
                found.insert(format!("{prefix}{name}"), fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

fn expected<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
    files
        .into_iter()
        .map(|(path, content)| (path.to_owned(), content.to_owned()))
        .collect()
}

fn generations(dir: &Path) -> usize {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| is_generation(name)).count()
}

#[test]
fn files_appear_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    assert!(publisher.shown_since().is_none() && !publisher.is_intact());
    let one = [("a", "1"), ("tls/key.pem", "k"), ("tls/deep/er", "d")];
    let done = publisher.publish(set(one)).unwrap();
    assert_eq!((done.changed, done.files), (true, 3));
    assert_eq!(shown(dir.path()), expected(one));
    let two = [("a", "2"), ("b/c", "3")];
    assert!(publisher.publish(set(two)).unwrap().changed);
    assert_eq!(shown(dir.path()), expected(two));
    assert!(publisher.publish(set([])).unwrap().changed);
    assert_eq!(shown(dir.path()), expected([]));
    assert!(
        publisher.shown_since().is_some() && publisher.is_intact(),
        "an empty set is a set"
    );
}

#[test]
fn the_same_set_again_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    let files = [("a", "1"), ("b/c", "2")];
    publisher.publish(set(files)).unwrap();
    let before = fs::read_link(dir.path().join(DATA)).unwrap();
    assert!(!publisher.publish(set(files)).unwrap().changed);
    assert_eq!(fs::read_link(dir.path().join(DATA)).unwrap(), before);
    // A mode is part of the set.
    let mut other = set(files);
    other.write[0].mode = 0o400;
    assert!(publisher.publish(other).unwrap().changed);
}

#[test]
fn modes_and_groups_are_set_whatever_the_umask_and_the_volume_say() {
    let dir = tempfile::tempdir().unwrap();
    // As a volume with an fsGroup has it: set-group-ID.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2777)).unwrap();
    let mut files = set([("a", "1"), ("b/c", "2")]);
    files.write[0].mode = 0o400;
    open(dir.path()).publish(files).unwrap();
    let meta = |path: &str| fs::metadata(dir.path().join(path)).unwrap();
    assert_eq!(meta("a").mode() & 0o7777, 0o400);
    assert_eq!(meta("b/c").mode() & 0o7777, 0o440);
    assert_eq!(meta("b").mode() & 0o7777, 0o755);
    assert_eq!(meta("..data").mode() & 0o7777, 0o755);
    for path in ["a", "b", "b/c", "..data"] {
        assert_eq!(meta(path).gid(), rustix::process::getegid().as_raw());
    }
}

#[test]
fn a_value_that_cannot_be_had_keeps_its_last_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    publisher.publish(set([("a", "1"), ("b/c", "2")])).unwrap();
    let keep = |path: &str| Kept {
        path: path.parse().unwrap(),
        mode: 0o440,
    };
    let next = FileSet {
        write: vec![file("a", "new")],
        keep: vec![keep("b/c"), keep("never/was"), keep("b")],
    };
    let done = publisher.publish(next).unwrap();
    assert_eq!(
        done.lost,
        vec!["never/was".parse().unwrap(), "b".parse::<FilePath>().unwrap()]
    );
    assert_eq!(shown(dir.path()), expected([("a", "new"), ("b/c", "2")]));
}

#[test]
fn a_set_over_half_of_the_volume_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    publisher.publish(set([("a", "1")])).unwrap();
    let large = "x".repeat(usize::try_from(LIMIT / 2).unwrap());
    let error = publisher.publish(set([("a", &large)])).unwrap_err();
    assert!(
        matches!(error, PublishError::TooLarge { .. }) && error.to_string().contains("sizeLimit"),
        "{error}"
    );
    // Many small files take a page each.
    let many = FileSet {
        write: (0..200).map(|n| file(&format!("f{n}"), "x")).collect(),
        keep: vec![],
    };
    assert!(matches!(publisher.publish(many), Err(PublishError::TooLarge { .. })));
    assert_eq!(shown(dir.path()), expected([("a", "1")]));
}

#[test]
fn former_generations_go_when_their_grace_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    publisher.publish(set([("a", "1")])).unwrap();
    assert_eq!(publisher.next_sweep(Instant::now()), None);
    let before = Instant::now();
    publisher.publish(set([("a", "2")])).unwrap();
    assert!(publisher.sweep(before).unwrap().is_some());
    assert_eq!(generations(dir.path()), 2);
    assert_eq!(publisher.sweep(Instant::now() + GRACE).unwrap(), None);
    assert_eq!(generations(dir.path()), 1);
    assert_eq!(shown(dir.path()), expected([("a", "2")]));
}

#[test]
fn large_sets_in_a_row_wait_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    let large = |c: &str| c.repeat(usize::try_from(publisher_usable()).unwrap());
    let sets: Vec<_> = ["1", "2", "3"]
        .map(|c| FileSet {
            write: vec![file("a", large(c))],
            keep: vec![],
        })
        .into();
    let now = Instant::now();
    for set in &sets[..2] {
        assert_eq!(publisher.wait_for_room(set, now).unwrap(), Duration::ZERO);
        publisher.publish(set.clone()).unwrap();
    }
    let wait = publisher.wait_for_room(&sets[2], now).unwrap();
    assert!(wait > Duration::ZERO, "old, older and new do not fit together");
    publisher.sweep(now + wait).unwrap();
    assert_eq!(publisher.wait_for_room(&sets[2], now).unwrap(), Duration::ZERO);
}

fn publisher_usable() -> u64 {
    (LIMIT - MIN_RESERVE) / 2
}

#[test]
fn names_that_leave_the_directory_cannot_be_said_and_links_are_not_followed() {
    for hostile in [
        "../x",
        "a/../../x",
        "/etc/x",
        "..data",
        "..",
        ".",
        "a//b",
        "a/.",
        ".hidden",
        "a\0b",
        "a\nb",
        "",
    ] {
        assert!(hostile.parse::<FilePath>().is_err(), "{hostile:?}");
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Someone has put links where the writer will write.
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    symlink(outside.path().join("victim"), dir.path().join("victim")).unwrap();
    symlink(outside.path(), dir.path().join(DATA)).unwrap();
    let mut publisher = open(dir.path());
    publisher
        .publish(set([("folder/victim", "1"), ("victim", "2")]))
        .unwrap();
    assert_eq!(shown(dir.path()), expected([("folder/victim", "1"), ("victim", "2")]));
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "untouched");

    // Inside of a generation, where only a second writer could do it.
    let generation = dir.path().join(fs::read_link(dir.path().join(DATA)).unwrap());
    fs::remove_file(generation.join("victim")).unwrap();
    symlink(outside.path().join("victim"), generation.join("victim")).unwrap();
    let kept = Kept {
        path: "victim".parse().unwrap(),
        mode: 0o440,
    };
    let done = publisher
        .publish(FileSet {
            write: vec![],
            keep: vec![kept],
        })
        .unwrap();
    assert_eq!(done.lost.len(), 1, "a link is no last good file");
}

#[test]
fn an_error_names_the_path_and_what_to_do() {
    let error = Publisher::open(Path::new("/nonexistent/mount"), LIMIT, GRACE).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot open /nonexistent/mount"),
        "{error}"
    );
}

#[test]
fn what_somebody_removed_is_missed_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("a", "1"), ("b/c", "2")];
    let mut publisher = open(dir.path());
    publisher.publish(set(files)).unwrap();
    assert!(publisher.is_intact());
    let harms: [fn(&Path); 5] = [
        |dir| fs::remove_file(dir.join("a")).unwrap(),
        |dir| fs::remove_file(dir.join("..data/b/c")).unwrap(),
        |dir| fs::remove_file(dir.join(DATA)).unwrap(),
        |dir| fs::remove_dir_all(dir.join(fs::read_link(dir.join(DATA)).unwrap())).unwrap(),
        |dir| {
            fs::remove_file(dir.join("b")).unwrap();
            fs::write(dir.join("b"), "not ours").unwrap();
        },
    ];
    for (n, harm) in harms.into_iter().enumerate() {
        harm(dir.path());
        assert!(!publisher.is_intact(), "{n}");
        publisher.publish(set(files)).unwrap();
        assert!(publisher.is_intact(), "{n}");
        assert_eq!(shown(dir.path()), expected(files), "{n}");
    }
    assert!(open(dir.path()).is_intact());
    fs::remove_file(dir.path().join("a")).unwrap();
    assert!(
        !open(dir.path()).is_intact(),
        "links are missed by the next process too"
    );
}
