//! What figures are held against.

use std::fmt::Write as _;

use super::disk::Flushes;
use super::figures::shown;

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// Whether a slower disk than the bars were made for excuses a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depends {
    /// A time within which something has to be on the disk.
    OnDisk,
    /// A ratio, memory, a count.
    OnNothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Miss,
    /// The disk is too slow to say.
    Open,
}

impl Limit {
    fn judge(self, figure: f64, depends: Depends, disk_is_quick: bool) -> Verdict {
        let holds = match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        };
        match (holds, depends) {
            (true, _) => Verdict::Pass,
            (false, Depends::OnDisk) if !disk_is_quick => Verdict::Open,
            (false, _) => Verdict::Miss,
        }
    }
}

#[derive(Debug)]
struct Judged {
    what: String,
    bar: String,
    figure: String,
    verdict: Verdict,
}

/// The bars that were held against something, in the order of the table.
#[derive(Debug)]
pub struct Bars {
    disk_is_quick: bool,
    judged: Vec<Judged>,
}

impl Bars {
    pub fn new(flushes: &Flushes) -> Self {
        Self {
            disk_is_quick: flushes.are_quick(),
            judged: Vec::new(),
        }
    }

    pub fn hold(&mut self, what: &str, limit: Limit, unit: &str, depends: Depends, figure: f64) {
        let (sign, bar) = match limit {
            Limit::AtLeast(least) => ("≥", least),
            Limit::AtMost(most) => ("≤", most),
        };
        self.judged.push(Judged {
            what: what.to_owned(),
            bar: format!("{sign} {bar} {unit}"),
            figure: format!("{} {unit}", shown(figure)),
            verdict: limit.judge(figure, depends, self.disk_is_quick),
        });
    }

    /// A Markdown table; nothing where nothing was judged.
    pub fn text(&self) -> String {
        if self.judged.is_empty() {
            return String::new();
        }
        let mut text = "\n| bar | | measured | |\n|---|---|---|---|\n".to_owned();
        for judged in &self.judged {
            let verdict = match judged.verdict {
                Verdict::Pass => "PASS",
                Verdict::Miss => "**MISS**",
                Verdict::Open => "not judged: the disk is slow",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {verdict} |",
                judged.what, judged.bar, judged.figure
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bar_is_held_at_its_very_figure_and_missed_behind_it() {
        let judge = |limit: Limit, figure| limit.judge(figure, Depends::OnNothing, true);
        assert_eq!(judge(Limit::AtLeast(10.0), 10.0), Verdict::Pass);
        assert_eq!(judge(Limit::AtLeast(10.0), 9.99), Verdict::Miss);
        assert_eq!(judge(Limit::AtMost(64.0), 64.0), Verdict::Pass);
        assert_eq!(judge(Limit::AtMost(64.0), 64.01), Verdict::Miss);
    }

    #[test]
    fn a_slow_disk_excuses_times_only_and_hides_no_success() {
        let judge = |figure, depends, quick| Limit::AtMost(10.0).judge(figure, depends, quick);
        assert_eq!(judge(11.0, Depends::OnDisk, false), Verdict::Open);
        assert_eq!(judge(9.0, Depends::OnDisk, false), Verdict::Pass);
        assert_eq!(judge(11.0, Depends::OnDisk, true), Verdict::Miss);
        assert_eq!(judge(11.0, Depends::OnNothing, false), Verdict::Miss);
    }

    #[test]
    fn the_table_says_what_was_asked_for_what_came_and_whether_that_will_do() {
        let quick = Flushes::of(vec![Duration::from_micros(200)]);
        let mut bars = Bars::new(&quick);
        assert_eq!(bars.text(), "");
        bars.hold("read", Limit::AtLeast(10.0), "×", Depends::OnNothing, 4.25);
        bars.hold("memory", Limit::AtMost(20.0), "MiB", Depends::OnNothing, 16.0);
        let text = bars.text();
        assert!(text.contains("| read | ≥ 10 × | 4.2 × | **MISS** |\n"), "{text}");
        assert!(text.contains("| memory | ≤ 20 MiB | 16.0 MiB | PASS |\n"), "{text}");
    }
}
