//! A process that is killed in the midst of a change.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

#[test]
fn a_crash_at_any_step_shows_one_whole_set_and_heals() {
    let old = [("a", "old"), ("gone", "old"), ("b/c", "old")];
    let new = [("a", "new"), ("b/c", "new"), ("fresh", "new")];
    for step in [
        Step::Make,
        Step::Write,
        Step::OpenUp,
        Step::Swap,
        Step::Link,
        Step::Unlink,
        Step::Done,
    ] {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).publish(set(old)).unwrap();
        let mut dying = open(dir.path());
        dying.crash_before = Some(step);
        assert!(
            catch_unwind(AssertUnwindSafe(|| dying.publish(set(new)))).is_err(),
            "{step:?}"
        );
        drop(dying);

        let content = fs::read_to_string(dir.path().join("a")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("b/c")).unwrap(), content, "{step:?}");
        assert_eq!(
            content == "new",
            matches!(step, Step::Link | Step::Unlink | Step::Done),
            "{step:?}"
        );

        let mut next = open(dir.path());
        next.publish(set(new)).unwrap();
        assert_eq!(shown(dir.path()), expected(new), "{step:?}");
        next.sweep(Instant::now() + GRACE).unwrap();
        assert_eq!(generations(dir.path()), 1, "{step:?}");
        let ours: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(
            ours.len(),
            3 + 2,
            "three names, `..data` and its generation: {step:?} {ours:?}"
        );
    }
}

#[test]
fn a_crash_between_making_the_link_and_renaming_it_heals() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).publish(set([("a", "1")])).unwrap();
    symlink("..2020_01_01_00_00_00.000000000", dir.path().join(DATA_TEMPORARY)).unwrap();
    symlink("nowhere", dir.path().join(LINK_TEMPORARY)).unwrap();
    open(dir.path()).publish(set([("a", "2"), ("b", "2")])).unwrap();
    assert_eq!(shown(dir.path()), expected([("a", "2"), ("b", "2")]));
    assert!(fs::symlink_metadata(dir.path().join(DATA_TEMPORARY)).is_err());
    assert!(fs::symlink_metadata(dir.path().join(LINK_TEMPORARY)).is_err());
}
