use proptest::prelude::*;

use super::program::tests::steps_of;
use super::*;

fn matches(pattern: &str, text: &str) -> bool {
    pattern
        .parse::<Pattern>()
        .unwrap_or_else(|e| panic!("{pattern:?}: {e}"))
        .matches(text)
}

#[test]
fn wildcards_match_runs_single_characters_and_alternatives() {
    for (pattern, yes, no) in [
        ("*", &["", "a", "a/b", "ü"][..], &[][..]),
        ("api-*", &["api-", "api-x", "api-a/b"], &["api", "xapi-"]),
        ("*-prod", &["-prod", "eu-prod"], &["prod", "eu-prod-x", "EU-PROD"]),
        ("a?c", &["abc", "aüc"], &["ac", "abbc"]),
        ("api-{v1,v2}", &["api-v1", "api-v2"], &["api-", "api-v3", "api-v1v2"]),
        ("{a*,b?}-x", &["a-x", "aaa-x", "bb-x"], &["b-x", "bbb-x"]),
        ("a{-old,}", &["a", "a-old"], &["a-", "a-old-old"]),
        ("{a,b}{c,d}", &["ac", "bd"], &["ab", "a", "acd"]),
        (r"\*\?\{\}\,\\", &[r"*?{},\"], &["a"]),
        ("a,b}", &["a,b}"], &["a"]),
        (r"{a\,b,c\}}", &["a,b", "c}"], &["a", "b"]),
    ] {
        for text in yes {
            assert!(matches(pattern, text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(!matches(pattern, text), "{pattern} should not match {text:?}");
        }
    }
}

#[test]
fn bad_patterns_say_what_is_wrong() {
    use PatternError::*;
    for (pattern, error) in [
        ("", Empty),
        ("a\\", DanglingEscape),
        ("{a", OpenGroup),
        ("{a,{b}}", NestedGroup),
        ("{}", EmptyGroup),
        ("{,}", EmptyGroup),
        ("{1,2,3,4,5,6,7,8,9}", TooManyAlternatives),
        (&"a".repeat(257), TooLong),
    ] {
        assert_eq!(pattern.parse::<Pattern>(), Err(error), "{pattern:?}");
    }
    assert!(matches("{1,2,3,4,5,6,7,8}", "8"));
}

#[test]
fn the_limit_does_not_count_escapes() {
    assert!(matches(&"\\*".repeat(256), &"*".repeat(256)));
    assert_eq!("\\*".repeat(257).parse::<Pattern>(), Err(PatternError::TooLong));
}

#[test]
fn only_a_pattern_without_wildcards_is_a_literal() {
    assert_eq!(r"a\*b".parse::<Pattern>().unwrap().literal().as_deref(), Some("a*b"));
    assert_eq!("a*b".parse::<Pattern>().unwrap().literal(), None);
    assert_eq!("{a}".parse::<Pattern>().unwrap().literal(), None);
}

/// Most that the matcher may do for one character of a text, whatever the pattern.
const STEPS_A_CHARACTER: u64 = MAX_CHARACTERS as u64 + 2;

fn assert_linear(pattern: &Pattern, text: &str) {
    let characters = text.chars().count() as u64;
    let steps = steps_of(|| {
        pattern.matches(text);
    });
    assert!(
        steps <= (characters + 1) * STEPS_A_CHARACTER,
        "{steps} steps for {characters} characters of {pattern}"
    );
}

#[test]
fn no_pattern_makes_the_matcher_backtrack() {
    let names = [
        "a".repeat(64 * 1024),
        "a".repeat(64 * 1024) + "b",
        "ab".repeat(32 * 1024),
    ];
    for source in [
        "{a*,*a,?*}".repeat(25),
        "*a".repeat(127) + "*b",
        "*".repeat(255) + "b",
        "{*,*,*,*,*,*,*,*}".repeat(15),
        "{a,aa,aaa,a*,*,?,??,*?}".repeat(11),
        "?".repeat(255) + "*",
    ] {
        let pattern: Pattern = source.parse().unwrap();
        for name in &names {
            assert_linear(&pattern, name);
        }
    }
}

/// The reference: expands the groups, then the textbook recursive definition of `*` and `?`.
fn reference(pattern: &[Piece], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((Piece::Run, tail)), rest) => {
            reference(tail, text) || rest.is_some_and(|(_, rest)| reference(pattern, rest))
        }
        (Some((Piece::Group(alternatives), tail)), _) => alternatives
            .iter()
            .any(|a| reference(&[a.as_slice(), tail].concat(), text)),
        (Some((Piece::One, tail)), Some((_, rest))) => reference(tail, rest),
        (Some((Piece::Char(want), tail)), Some((c, rest))) => want == c && reference(tail, rest),
        (Some(_), None) => false,
    }
}

#[derive(Debug, Clone)]
enum Piece {
    Char(char),
    One,
    Run,
    Group(Vec<Vec<Piece>>),
}

fn source(pieces: &[Piece]) -> String {
    let one = |piece: &Piece| match piece {
        Piece::Char(c) => Pattern::escape(&c.to_string()),
        Piece::One => "?".to_owned(),
        Piece::Run => "*".to_owned(),
        Piece::Group(all) => format!("{{{}}}", all.iter().map(|a| source(a)).collect::<Vec<_>>().join(",")),
    };
    pieces.iter().map(one).collect()
}

fn plain() -> impl Strategy<Value = Piece> {
    prop_oneof![4 => proptest::char::ranges(vec!['a'..='c', '*'..=',', '{'..='}'].into()).prop_map(Piece::Char),
        1 => Just(Piece::One), 1 => Just(Piece::Run)]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let group = prop::collection::vec(prop::collection::vec(plain(), 1..3), 1..4).prop_map(Piece::Group);
    prop::collection::vec(prop_oneof![5 => plain(), 1 => group], 1..7)
}

proptest! {
    #[test]
    fn matching_agrees_with_the_textbook_definition(pieces in pieces(), text in "[abc*,{}]{0,8}") {
        let chars: Vec<char> = text.chars().collect();
        prop_assert_eq!(matches(&source(&pieces), &text), reference(&pieces, &chars));
    }

    /// At any place of the words that hold its steps.
    #[test]
    fn a_pattern_behind_others_matches_as_it_does_alone(
        pieces in pieces(),
        text in "[abc*,{}]{0,8}",
        before in 0..200_usize,
        after in 0..3_usize,
    ) {
        let (before, after) = ("x".repeat(before), "*".repeat(after * 40));
        let (source, chars) = (source(&pieces), text.chars().collect::<Vec<_>>());
        prop_assume!(before.len() + source.len() <= MAX_CHARACTERS);
        let whole = format!("{before}{source}");
        prop_assert_eq!(matches(&whole, &format!("{before}{text}")), reference(&pieces, &chars));
        if let Ok(open) = format!("{whole}{after}").parse::<Pattern>() && !after.is_empty() {
            let want = (0..=chars.len()).any(|end| reference(&pieces, &chars[..end]));
            prop_assert_eq!(open.matches(&format!("{before}{text}")), want);
        }
    }

    #[test]
    fn an_escaped_text_matches_itself_and_is_a_literal(text in "\\PC{1,40}") {
        let pattern: Pattern = Pattern::escape(&text).parse().unwrap();
        prop_assert!(pattern.matches(&text));
        prop_assert_eq!(pattern.literal(), Some(text));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = text.parse::<Pattern>().map(|p| p.matches(&text));
    }

    /// Twice the text is at most twice the work, for any pattern and not only for those that somebody thought of.
    #[test]
    fn matching_takes_time_in_proportion_to_the_text(pieces in prop::collection::vec(pieces(), 1..30), text in "[abc]{1,50}") {
        let source: String = pieces.iter().map(|pieces| source(pieces)).collect();
        let Ok(pattern) = source.parse::<Pattern>() else { return Ok(()) };
        assert_linear(&pattern, &text);
        assert_linear(&pattern, &text.repeat(50));
    }

    #[test]
    fn what_a_pattern_matches_begins_and_ends_as_it_says(pieces in pieces(), text in "[abc*,{}]{0,8}") {
        let pattern: Pattern = source(&pieces).parse().unwrap();
        let affixes = pattern.affixes();
        let inside = text
            .strip_prefix(affixes.prefix.as_str())
            .is_some_and(|rest| rest.ends_with(affixes.suffix.as_str()));
        if pattern.matches(&text) {
            prop_assert!(inside, "{pattern}: {affixes:?}");
        }
        if affixes.is_all {
            prop_assert_eq!(pattern.matches(&text), inside, "{}: {:?}", pattern, affixes);
        }
        if let Some(texts) = pattern.texts(64) {
            prop_assert_eq!(texts.contains(&text), pattern.matches(&text));
            prop_assert!(texts.iter().all(|text| pattern.matches(text)));
        }
    }
}

#[test]
fn patterns_tell_what_can_be_looked_up_instead_of_tried() {
    let texts = |source: &str, most| source.parse::<Pattern>().unwrap().texts(most);
    assert_eq!(
        texts("db-{host,port}{,-old}", 4),
        Some(
            ["db-host", "db-host-old", "db-port", "db-port-old"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    assert_eq!(texts("db-{host,port}{,-old}", 3), None);
    assert_eq!(texts("{a,b*}", 9), None);
    assert_eq!(texts(&"{a,b,c,d,e,f,g,h}".repeat(15), 64), None);
    for (source, prefix, suffix, is_all) in [
        ("*", "", "", true),
        ("db-*", "db-", "", true),
        ("db-**-x", "db-", "-x", true),
        ("db-?-x", "db-", "-x", false),
        ("{a,b}c*d", "", "d", false),
        ("a{b,c}d", "a", "d", false),
        ("a*{b,c}", "a", "", false),
    ] {
        let affixes = source.parse::<Pattern>().unwrap().affixes();
        assert_eq!(
            (affixes.prefix.as_str(), affixes.suffix.as_str(), affixes.is_all),
            (prefix, suffix, is_all),
            "{source}"
        );
    }
}
