//! What is trusted and what is shown, hour by hour.

use std::collections::VecDeque;

use super::*;
use crate::controller::certificate::evaluate::OVERLAP;

/// How the controller lives.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It looks every hour and does all there is to do.
    Steady,
    /// It is killed after each write and looks again within the hour.
    Killed,
    /// It is killed after each write and comes back after 30 hours.
    Away,
}

/// Days of it in steps of an hour: at each hour, whoever has what was to be trusted at any time of the day before takes
/// what the server shows; and who knows the latest takes what the server has shown at any time of the day before.
async fn live(way: Way, lives: Lives, days: u32) -> FakeApi {
    let api = installed_for(lives);
    let keeper = keeper_for(&api, lives);
    let hours_of_overlap = usize::try_from(OVERLAP.as_secs() / HOUR.as_secs()).unwrap();
    let mut past: VecDeque<(String, String)> = VecDeque::new();
    let mut next_look = 0;
    for hour in 0..days * 24 {
        let now = after(HOUR * hour);
        if hour >= next_look {
            match way {
                Way::Steady => drop(keep(&keeper, now).await.unwrap()),
                Way::Killed => drop(step(&keeper, now).await),
                Way::Away if step(&keeper, now).await => next_look = hour + 30,
                Way::Away => {}
            }
        }
        past.push_back((trusted(&api), shown(&api)));
        if past.len() > hours_of_overlap + 1 {
            past.pop_front();
        }
        let (latest, served) = past.back().unwrap();
        let mut last = (String::new(), String::new());
        for (known, was_served) in past
            .iter()
            .filter(|pair| hour % 24 == 0 || *pair != past.back().unwrap())
        {
            if (known, was_served) == (&last.0, &last.1) {
                continue;
            }
            for (certificate, authorities) in [(served, known), (was_served, latest)] {
                certs::check_server_and_roots(certificate, authorities, SERVER, now)
                    .unwrap_or_else(|error| panic!("{way:?}, hour {hour}: {error}"));
            }
            last = (known.clone(), was_served.clone());
        }
    }
    api
}

#[tokio::test]
async fn through_changes_of_its_ca_whoever_looked_within_a_day_trusts_what_the_server_shows() {
    let lives = Lives::new(Some(DAY * 45), Some(DAY * 15)).unwrap();
    let first = trusted(&installed_for(lives));
    for way in [Way::Steady, Way::Killed, Way::Away] {
        // The CA changes each 30 days.
        let api = live(way, lives, 75).await;
        let writes = api.take_writes();
        let of = |path: &str| writes.iter().filter(|call| call.ends_with(path)).count();
        assert_eq!(of(CA), 4, "{way:?}: two are made, two forgotten");
        assert!((10..=16).contains(&of(TLS)), "{way:?}: {}", of(TLS));
        assert_eq!(certs::count(&trusted(&api)), 1, "{way:?}");
        assert_eq!(certs::count(&text(&api, CA, AUTHORITIES)), 1, "{way:?}");
        assert!(!certs::holds(&trusted(&api), &first));
    }
}

#[tokio::test]
async fn years_with_the_usual_lives_end_with_another_ca_and_no_gap() {
    let api = installed().await;
    let (first, mut leaves) = (trusted(&api), 1);
    let mut last = shown(&api);
    for day in (0..7 * 366).step_by(3) {
        let now = after(DAY * day);
        keep(&keeper(&api), now).await.unwrap();
        if shown(&api) != last {
            leaves += 1;
            last = shown(&api);
        }
        check(&api, now);
    }
    assert!((42..=45).contains(&leaves), "one each 60 days: {leaves}");
    assert_eq!(certs::count(&trusted(&api)), 1);
    assert!(!certs::holds(&trusted(&api), &first), "after two thirds of ten years");
}
