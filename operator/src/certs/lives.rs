//! How long what we make lives, and the times that follow from it.

use std::time::Duration;

use super::AUTHORITY_LIFE;

/// Renewed after 60 days.
const LEAF_LIFE: Duration = Duration::from_hours(90 * 24);
/// Shorter ones leave no time for the steps of a renewal.
const SHORTEST_LEAF: Duration = Duration::from_secs(30);

/// Lives of the CA and of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    pub authority: Duration,
    pub leaf: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLives {
    #[error("--certificate-life must be at least 30s")]
    Leaf,
    #[error("--authority-life must be at least three times --certificate-life")]
    Authority,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            authority: AUTHORITY_LIFE,
            leaf: LEAF_LIFE,
        }
    }
}

impl Lives {
    pub fn new(authority: Option<Duration>, leaf: Option<Duration>) -> Result<Self, InvalidLives> {
        let leaf = leaf.unwrap_or(LEAF_LIFE);
        let authority = authority.unwrap_or(AUTHORITY_LIFE);
        if leaf < SHORTEST_LEAF {
            Err(InvalidLives::Leaf)
        } else if authority < leaf.saturating_mul(3) {
            Err(InvalidLives::Authority)
        } else {
            Ok(Self { authority, leaf })
        }
    }

    /// How long a CA is trusted before it signs what is served: the API servers have to see the new bundle first.
    pub fn settle(self) -> Duration {
        (self.leaf / 6).min(Duration::from_mins(10))
    }

    /// How long the CA before stays trusted: every replica has long taken up the certificate of the new one.
    pub fn overlap(self) -> Duration {
        self.leaf.min(Duration::from_hours(24))
    }

    /// How often the certificates and the webhook configuration are looked at.
    pub fn check(self) -> Duration {
        (self.leaf / 30).clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_renewal_fit_into_the_lives() {
        let minute = Duration::from_mins(1);
        for lives in [
            Lives::default(),
            Lives::new(Some(minute * 3), Some(minute)).unwrap(),
            Lives::new(Some(SHORTEST_LEAF * 3), Some(SHORTEST_LEAF)).unwrap(),
        ] {
            // A third of each life is left when its successor is made.
            assert!(lives.check() * 3 < lives.settle(), "{lives:?}");
            assert!(lives.settle() + lives.check() < lives.leaf / 3, "{lives:?}");
            assert!(lives.check() * 3 < lives.overlap(), "{lives:?}");
        }
        assert_eq!(Lives::new(None, Some(minute / 3)), Err(InvalidLives::Leaf));
        assert_eq!(Lives::new(Some(minute), Some(minute)), Err(InvalidLives::Authority));
    }
}
