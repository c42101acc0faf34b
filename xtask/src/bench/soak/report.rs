//! What the samples say.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::figures::{mib, milliseconds, shown};
use super::sample::Sample;

/// What an hour may add to the memory, in MiB.
const MOST_GROWTH: f64 = 1.0;
/// The file keeps this much of a burst; what it holds begins anew long before.
const MOST_WAL_MIB: u64 = 64;
/// A connection that comes or goes while they are counted.
const FILES_APART: usize = 2;
/// What comes and goes, such as the memory of a backup, is not there in the quietest moment of so many samples.
const WINDOW: usize = 6;

#[derive(Debug)]
pub struct Report<'s> {
    samples: &'s [Sample],
    slope: Option<Slope>,
    /// The fewest of each window in the first and in the second half: the most of these.
    files: Option<(usize, usize)>,
    most_wal_kib: u64,
}

/// From good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Pass,
    /// The samples say neither.
    NotTold,
    Miss,
}

impl Verdict {
    fn of(holds: bool) -> Self {
        if holds { Self::Pass } else { Self::Miss }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::NotTold => "**not told** by these samples: run it for longer",
            Self::Miss => "**MISS**",
        }
    }
}

/// By least squares, with its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slope {
    /// MiB an hour.
    value: f64,
    error: f64,
}

impl<'s> Report<'s> {
    /// What was taken before `warm` is shown and not judged.
    pub fn of(samples: &'s [Sample], warm: Duration) -> Self {
        let judged: Vec<_> = samples.iter().filter(|sample| sample.at >= warm).collect();
        let windows: Vec<_> = judged.chunks_exact(WINDOW.min(judged.len().max(1))).collect();
        let lowest = windows.iter().filter_map(|window| {
            let lowest = window.iter().min_by_key(|sample| sample.memory_kib)?;
            Some((lowest.at.as_secs_f64() / 3_600.0, mib(lowest.memory_kib)))
        });
        let files: Vec<_> = windows
            .iter()
            .filter_map(|window| window.iter().map(|sample| sample.files).min())
            .collect();
        let (first, second) = files.split_at(files.len() / 2);
        Self {
            samples,
            slope: slope(&lowest.collect::<Vec<_>>()),
            files: first.iter().max().copied().zip(second.iter().max().copied()),
            most_wal_kib: samples.iter().map(|sample| sample.wal_kib).max().unwrap_or(0),
        }
    }

    /// Whether memory, files and log stay what they were.
    pub fn verdict(&self) -> Verdict {
        let all = [
            self.memory(),
            Verdict::of(self.files_hold()),
            Verdict::of(self.wal_holds()),
        ];
        all.into_iter().max().unwrap_or(Verdict::NotTold)
    }

    /// Two standard errors to either side of the slope.
    fn memory(&self) -> Verdict {
        match self.slope {
            Some(Slope { value, error }) if value + 2.0 * error <= MOST_GROWTH => Verdict::Pass,
            Some(Slope { value, error }) if value - 2.0 * error > MOST_GROWTH => Verdict::Miss,
            _ => Verdict::NotTold,
        }
    }

    fn files_hold(&self) -> bool {
        self.files.is_some_and(|(first, second)| second <= first + FILES_APART)
    }

    fn wal_holds(&self) -> bool {
        self.most_wal_kib <= (MOST_WAL_MIB << 10) + (1 << 10)
    }

    /// Markdown: a line a minute, and what it means.
    pub fn text(&self, peak_kib: u64) -> String {
        let mut text = "| at | memory, MiB | files | WAL, MiB | database, MiB | worst read p99 of 10 s, ms | worst write p99, ms |\n|---|---|---|---|---|---|---|\n".to_owned();
        for window in self.samples.chunks_exact(WINDOW) {
            let Some(sample) = window.last() else { continue };
            let worst =
                |of: fn(&Sample) -> Duration| shown(milliseconds(window.iter().map(of).max().unwrap_or_default()));
            let _ = writeln!(
                text,
                "| {} s | {} | {} | {} | {} | {} | {} |",
                sample.at.as_secs(),
                shown(mib(sample.memory_kib)),
                sample.files,
                shown(mib(sample.wal_kib)),
                shown(mib(sample.database_kib)),
                worst(|sample| sample.reads.p99),
                worst(|sample| sample.writes.p99),
            );
        }
        let verdict = |holds: bool| Verdict::of(holds).shown();
        let slope = self.slope.map_or_else(
            || "not measured: too short".to_owned(),
            |slope| format!("{:+.2} ± {:.2} MiB/h", slope.value, 2.0 * slope.error),
        );
        let files = self.files.map_or_else(
            || "not measured: too short".to_owned(),
            |(first, second)| format!("{first}, then {second}"),
        );
        let _ = write!(
            text,
            "\n| bar | | measured | |\n|---|---|---|---|\n\
             | slope of the memory at the quietest of each minute | ≤ {MOST_GROWTH} MiB/h | {slope} | {} |\n\
             | open files at the quietest of each minute, first and second half | flat | {files} | {} |\n\
             | write-ahead log at the most | ≤ {MOST_WAL_MIB} MiB | {} MiB | {} |\n\n\
             The most that was resident at any moment: {} MiB.\n",
            self.memory().shown(),
            verdict(self.files_hold()),
            shown(mib(self.most_wal_kib)),
            verdict(self.wal_holds()),
            shown(mib(peak_kib)),
        );
        text
    }
}

