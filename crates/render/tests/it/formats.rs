use std::collections::BTreeMap;
use std::process::Command;

use proptest::prelude::*;
use sealpod_core::injection::Format;
use sealpod_core::names::variable_name;
use sealpod_render::{Error, format, format_text, variables};

use crate::{Given, literal};

fn written(kind: Format, given: &Given) -> String {
    let bytes = format(kind, &given.map(), &literal(&[])).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn sample() -> Given {
    Given::texts([
        ("db.url", "postgres://u:p@db:5432/shop?x=1"),
        ("db-password", "it's \"so\" $ecret\\"),
        ("9lives", " two\nlines\r\n"),
        ("greeting", "grüße \u{1f980}\u{2028}"),
    ])
}

#[test]
fn an_env_file_quotes_what_a_shell_would_read_otherwise() {
    insta::assert_snapshot!(written(Format::Env, &sample()).replace('\r', "<CR>"), @r#"
    DB_PASSWORD='it'\''s "so" $ecret\'
    DB_URL='postgres://u:p@db:5432/shop?x=1'
    GREETING='grüße 🦀 '
    _9LIVES=' two
    lines<CR>
    '
    "#);
}

#[test]
fn a_properties_file_is_ascii() {
    insta::assert_snapshot!(written(Format::Properties, &sample()), @r#"
    DB_PASSWORD=it's "so" $ecret\\
    DB_URL=postgres://u:p@db:5432/shop?x=1
    GREETING=gr\u00fc\u00dfe \ud83e\udd80\u2028
    _9LIVES=\ two\nlines\r\n
    "#);
}

#[test]
fn json_and_yaml_keep_the_keys_as_they_are() {
    insta::assert_snapshot!(written(Format::Json, &sample()), @r#"
    {
      "9lives": " two\nlines\r\n",
      "db-password": "it's \"so\" $ecret\\",
      "db.url": "postgres://u:p@db:5432/shop?x=1",
      "greeting": "grüße 🦀\u2028"
    }
    "#);
    insta::assert_snapshot!(written(Format::Yaml, &sample()), @r#"
    "9lives": " two\nlines\r\n"
    "db-password": "it's \"so\" $ecret\\"
    "db.url": "postgres://u:p@db:5432/shop?x=1"
    "greeting": "grüße 🦀\u2028"
    "#);
}

#[test]
fn nothing_makes_a_text_that_reads_as_nothing() {
    let none = BTreeMap::new();
    let text = |kind| String::from_utf8(format_text(kind, &none, &literal(&[])).unwrap().to_vec()).unwrap();
    assert_eq!(text(Format::Env) + &text(Format::Properties), "");
    assert_eq!(
        (text(Format::Json).as_str(), text(Format::Yaml).as_str()),
        ("{}\n", "{}\n")
    );
}

#[test]
fn a_value_that_is_no_text_is_refused_by_its_key() {
    let given = Given::bytes([("keystore\n", &[0xff, 0xfe][..])]);
    for kind in [Format::Env, Format::Json, Format::Yaml, Format::Properties] {
        let error = format(kind, &given.map(), &literal(&[])).unwrap_err();
        assert_eq!(
            error,
            Error::NotText {
                key: "keystore\n".to_owned()
            }
        );
        assert!(error.to_string().starts_with(r#""keystore\n" is not text"#), "{error}");
    }
    let nul = Given::texts([("a", "x\0y")]);
    assert_eq!(
        format(Format::Env, &nul.map(), &literal(&[])),
        Err(Error::Nul { key: "a".to_owned() })
    );
    assert!(format(Format::Json, &nul.map(), &literal(&[])).is_ok());
}

#[test]
fn two_keys_that_are_one_variable_are_refused() {
    let given = Given::texts([("db-password", "1"), ("db.password", "2"), ("other", "3")]);
    for kind in [Format::Env, Format::Properties] {
        let error = format(kind, &given.map(), &literal(&[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""db-password" and "db.password" would both be the variable DB_PASSWORD: name one of them otherwise"#
        );
    }
    assert!(variables(&given.texts_map(), &literal(&[])).is_err());
    assert!(format(Format::Json, &given.map(), &literal(&[])).is_ok());
}

#[test]
fn a_variable_that_changes_how_programs_start_has_to_be_named_literally() {
    for key in [
        "ld.preload",
        "LD_LIBRARY_PATH",
        "path",
        "bash_env",
        "node-options",
        "PYTHONPATH",
        "ifs",
        "ld_anything",
    ] {
        let given = Given::texts([("fine", "1"), (key, "2")]);
        let error = format(Format::Env, &given.map(), &literal(&["fine"])).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { key: named, .. } if named == key),
            "{key}: {error}"
        );
        assert!(variables(&given.texts_map(), &literal(&[])).is_err(), "{key}");
        assert!(format(Format::Env, &given.map(), &literal(&[key])).is_ok(), "{key}");
        assert_eq!(
            variables(&given.texts_map(), &literal(&[key])).unwrap()[&variable_name(key)],
            "2"
        );
    }
    let fine = Given::texts([("ldap-password", "1"), ("pathology", "2"), ("envoy", "3")]);
    assert!(format(Format::Env, &fine.map(), &literal(&[])).is_ok());
}

/// What a shell that sources the file gives to a program.
fn sourced(text: &[u8]) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("env");
    std::fs::write(&file, text).unwrap();
    let out = Command::new("sh")
        .args(["-c", "set -a; . \"$0\"; env -0"])
        .arg(&file)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap();
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let pairs = out.stdout.split(|b| *b == 0).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = std::str::from_utf8(pair).unwrap().split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// Reads properties as Java's documentation of `Properties.load` says.
fn properties(text: &str) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap();
        let mut units = Vec::new();
        let mut chars = value.trim_start_matches([' ', '\t', '\x0c']).chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                units.extend(c.encode_utf16(&mut [0; 2]).iter());
                continue;
            }
            units.push(match chars.next().unwrap() {
                'n' => 10,
                'r' => 13,
                't' => 9,
                'f' => 12,
                'u' => u16::from_str_radix(&chars.by_ref().take(4).collect::<String>(), 16).unwrap(),
                other => u16::try_from(u32::from(other)).unwrap(),
            });
        }
        read.insert(key.to_owned(), String::from_utf16(&units).unwrap());
    }
    read
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = prop_oneof![
        any::<String>(),
        "[ -~\n\r\t]{1,40}",
        "['\"$`\\\\ \n#=:!~*]{1,12}",
        "[\u{0}-\u{a0}\u{2028}\u{2029}\u{feff}\u{fffe}\u{1f980}]{1,12}",
    ];
    proptest::collection::btree_map("[a-z][a-z0-9._-]{0,12}|[\\PC]{1,30}", value, 0..6)
}

proptest! {
    #[test]
    fn json_and_yaml_read_back_as_they_were(texts in texts()) {
        let given: BTreeMap<_, _> = texts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let json = format_text(Format::Json, &given, &literal(&[])).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<BTreeMap<String, String>>(&json).unwrap(), &texts);
        let yaml = format_text(Format::Yaml, &given, &literal(&[])).unwrap();
        prop_assert_eq!(&serde_yaml::from_slice::<BTreeMap<String, String>>(&yaml).unwrap(), &texts);
    }

    #[test]
    fn properties_read_back_as_they_were(texts in texts()) {
        let given: BTreeMap<_, _> = texts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if let Ok(made) = format_text(Format::Properties, &given, &literal(&[])) {
            prop_assert!(made.is_ascii());
            let want: BTreeMap<_, _> = texts.iter().map(|(k, v)| (variable_name(k), v.clone())).collect();
            prop_assert_eq!(properties(std::str::from_utf8(&made).unwrap()), want);
        }
    }
}

proptest! {
    // Each case starts a shell.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_shell_that_sources_an_env_file_has_every_value(texts in texts()) {
        let given: BTreeMap<_, _> = texts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if let Ok(made) = format_text(Format::Env, &given, &literal(&[])) {
            let there = sourced(&made);
            for (key, text) in &texts {
                prop_assert_eq!(there.get(&variable_name(key)), Some(text), "{:?}", key);
            }
        }
    }
}
