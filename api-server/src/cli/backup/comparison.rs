//! What `--compare` shows.

use std::io::{self, Write};
use std::path::Path;

use crate::backup::database_name;
use crate::store::Comparison;

pub fn tell(comparison: &Comparison, live: &Path) -> io::Result<()> {
    let mut output = io::stdout();
    if let Some((there, here)) = comparison.epochs {
        writeln!(
            output,
            "the backup is of database {}, and {} is database {}: that is as it should be where one of them was restored since, which \
             makes it another one; otherwise this is the backup of somebody else's",
            database_name(there),
            live.display(),
            database_name(here)
        )?;
    }
    for (what, lines) in [
        ("the backup revives", &comparison.revives),
        ("the backup lacks", &comparison.lacks),
    ] {
        writeln!(output, "{what}: {}", if lines.is_empty() { "nothing" } else { "" })?;
        for line in lines {
            writeln!(output, "  {line}")?;
        }
    }
    let values = &comparison.values;
    let none = if values.lines.is_empty() { "none" } else { "" };
    writeln!(
        output,
        "secrets and configurations that are not the same (there: in the backup; here: in the database of today): {none}"
    )?;
    for line in &values.lines {
        writeln!(output, "  {line}")?;
    }
    if values.more > 0 {
        writeln!(output, "  and {} more", values.more)?;
    }
    Ok(())
}