/// None of fewer than three points: nothing says how sure it is.
#[allow(clippy::cast_precision_loss, reason = "some dozens of points")]
fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (at, value) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - at).powi(2)).sum();
    let slope = points
        .iter()
        .map(|point| (point.0 - at) * (point.1 - value))
        .sum::<f64>()
        / spread;
    let off = |point: &(f64, f64)| (point.1 - value - slope * (point.0 - at)).powi(2);
    let variance = points.iter().map(off).sum::<f64>() / (count - 2.0);
    Some(Slope {
        value: slope,
        error: (variance / spread).sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::client::Times;
    use super::*;

    fn times() -> Times {
        let zero = Duration::ZERO;
        Times {
            answers: 1,
            p50: zero,
            p99: zero,
            max: zero,
            took: zero,
        }
    }

    /// Ten minutes of samples.
    fn samples(change: impl Fn(u64, &mut Sample)) -> Vec<Sample> {
        let one = |n: u64| {
            let mut sample = Sample {
                at: Duration::from_secs(10 * n),
                memory_kib: 40 << 10,
                files: 30,
                wal_kib: 4 << 10,
                database_kib: 1 << 10,
                reads: times(),
                writes: times(),
            };
            change(n, &mut sample);
            sample
        };
        (1..=60).map(one).collect()
    }

    fn holds(change: impl Fn(u64, &mut Sample)) -> (Verdict, bool, bool) {
        let samples = samples(change);
        let report = Report::of(&samples, Duration::from_mins(2));
        (report.memory(), report.files_hold(), report.wal_holds())
    }

    #[test]
    fn a_line_has_its_slope_and_no_error() {
        let points: Vec<_> = (0..10).map(|n| (f64::from(n), 7.0 + 2.0 * f64::from(n))).collect();
        let Slope { value, error } = slope(&points).unwrap();
        assert!((value - 2.0).abs() < 1e-9 && error < 1e-6, "{value} {error}");
        assert_eq!(slope(&points[..2]), None);
    }

    #[test]
    fn what_the_samples_cannot_tell_is_no_pass() {
        // Up and down by megabytes, from minute to minute.
        let noisy = |n: u64, sample: &mut Sample| sample.memory_kib += (n / 6 % 3) << 11;
        assert_eq!(holds(noisy), (Verdict::NotTold, true, true));
        let samples = samples(noisy);
        let report = Report::of(&samples, Duration::from_mins(2));
        assert_eq!(report.verdict(), Verdict::NotTold);
        let text = report.text(0);
        assert!(text.contains("**not told**"), "{text}");
        // Nor are too few.
        assert_eq!(Report::of(&samples[..12], Duration::ZERO).verdict(), Verdict::NotTold);
    }

    #[test]
    fn the_worst_of_each_minute_is_shown() {
        let slow = |n: u64, sample: &mut Sample| sample.reads.p99 = Duration::from_millis(if n == 8 { 777 } else { 1 });
        let samples = samples(slow);
        let text = Report::of(&samples, Duration::from_mins(2)).text(0);
        assert_eq!(text.matches("| 777").count(), 1, "{text}");
    }

    #[test]
    fn what_stays_as_it_was_passes_whatever_comes_and_goes() {
        assert_eq!(holds(|_, _| {}), (Verdict::Pass, true, true));
        // Backups, now and then, and what is counted while it comes or goes.
        let bursts = |n: u64, sample: &mut Sample| {
            sample.memory_kib += if n.is_multiple_of(12) { 32 << 10 } else { 100 * (n % 3) };
            sample.files += usize::from(n.is_multiple_of(5)) * 200;
        };
        assert_eq!(holds(bursts), (Verdict::Pass, true, true));
        // Until it is warm.
        let warming = |n: u64, sample: &mut Sample| sample.memory_kib = sample.memory_kib.min((20 + 2 * n) << 10);
        assert_eq!(holds(warming), (Verdict::Pass, true, true));
    }

    #[test]
    fn what_grows_does_not() {
        // 10 MiB an hour, and one file a minute.
        assert_eq!(
            holds(|n, sample| sample.memory_kib += n * 28),
            (Verdict::Miss, true, true)
        );
        let leak = |n: u64, sample: &mut Sample| sample.files += usize::try_from(n / 6).unwrap();
        assert_eq!(holds(leak), (Verdict::Pass, false, true));
        assert_eq!(
            holds(|n, sample| sample.wal_kib += n << 11),
            (Verdict::Pass, true, false)
        );
    }
}
