//! A pattern in the form that is matched: its live steps are the bits of a few words and advance together, so a
//! character of the text costs a handful of operations whatever the pattern. It matters: a bundle tries hundreds of
//! patterns that its caller wrote on every name of a project.

use super::{Affixes, MAX_CHARACTERS};

/// One step. Steps run in order but for the jumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Char(char),
    /// `?`
    One,
    /// `*`
    Run,
    /// The start of a group: go on at each of these steps.
    Fork(Vec<usize>),
    /// The end of an alternative: go on behind the group.
    Jump(usize),
}

/// A character of a pattern makes at most one step; behind the last one is the end.
const WORDS: usize = MAX_CHARACTERS / 64 + 1;

/// A set of steps.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Set([u64; WORDS]);

impl Set {
    fn insert(&mut self, step: usize) {
        self.0[step / 64] |= 1 << (step % 64);
    }

    fn has(&self, step: usize) -> bool {
        self.0[step / 64] & (1 << (step % 64)) != 0
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Program {
    steps: Vec<Step>,
    start: Set,
    runs: Set,
    /// The steps that read any character.
    wild: Set,
    /// For each character of the pattern, in order, the steps that read it, the wild ones included.
    chars: Vec<(char, Set)>,
    /// Where each fork and jump leads, in order; always forward.
    edges: Vec<(usize, Vec<usize>)>,
}

impl Program {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        let (mut runs, mut wild, mut edges) = (Set::default(), Set::default(), Vec::new());
        let mut chars: Vec<char> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Char(c) => chars.push(*c),
                Step::One => wild.insert(at),
                Step::Run => {
                    wild.insert(at);
                    runs.insert(at);
                }
                Step::Fork(targets) => edges.push((at, targets.clone())),
                Step::Jump(target) => edges.push((at, vec![*target])),
            }
        }
        chars.sort_unstable();
        chars.dedup();
        let mut chars: Vec<(char, Set)> = chars.into_iter().map(|c| (c, wild)).collect();
        for (at, step) in steps.iter().enumerate() {
            if let Step::Char(c) = step
                && let Ok(found) = chars.binary_search_by_key(c, |(c, _)| *c)
            {
                chars[found].1.insert(at);
            }
        }
        let mut start = Set::default();
        start.insert(0);
        let mut program = Self {
            steps,
            start,
            runs,
            wild,
            chars,
            edges,
        };
        program.start = program.closed(start);
        program
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether these are all texts there are: without a wildcard, and not more than `most`.
    pub(super) fn texts(&self, most: usize, texts: &mut Vec<String>) -> bool {
        self.texts_from(0, String::new(), most, texts)
    }

    fn texts_from(&self, mut at: usize, mut text: String, most: usize, texts: &mut Vec<String>) -> bool {
        loop {
            match self.steps.get(at) {
                Some(Step::Char(c)) => {
                    text.push(*c);
                    at += 1;
                }
                Some(Step::Jump(target)) => at = *target,
                Some(Step::Fork(targets)) => {
                    return targets
                        .iter()
                        .all(|target| self.texts_from(*target, text.clone(), most, texts));
                }
                Some(Step::One | Step::Run) => return false,
                None => {
                    texts.push(text);
                    return texts.len() <= most;
                }
            }
        }
    }

    pub(super) fn affixes(&self) -> Affixes {
        // Behind the last group everything is read whatever was chosen in it.
        let behind = self.edges.iter().flat_map(|(_, targets)| targets).max();
        let behind = behind.map_or(0, |last| *last);
        let plain = |step: &Step| if let Step::Char(c) = step { Some(*c) } else { None };
        let prefix: Vec<char> = self.steps.iter().map_while(plain).collect();
        let rest = &self.steps[prefix.len().max(behind).min(self.steps.len())..];
        let mut suffix: Vec<char> = rest.iter().rev().map_while(plain).collect();
        suffix.reverse();
        let middle = &self.steps[prefix.len()..self.steps.len() - suffix.len()];
        Affixes {
            is_all: !middle.is_empty() && middle.iter().all(|step| *step == Step::Run),
            prefix: prefix.into_iter().collect(),
            suffix: suffix.into_iter().collect(),
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let mut now = self.start;
        for c in text.chars() {
            #[cfg(test)]
            tests::step();
            let readers = match self.chars.binary_search_by_key(&c, |(c, _)| *c) {
                Ok(at) => self.chars[at].1,
                Err(_) => self.wild,
            };
            let (mut next, mut carry) = (Set::default(), 0);
            for (word, next) in next.0.iter_mut().enumerate() {
                let live = now.0[word] & readers.0[word];
                let (stay, go_on) = (live & self.runs.0[word], live & !self.runs.0[word]);
                *next = stay | (go_on << 1) | carry;
                carry = go_on >> 63;
            }
            if next == Set::default() {
                return false;
            }
            now = self.closed(next);
        }
        now.has(self.steps.len())
    }

    /// With all steps that are reached without reading a character: behind a `*`, and by forks and jumps. One pass
    /// does it, because all of them lead forward.
    fn closed(&self, mut set: Set) -> Set {
        let mut carry = 0;
        for (word, live) in set.0.iter_mut().enumerate() {
            *live |= carry;
            let runs = self.runs.0[word];
            while ((*live & runs) << 1) & !*live != 0 {
                #[cfg(test)]
                tests::step();
                *live |= (*live & runs) << 1;
            }
            carry = (*live & runs) >> 63;
        }
        for (from, targets) in &self.edges {
            if !set.has(*from) {
                continue;
            }
            for target in targets {
                let mut at = *target;
                while !set.has(at) {
                    #[cfg(test)]
                    tests::step();
                    set.insert(at);
                    at += usize::from(self.runs.has(at));
                }
            }
        }
        set
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    thread_local!(static STEPS: Cell<u64> = const { Cell::new(0) });

    /// Counts what the matcher does: a character of the text, or a step that becomes live without one.
    pub(super) fn step() {
        STEPS.set(STEPS.get() + 1);
    }

    /// What `work` counted.
    pub(crate) fn steps_of(work: impl FnOnce()) -> u64 {
        let before = STEPS.get();
        work();
        STEPS.get() - before
    }
}
