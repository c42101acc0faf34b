//! Figures of several rounds, and how they are shown.

use std::time::Duration;

/// Rows of a Markdown table: what, and its figure.
#[derive(Debug, Default)]
pub struct Rows(pub String);

impl Rows {
    pub fn add(&mut self, what: &str, figure: &str) {
        self.0 += &["| ", what, " | ", figure, " |\n"].concat();
    }
}

/// The one in the middle; of an even number of them, the lower one of the two.
pub fn median<T: Copy + PartialOrd>(figures: impl IntoIterator<Item = T>) -> Option<T> {
    let mut figures: Vec<T> = figures.into_iter().collect();
    figures.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    figures.get(figures.len().saturating_sub(1) / 2).copied()
}

/// The one below or at which so many of a hundred are; they are sorted.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}

/// As many decimals as tell figures of this size apart: 0.27, 3.4, 128.
pub fn shown(figure: f64) -> String {
    match figure {
        small if small < 1.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => format!("{large:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_and_its_figure() {
        let mut rows = Rows::default();
        rows.add("what", "figure");
        assert_eq!(rows.0, "| what | figure |\n");
    }

    #[test]
    fn the_median_is_the_figure_of_a_round() {
        assert_eq!(median([3, 1, 2]), Some(2));
        assert_eq!(median([4, 1, 3, 2]), Some(2));
        assert_eq!(median([0.5]), Some(0.5));
        assert_eq!(median(Vec::<u64>::new()), None);
    }

    #[test]
    fn a_percentile_is_the_time_of_an_answer() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let at = |percent| percentile(&times, percent).as_millis();
        assert_eq!([at(50), at(99), at(100)], [100, 198, 200]);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn figures_are_shown_as_precisely_as_they_are_compared() {
        assert_eq!([0.268, 3.44, 16_543.2].map(shown), ["0.27", "3.4", "16543"]);
        assert_eq!(shown(mib(20_480)), "20.0");
        assert_eq!(shown(milliseconds(Duration::from_micros(1_250))), "1.2");
    }
}
