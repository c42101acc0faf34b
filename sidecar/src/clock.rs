//! The time since the node started, by which the kernel dates processes: it does not jump, and goes on while the node sleeps.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

pub fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).expect("this clock begins at 0")
}

/// What this clock showed at a time of the wall clock: as far off as that was set since then, and never after now.
pub fn at(wall: SystemTime) -> Duration {
    now().saturating_sub(wall.elapsed().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_wall_clock_is_one_of_this_and_none_that_is_to_come() {
        let (hour, before) = (Duration::from_hours(1), now());
        let just_now = at(SystemTime::now());
        assert!(just_now + Duration::from_secs(1) > before && just_now <= now());
        assert!(at(SystemTime::now() + hour) <= now());
        assert_eq!(at(SystemTime::UNIX_EPOCH), Duration::ZERO, "before the node");
    }
}
