use std::collections::BTreeMap;

use proptest::prelude::*;
use sealpod_render::{Error, MAX_SOURCE_BYTES, Values, template};

use crate::Given;

fn try_with(source: &str, given: &Given) -> Result<String, Error> {
    let configurations = [("log.level", "debug"), ("empty", "")];
    let values = Values {
        secrets: given.map(),
        configurations: configurations.into_iter().collect(),
    };
    template(source, &values).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

fn sample() -> Given {
    Given::bytes([
        ("user", &b"ada"[..]),
        ("db-password", b"it's p@ss/w\xc3\xb6rd"),
        ("keystore", &[0xff, 0xfe, 0x00]),
        ("tls.pem", PEM.as_bytes()),
    ])
}

const PEM: &str = "junk\n-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\r\n\
    -----BEGIN CERTIFICATE-----\nQg==\n-----END CERTIFICATE-----\n\
    -----BEGIN EC PRIVATE KEY-----\nQw==\n-----END EC PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\ncut off";

fn rendered(source: &str) -> Result<String, Error> {
    try_with(source, &sample())
}

#[test]
fn a_template_has_secrets_configurations_and_filters() {
    let source = r#"[db]
url = postgres://{{ secrets.user }}:{{ secrets["db-password"]|urlquote }}@db/shop
level = {{ configurations["log.level"] }}{{ configurations.empty }}
json = {{ secrets["db-password"]|json }} {{ [1, true, none, {"a": "b"}]|json }}
shell = {{ secrets["db-password"]|shellquote }}
store = {{ secrets.keystore|b64encode }}
back = {{ "YWRh\n"|b64decode }} {{ "//4A"|b64decode|b64encode }}
leaf = {{ secrets["tls.pem"]|pem("CERTIFICATE")|first }}
key = {{ secrets["tls.pem"]|pem("PRIVATE KEY")|join }}
blocks = {{ secrets["tls.pem"]|pem|length }}
missing = {{ secrets.nobody|default("-") }} {{ "yes" if secrets.nobody is defined else "no" }}
{%- for key in secrets %} {{ key }}{% endfor %}
"#;
    insta::assert_snapshot!(rendered(source).unwrap(), @r#"
    [db]
    url = postgres://ada:it%27s%20p%40ss%2Fw%C3%B6rd@db/shop
    level = debug
    json = "it's p@ss/wörd" [1, true, null, {"a": "b"}]
    shell = 'it'\''s p@ss/wörd'
    store = //4A
    back = ada //4A
    leaf = -----BEGIN CERTIFICATE-----
    QQ==
    -----END CERTIFICATE-----

    key = -----BEGIN EC PRIVATE KEY-----
    Qw==
    -----END EC PRIVATE KEY-----

    blocks = 3
    missing = - no db-password keystore tls.pem user
    "#);
}

#[test]
fn a_text_is_neither_escaped_nor_shortened() {
    assert_eq!(rendered("<{{ '&<>' }}>\n\n").unwrap(), "<&<>>\n\n");
    assert_eq!(rendered("").unwrap(), "");
}

#[test]
fn a_key_that_is_not_there_is_named_with_its_line() {
    let error = rendered("a\n{{ secrets.nobody }}").unwrap_err();
    let want = Error::NoKey {
        line: 2,
        map: "secrets",
        key: "nobody".to_owned(),
    };
    assert_eq!(error, want);
    let error = rendered("{{ configurations[\"log-level\"]|json }}").unwrap_err();
    assert!(
        matches!(&error, Error::NoKey { map: "configurations", key, .. } if key == "log-level"),
        "{error}"
    );
    let error = rendered("{{ secrets.nobody|default('') }}{{ user }}").unwrap_err();
    assert!(
        error.to_string().contains("undefined value") || error.to_string().contains("nobody"),
        "{error}"
    );
}

#[test]
fn a_value_that_is_no_text_has_to_be_encoded() {
    for source in [
        "{{ secrets.keystore }}",
        "{{ secrets.keystore ~ 'x' }}",
        "{{ secrets.keystore|upper }}",
        "{{ secrets.keystore|json }}",
        "{{ [secrets.keystore] }}",
        "{{ secrets|items }}",
        "{% set x %}{{ secrets.keystore }}{% endset %}",
    ] {
        let error = rendered(source).unwrap_err();
        assert_eq!(
            error,
            Error::Binary {
                key: "keystore".to_owned()
            },
            "{source}"
        );
    }
}

#[test]
fn a_template_reads_nothing_else_and_calls_nothing() {
    for source in [
        "{% include '/etc/passwd' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ debug() }}",
        "{{ env('HOME') }}",
        "{{ lookup('x') }}",
        "{{ secrets.user|nosuchfilter }}",
    ] {
        assert!(matches!(rendered(source), Err(Error::Template { .. })), "{source}");
    }
}

#[test]
fn what_would_not_end_or_not_fit_is_stopped() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert_eq!(rendered(endless), Err(Error::TooMuchWork));
    let doubling =
        "{% set n = namespace(x='0123456789abcdef') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    assert_eq!(rendered(doubling), Err(Error::TooMuchWork));
    assert_eq!(rendered("{{ 'x' * 2000000 }}"), Err(Error::OutputTooLarge));
    assert_eq!(rendered(&"x".repeat(MAX_SOURCE_BYTES + 1)), Err(Error::SourceTooLarge));
    assert!(rendered(&"(".repeat(MAX_SOURCE_BYTES)).is_ok(), "plain text");
    for opener in ["{{ ((((", "{{ [[[[", "{{ {1:{1:", "{{ not not "] {
        assert!(rendered(&opener.repeat(5_000)).is_err());
        assert!(rendered(&format!("{{{{ {}", opener[3..].repeat(10_000))).is_err());
    }
}

#[test]
fn no_error_holds_a_value() {
    let given = Given::texts([("a", "canary-canary")]);
    for source in [
        "{{ secrets.a|int }}",
        "{{ secrets.a|float }}",
        "{{ secrets.a + 1 }}",
        "{{ secrets.a.b.c }}",
        "{{ secrets.a() }}",
        "{{ secrets.a.nomethod() }}",
        "{{ secrets.a|b64decode }}",
        "{{ secrets[secrets.a] }}",
        "{{ secrets.a|pem('X')|first }}",
        "{{ {}[secrets.a].x }}",
        "{{ range(secrets.a) }}",
        "{{ secrets.a|format('%d') }}",
        "{{ secrets.a|round }}",
        "{{ secrets.a|join(1, 2, 3) }}",
        "{{ 1|attr(secrets.a)|int }}",
        "{{ [1]|map(secrets.a) }}",
        "{{ [1]|select(secrets.a) }}",
        "{% for x in 5 %}{{ secrets.a }}{% endfor %}",
        "{{ secrets.a|sort(nonsense=secrets.a) }}",
    ] {
        if let Err(error) = try_with(source, &given) {
            assert!(!format!("{error} {error:?}").contains("canary"), "{source}: {error}");
        }
    }
}

/// Pieces of templates in any order.
fn source() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{{ "),
        Just(" }}"),
        Just("{% "),
        Just(" %}"),
        Just("for k in secrets"),
        Just("endfor"),
        Just("if "),
        Just("endif"),
        Just("set x = "),
        Just("secrets"),
        Just("secrets.user"),
        Just("secrets.keystore"),
        Just("[k]"),
        Just("|b64encode"),
        Just("|b64decode"),
        Just("|json"),
        Just("|shellquote"),
        Just("|urlquote"),
        Just("|pem"),
        Just("|items"),
        Just("|join"),
        Just("|first"),
        Just("|default(1)"),
        Just("("),
        Just(")"),
        Just("["),
        Just("]"),
        Just("{#"),
        Just("#}"),
        Just("'"),
        Just("\\u{"),
        Just("é"),
        Just("1"),
        Just(" ~ "),
        Just(" * "),
        Just(" - "),
        Just("range(9)"),
        Just("\n"),
        Just("%"),
        Just("namespace()"),
        Just("configurations"),
        Just(" is defined "),
    ];
    prop_oneof![
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// F1: whatever the source, an answer or an error, and no value in the error.
    #[test]
    fn no_source_breaks_the_renderer(source in source()) {
        let given = Given::bytes([("user", &b"canary"[..]), ("keystore", &[0xff, 0xfe, 0x00])]);
        if let Err(error) = try_with(&source, &given) {
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains("canary"), "{}", shown);
        }
    }

    #[test]
    fn filters_give_back_what_they_were_given(text in "\\PC{1,40}|[ -~\n\t]{1,40}") {
        let given = Given::texts([("t", text.as_str())]);
        prop_assert_eq!(&try_with("{{ secrets.t|b64encode|b64decode }}", &given).unwrap(), &text);
        let json = try_with("{{ [secrets.t, {'k': secrets.t}]|json }}", &given).unwrap();
        let (first, second): (String, BTreeMap<String, String>) = serde_json::from_str(&json).unwrap();
        prop_assert_eq!((&first, &second["k"]), (&text, &text));
        let quoted = try_with("{{ secrets.t|urlquote }}", &given).unwrap();
        let mut bytes = Vec::new();
        let mut rest = quoted.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => u8::from_str_radix(&String::from_utf8(rest.by_ref().take(2).collect()).unwrap(), 16).unwrap(),
                plain => plain,
            });
        }
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}
