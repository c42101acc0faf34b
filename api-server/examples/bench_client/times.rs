//! How long something took, many times.

use std::time::Duration;

use serde::Serialize;

/// In microseconds; `took` is from the first question to the last answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Times {
    answers: usize,
    p50: u128,
    p99: u128,
    max: u128,
    took: u128,
}

impl Times {
    pub fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(rank).map_or(0, Duration::as_micros)
        };
        Self {
            answers: times.len(),
            p50: at(50),
            p99: at(99),
            max: at(100),
            took: took.as_micros(),
        }
    }

    pub fn print(&self) {
        let line = serde_json::to_string(self).expect("numbers are always JSON");
        println!("{line}");
    }
}
