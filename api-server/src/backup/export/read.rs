//! What an export has, as it is read back.

use std::io::{BufRead, BufReader, Read};

use super::super::content::{WINDOW, unpacked};
use super::super::restore::{Asked, Source};
use super::super::{Damage, Error};
use super::CONTENT;
use super::line::Line;
use crate::audit::{self, AuditKey, End, Segment, StoredEntry};

/// Longest line: names and metadata of an entry are bounded far below.
const MAX_LINE: u64 = 8 * 1024 * 1024;

/// What an export consists of.
pub enum Part {
    /// The entries that follow are of this one.
    Segment(Segment),
    Entry(Box<StoredEntry>),
}

/// What an export has of each chain; an error where an entry is not as it was written, or missing.
pub fn segments<S: Source>(source: &S, asked: &Asked<'_>, key: &AuditKey) -> Result<Vec<Segment>, Error> {
    Ok(segments_if(source, asked, key, |_| true)?.unwrap_or_default())
}

/// As [`segments`]. None, and nothing further is read, from the first one on that is not `wanted`.
pub(super) fn segments_if<S: Source>(
    source: &S,
    asked: &Asked<'_>,
    key: &AuditKey,
    wanted: impl Fn(&Segment) -> bool,
) -> Result<Option<Vec<Segment>>, Error> {
    let mut found: Vec<(Segment, End)> = Vec::new();
    let mut is_other = false;
    let read = read_export(source, asked, |part| {
        match part {
            // This only ends the reading.
            Part::Segment(segment) if !wanted(&segment) => {
                is_other = true;
                return Err(Damage::Unpacked.into());
            }
            Part::Segment(segment) => found.push((segment, segment.begin())),
            Part::Entry(entry) => {
                let (Segment { chain, .. }, end) = found.last_mut().ok_or(Damage::Unpacked)?;
                let chain = *chain;
                let hash = audit::check(key, *end, &entry).map_err(|broken| Damage::Chain { chain, broken })?;
                *end = (entry.seq, hash);
            }
        }
        Ok(())
    });
    if is_other {
        return Ok(None);
    }
    read?;
    for (segment, end) in &found {
        let chain = segment.chain;
        segment
            .ends_at(*end)
            .map_err(|broken| Damage::Chain { chain, broken })?;
    }
    Ok(Some(found.into_iter().map(|(segment, _)| segment).collect()))
}

/// Reads an export to its end. What it says is believed once that is reached: the seal covers all of it.
pub fn read_export<S: Source>(
    source: &S,
    asked: &Asked<'_>,
    mut see: impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), Error> {
    let (opener, _) = asked.opener(source.open()?)?;
    if opener.header.content != CONTENT {
        return Err(Error::NotAnExport(opener.header.content));
    }
    let mut decoder = zstd::stream::read::Decoder::new(opener)?;
    decoder.window_log_max(WINDOW)?;
    let mut lines = BufReader::new(decoder);
    let (mut chain, mut text) = (None, Vec::new());
    loop {
        text.clear();
        let read = (&mut lines)
            .take(MAX_LINE)
            .read_until(b'\n', &mut text)
            .map_err(unpacked)?;
        if read == 0 {
            return Ok(());
        }
        let line = serde_json::from_slice(&text).map_err(|_| Damage::Unpacked)?;
        see(match line {
            Line::Segment { segment } => {
                let segment = segment.parse().ok_or(Damage::Unpacked)?;
                chain = Some(segment.chain);
                Part::Segment(segment)
            }
            Line::Entry(entry) => Part::Entry(Box::new(
                entry.of(chain.ok_or(Damage::Unpacked)?).ok_or(Damage::Unpacked)?,
            )),
        })?;
    }
}
