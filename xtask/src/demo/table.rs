//! The closing table: what was measured, and the project's targets beside it. Pure.

use std::fmt::Write;
use std::time::Duration;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    name: String,
    /// The number with its unit, or why there is none.
    measured: Result<String, String>,
    /// The target, and whether it is met.
    target: Option<(String, bool)>,
}

/// A limit that a measured number must not exceed.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// In MiB, of memory.
    Mebibytes(u32),
    /// In 10⁶ bytes, of files.
    Megabytes(u32),
}

impl Row {
    /// An amount of bytes, to be within a limit; `None`: why it could not be measured stands in its place.
    pub fn bytes(name: impl Into<String>, bytes: Option<u64>, limit: Limit, unmeasured: &str) -> Self {
        let (unit, one, limit) = match limit {
            Limit::Mebibytes(limit) => ("MiB", 1 << 20, limit),
            Limit::Megabytes(limit) => ("MB", 1_000_000, limit),
        };
        let target = format!("≤ {limit} {unit}");
        Self {
            name: name.into(),
            measured: match bytes {
                Some(bytes) => Ok(in_units(bytes, one, unit)),
                None => Err(unmeasured.to_string()),
            },
            target: bytes.map(|bytes| (target, bytes <= u64::from(limit) * one)),
        }
    }

    /// A time, with or without a limit.
    pub fn time(name: impl Into<String>, time: Duration, limit: Option<Duration>) -> Self {
        Self {
            name: name.into(),
            measured: Ok(short(time)),
            target: limit.map(|limit| (format!("≤ {} s", limit.as_secs()), time <= limit)),
        }
    }

    /// Something that was not measured, and why.
    pub fn unmeasured(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            measured: Err(why.into()),
            target: None,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn in_units(bytes: u64, one: u64, unit: &str) -> String {
    format!("{:.1} {unit}", bytes as f64 / one as f64)
}

/// `34 ms`, `2.35 s`.
fn short(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{} ms", time.as_millis());
    }
    format!("{:.2} s", time.as_secs_f64())
}

/// The rows as lines with aligned columns.
pub fn render(rows: &[Row]) -> String {
    let width = |text: &dyn Fn(&Row) -> usize| rows.iter().map(text).max().unwrap_or(0);
    let names = width(&|row| row.name.chars().count());
    let numbers = width(&|row| row.measured.as_ref().map_or(0, |number| number.chars().count()));
    let targets = width(&|row| row.target.as_ref().map_or(0, |(target, _)| target.chars().count()));
    let mut table = String::new();
    for row in rows {
        let name = format!("  {:<names$}", row.name);
        let line = match (&row.measured, &row.target) {
            (Ok(number), Some((target, met))) => {
                let verdict = if *met { "✓" } else { "✗ over the target" };
                format!("{name}  {number:>numbers$}   {target:<targets$}  {verdict}")
            }
            (Ok(number), None) => format!("{name}  {number:>numbers$}"),
            (Err(why), _) => format!("{name}  not measured: {why}"),
        };
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_targets_are_judged() {
        let rows = [
            Row::bytes("server", Some(15 << 20), Limit::Mebibytes(20), ""),
            Row::bytes("image", Some(8_300_000), Limit::Megabytes(8), ""),
            Row::time(
                "update to file",
                Duration::from_millis(34),
                Some(Duration::from_secs(2)),
            ),
            Row::time("start", Duration::from_millis(2350), None),
            Row::unmeasured("x", "it is elsewhere"),
        ];
        let table = render(&rows);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "  server          15.0 MiB   ≤ 20 MiB  ✓",
                "  image             8.3 MB   ≤ 8 MB    ✗ over the target",
                "  update to file     34 ms   ≤ 2 s     ✓",
                "  start             2.35 s",
                "  x               not measured: it is elsewhere",
            ]
        );
    }

    #[test]
    fn a_target_is_met_up_to_its_last_byte() {
        let met = |bytes| Row::bytes("", Some(bytes), Limit::Mebibytes(8), "").target.unwrap().1;
        assert!(met(8 << 20));
        assert!(!met((8 << 20) + 1));
    }

    #[test]
    fn what_was_not_measured_has_no_target_to_meet() {
        let row = Row::bytes(
            "sidecar",
            None,
            Limit::Mebibytes(8),
            "its process is not on this machine",
        );
        assert_eq!(row.measured.unwrap_err(), "its process is not on this machine");
        assert!(row.target.is_none());
    }
}
