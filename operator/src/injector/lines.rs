//! Refusals and warnings of pods in the log. What a person makes, kubectl prints them of; of what a controller makes, the API
//! server tells them to that controller, which keeps the warnings to itself and tries what was refused again and again.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealpod_core::kubernetes::annotations;
use serde_json::Value;

use super::denial::Quoted;
use super::pod::{Pod, text};

/// Most lines of one namespace within [`WITHIN`], so that none has those of another.
const MOST_OF_ONE: u32 = 60;
/// Most lines within [`WITHIN`]: this many hashes are kept.
const MOST: usize = 1_000;
const WITHIN: Duration = Duration::from_mins(1);
/// Longest text of one line, in bytes: the first warnings of a pod are the most important. A refusal is shorter.
const MOST_TEXT: usize = 1024;

/// Which lines have been written a moment ago: a rollout of a thousand pods says the same of each.
#[derive(Debug, Default)]
pub struct Lines {
    window: Mutex<Window>,
    /// With keys of its own, so that nobody can choose names whose hashes meet.
    hashes: RandomState,
}

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    /// Hashes of the lines, and their number by the hash of the namespace.
    written: HashSet<u64>,
    by_namespace: HashMap<u64, u32>,
    /// Requests of which nothing stands anywhere, since the last line: a pod that is tried again is one more.
    left_out: u64,
}

/// What is written of one pod: names and what the refusal or the warnings say, which is never a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its `generateName`, or its name; quoted and cut.
    pub pod: String,
    pub texts: String,
    /// Requests before this one, of whatever namespace, of which nothing is in any line.
    pub left_out: u64,
}

/// Whether, by what it says itself, a pod is here for the first time: the API server asks again when another webhook
/// has changed it, and a copy of an injected pod looks the same.
pub fn is_first(pod: Pod<'_>) -> bool {
    pod.annotation(annotations::INJECTED).is_none()
}

impl Lines {
    /// None where the same has just been written of another pod of its kind, or there are too many lines already.
    pub fn of(&self, pod: Pod<'_>, namespace: &str, texts: &[String], now: Instant) -> Option<Line> {
        let metadata = pod.0.get("metadata").unwrap_or(&Value::Null);
        let name = text(metadata, "generateName").or_else(|| text(metadata, "name"));
        let hash = self.hashes.hash_one((namespace, name, texts));
        let left_out = self.next(hash, self.hashes.hash_one(namespace), now)?;
        Some(Line {
            pod: Quoted(name.unwrap_or_default()).to_string(),
            texts: joined(texts),
            left_out,
        })
    }

    fn next(&self, line: u64, namespace: u64, now: Instant) -> Option<u64> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.begun.is_none_or(|begun| now.duration_since(begun) >= WITHIN) {
            *window = Window {
                begun: Some(now),
                left_out: window.left_out,
                ..Window::default()
            };
        }
        if window.written.contains(&line) {
            return None;
        }
        let of_one = window.by_namespace.get(&namespace).copied().unwrap_or(0);
        if of_one >= MOST_OF_ONE || window.written.len() >= MOST {
            window.left_out += 1;
            return None;
        }
        window.by_namespace.insert(namespace, of_one + 1);
        window.written.insert(line);
        Some(std::mem::take(&mut window.left_out))
    }
}

fn joined(warnings: &[String]) -> String {
    let mut text = String::new();
    for (at, warning) in warnings.iter().enumerate() {
        if at > 0 && text.len() + warning.len() > MOST_TEXT {
            let _ = write!(text, " (and {} more)", warnings.len() - at);
            break;
        }
        let _ = write!(text, "{}{warning}", if at == 0 { "" } else { "; " });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_whose_pod_it_is_and_what_it_is_warned_of() {
        let lines = Lines::default();
        let of = |metadata: Value, warnings: &[&str]| {
            let warnings: Vec<String> = warnings.iter().map(|warning| (*warning).to_owned()).collect();
            let line = lines.of(Pod(&json!({"metadata": metadata})), "shop", &warnings, Instant::now());
            let Line { pod, texts, .. } = line.unwrap();
            (pod, texts)
        };
        let quoted = |name: &str| format!("{name:?}");
        assert_eq!(
            of(json!({"generateName": "web-7f-", "name": "web-7f-x"}), &["a", "b"]),
            (quoted("web-7f-"), "a; b".to_owned())
        );
        assert_eq!(of(json!({"name": "alone"}), &["a"]).0, quoted("alone"));
        let (pod, warnings) = of(
            json!({"generateName": "\n".repeat(500)}),
            &["w".repeat(250).as_str(); 16],
        );
        assert!(pod.len() < 300 && !pod.contains('\n'), "{pod}");
        assert!(
            warnings.ends_with(" (and 12 more)") && warnings.len() < 1_100,
            "{warnings}"
        );
    }

    #[test]
    fn lines_are_bounded_and_those_that_were_left_out_are_counted() {
        let (lines, start) = (Lines::default(), Instant::now());
        let most = u64::from(MOST_OF_ONE);
        for line in 0..most {
            assert_eq!(lines.next(line, 0, start), Some(0));
        }
        for line in most..most + 5 {
            assert_eq!(lines.next(line, 0, start + WITHIN / 2), None);
        }
        assert_eq!(lines.next(most, 0, start + WITHIN), Some(5));
        assert_eq!(lines.next(most + 1, 0, start + WITHIN), Some(0));
        for line in 1_000.. {
            if lines.next(line, line, start + WITHIN).is_none() {
                break;
            }
        }
        let window = lines.window.lock().unwrap();
        assert_eq!((window.written.len(), window.left_out), (MOST, 1));
    }

    #[test]
    fn a_rollout_is_told_of_once_and_takes_no_line_of_another_namespace() {
        let (lines, start) = (Lines::default(), Instant::now());
        let of = |namespace: &str, kind: &str, warning: &str, now: Instant| {
            let pod = json!({"metadata": {"generateName": kind, "namespace": "not this one"}});
            lines
                .of(Pod(&pod), namespace, &[warning.to_owned()], now)
                .map(|line| line.left_out)
        };
        assert_eq!(of("shop", "web-7f-", "a", start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(of("shop", "web-7f-", "a", start), None);
        }
        assert_eq!(of("shop", "web-7f-", "b", start), Some(0), "it says something else");
        assert_eq!(of("shop", "web-80-", "a", start), Some(0), "of others");
        assert_eq!(of("mail", "web-7f-", "a", start), Some(0));
        for number in 0..100 {
            of("shop", &format!("{number}-"), "a", start);
        }
        assert_eq!(of("shop", "last-", "a", start), None);
        assert_eq!(
            of("mail", "web-80-", "a", start),
            Some(44),
            "3 and 57 of 101 have a line"
        );
        assert_eq!(of("shop", "web-7f-", "a", start + WITHIN), Some(0));
    }

    #[test]
    fn a_pod_that_is_asked_about_again_is_counted_once() {
        let pod = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        assert!(is_first(Pod(&pod(json!({})))));
        assert!(!is_first(Pod(&pod(json!({annotations::INJECTED: "db"})))));
    }
}
