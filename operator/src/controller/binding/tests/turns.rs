//! What the clock changes, and whom it is told.

use super::*;
use crate::controller::retries::Again;

const HOUR: i64 = 3_600_000_000;

/// So many microseconds from now.
fn ahead(microseconds: i64) -> Time {
    Time::from_microseconds(Time::now().microseconds() + microseconds).unwrap()
}

impl Test {
    fn has(&self, secrets: &[(&'static str, Option<Time>)]) {
        let mut state = self.sealpod.state();
        for (name, end) in secrets {
            state.secrets.insert(name, "hunter2");
            end.map(|end| state.ends.insert(name, end));
        }
    }

    /// Since the last time.
    fn questions_for_versions(&self) -> usize {
        let calls = std::mem::take(&mut self.sealpod.state().calls);
        calls.iter().filter(|call| call.line.ends_with("/versions")).count()
    }

    fn status(&self) -> Value {
        self.world.kube.get(BINDING).unwrap()["status"].clone()
    }
}

#[tokio::test]
async fn which_secret_ends_within_the_hour_is_shown_and_asked_once() {
    let test = test().await;
    test.has(&[("a", Some(ahead(HOUR / 2))), ("b", Some(ahead(HOUR * 2)))]);
    test.look().await.unwrap();
    let shown = json!({"secrets": [{"name": "a", "change": "Ends"}], "more": 0});
    assert_eq!(test.status()["nextChange"], shown);
    assert_eq!(test.questions_for_versions(), 3, "each of its secrets");
    test.effects.go_on();
    test.settle().await;
    assert_eq!((test.questions_for_versions(), test.effects.count()), (0, 0), "at rest");
    // A value that changes beside it is no reason to ask again.
    test.sealpod.state().secrets.insert("b", "another");
    test.settle().await;
    assert_eq!(
        (test.questions_for_versions(), &test.status()["nextChange"]),
        (0, &shown)
    );
    // It has ended.
    test.sealpod.state().ends.remove("a");
    test.look().await.unwrap();
    assert_eq!(test.status()["nextChange"], Value::Null);
}

#[tokio::test]
async fn what_ends_later_is_asked_an_hour_before_it_does() {
    let test = test().await;
    test.has(&[("a", Some(ahead(HOUR + HOUR / 2)))]);
    test.look().await.unwrap();
    assert!(test.status()["nextChangeAt"].is_string());
    assert_eq!(
        (test.questions_for_versions(), &test.status()["nextChange"]),
        (0, &Value::Null)
    );
    let object: Tolerant<SecretBinding> = serde_json::from_value(test.world.kube.get(BINDING).unwrap()).unwrap();
    let outcome = SecretBinding::reconcile(&object.0, &test.world.context).await.unwrap();
    let half = std::time::Duration::from_mins(30);
    assert!(
        matches!(outcome.again, Again::Within(time) if time <= half),
        "{:?}",
        outcome.again
    );
}

#[tokio::test]
async fn what_changes_is_looked_for_once_also_where_nothing_of_it_is_found_and_a_secret_was_never_made() {
    let test = test().await;
    test.sealpod.state().missing.insert("never");
    // Of one that a pattern would bring.
    let turn = ahead(HOUR / 2);
    test.sealpod.state().ends.insert("z", turn);
    test.look().await.unwrap();
    let first = test.questions_for_versions();
    test.look().await.unwrap();
    let second = test.questions_for_versions();
    assert_eq!(
        (first - second, &test.status()["nextChange"]),
        (1, &Value::Null),
        "the one that is there"
    );
    assert_eq!(second, 1, "the one that is missing is asked each time");
}
