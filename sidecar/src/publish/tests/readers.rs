//! Those who read while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// The test that the whole module is for.
#[test]
fn a_reader_never_sees_half_a_change() {
    const SWAPS: usize = 10_000;
    const GRACE: Duration = Duration::from_millis(100);
    // A tmpfs, as in a pod.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let mut publisher = Publisher::open(dir.path(), LIMIT, GRACE).unwrap();
    let round = |n: usize| FileSet {
        write: ["a", "deep/b", "deep/er/c"].map(|path| file(path, text_of(n))).into(),
        keep: vec![],
    };
    publisher.publish(round(0)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // One reader opens each name afresh; the other looks `..data` up once for a set, as a program does that needs its
    // files to belong together.
    let readers: Vec<_> = [false, true]
        .map(|whole_sets| {
            let (path, stop) = (dir.path().to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut reads, mut last) = (0_usize, 0);
                while !stop.load(Ordering::Relaxed) {
                    let Some(rounds) = read_set(&path, whole_sets, GRACE) else {
                        continue;
                    };
                    assert!(rounds.is_sorted() && rounds[0] >= last, "went back: {last} {rounds:?}");
                    assert!(!whole_sets || rounds[0] == rounds[2], "mixed: {rounds:?}");
                    last = rounds[2];
                    reads += 1;
                }
                reads
            })
        })
        .into();
    for n in 1..=SWAPS {
        assert!(publisher.publish(round(n)).unwrap().changed);
        publisher.sweep(Instant::now()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 100, "the reader got to read");
    }
}

fn text_of(round: usize) -> String {
    format!("{round} ").repeat(64)
}

/// The rounds of the three files; none where this thread slept through the grace of what it had looked up.
fn read_set(path: &Path, whole_sets: bool, grace: Duration) -> Option<[usize; 3]> {
    let mut rounds = [0; 3];
    let mut looked_up = Instant::now();
    let base = if whole_sets {
        path.join(fs::read_link(path.join(DATA)).unwrap())
    } else {
        path.to_owned()
    };
    for (name, round) in ["a", "deep/b", "deep/er/c"].into_iter().zip(&mut rounds) {
        if !whole_sets {
            looked_up = Instant::now();
        }
        let text = match fs::read_to_string(base.join(name)) {
            Ok(text) => text,
            Err(error) => {
                assert!(looked_up.elapsed() >= grace, "missing: {name}: {error}");
                return None;
            }
        };
        *round = text.split(' ').next().unwrap().parse().expect("never empty");
        assert_eq!(text, text_of(*round), "torn");
    }
    Some(rounds)
}

#[test]
fn since_when_files_are_shown_is_known_also_to_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = open(dir.path());
    let before = clock::now();
    publisher.publish(set([("a", "1")])).unwrap();
    let (own, after) = (publisher.swapped(), clock::now());
    assert!(before <= own && own <= after);
    let read = open(dir.path()).swapped();
    assert!(
        before <= read && read <= own + 2 * COARSE,
        "{before:?} {read:?} {own:?}"
    );
    std::thread::sleep(3 * COARSE);
    let later = clock::now();
    publisher.publish(set([("a", "1")])).unwrap();
    assert_eq!(publisher.swapped(), own, "nothing new");
    publisher.publish(set([("a", "2")])).unwrap();
    for publisher in [publisher, open(dir.path())] {
        assert!(publisher.swapped() >= later);
    }
    let empty = tempfile::tempdir().unwrap();
    let now = clock::now();
    assert!(open(empty.path()).swapped() >= now, "rather too late");
}
