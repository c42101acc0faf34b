use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn binding(secrets: Value) -> BindingFile {
    let mut file = json!({
        "organization": "default", "project": "shop", "environment": "prod",
        "mode": 0o440, "refreshInterval": 30, "watch": true,
    });
    if !secrets.is_null() {
        file["secrets"] = secrets;
    }
    serde_json::from_value(file).unwrap()
}

fn bundle(secrets: Value) -> Bundle {
    let secrets: BTreeMap<String, Value> = serde_json::from_value(secrets).unwrap();
    let secrets: BTreeMap<_, _> = secrets
        .into_iter()
        .map(|(key, value)| (key, json!({"value": value, "version": 1, "encoding": "utf8"})))
        .collect();
    serde_json::from_value(json!({"etag": "e", "next_change_at": null, "secrets": secrets})).unwrap()
}

/// `path mode=content` of what is written, `path kept` of what is carried over.
fn files(selection: &Selection) -> Vec<String> {
    let written = selection.files.write.iter().map(|file| {
        let text = String::from_utf8(file.content.0.to_vec()).unwrap();
        format!("{} {:o}={text}", file.path.as_str(), file.mode)
    });
    let kept = selection
        .files
        .keep
        .iter()
        .map(|kept| format!("{} kept", kept.path.as_str()));
    written.chain(kept).collect()
}

fn findings(selection: &Selection) -> Vec<(&str, &Trouble, bool)> {
    let findings = selection.findings.iter();
    findings
        .map(|finding| (finding.selector.as_str(), &finding.trouble, finding.required))
        .collect()
}

#[test]
fn the_request_names_each_selector_once_and_pins_by_version() {
    let asked = request(&binding(json!([
        {"name": "a", "optional": false},
        {"name": "a", "path": "again", "optional": false},
        {"name": "db/x:y", "path": "x", "optional": false, "version": 3},
        {"name": "db/x:y", "path": "y", "optional": false, "version": 4},
        {"pattern": "tls-*", "optional": true},
    ])));
    assert_eq!(asked.key, ["a"]);
    assert_eq!(
        asked.version.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["db/x:y:3"]
    );
    assert_eq!(asked.pattern[0].as_str(), "tls-*");
    assert!(asked.values && !asked.configurations && asked.wait == 0);
    assert_eq!(
        request(&binding(Value::Null)),
        BundleRequest::default(),
        "all keys are no selector"
    );
}

#[test]
fn all_keys_become_files_of_their_names_and_others_are_left_out() {
    let selection = select(
        &binding(Value::Null),
        &bundle(
            json!({"a": "1", "b.c-d_e": "2", "db/password": "3", "../../etc/passwd": "4", ".bashrc": "5", "..": "6"}),
        ),
    );
    assert_eq!(files(&selection), ["a 440=1", "b.c-d_e 440=2"]);
    assert_eq!(
        findings(&selection),
        [
            ("..", &Trouble::NeedsPath, false),
            ("../../etc/passwd", &Trouble::NeedsPath, false),
            (".bashrc", &Trouble::NeedsPath, false),
            ("db/password", &Trouble::NeedsPath, false),
        ]
    );
    assert!(!selection.blocked());
    assert_eq!(selection.versions.keys().collect::<Vec<_>>(), ["a", "b.c-d_e"]);
}

#[test]
fn names_and_patterns_go_where_the_binding_says() {
    let selection = select(
        &binding(json!([
            {"name": "db/password", "path": "db/password", "optional": false, "mode": 0o400},
            {"name": "plain", "optional": false},
            {"pattern": "tls-*", "path": "tls", "optional": true, "mode": 0o444},
        ])),
        &bundle(json!({"db/password": "1", "plain": "2", "tls-a": "3", "tls-b": "4"})),
    );
    let want = ["db/password 400=1", "plain 440=2", "tls/tls-a 444=3", "tls/tls-b 444=4"];
    assert_eq!(files(&selection), want);
    assert_eq!(selection.findings, []);
}

#[test]
fn a_required_name_without_a_value_keeps_its_file_and_an_optional_one_loses_it() {
    let mut answer = bundle(json!({"there": "1"}));
    answer.missing = vec!["m".to_owned(), "om".to_owned()];
    answer.denied = vec!["d".to_owned(), "od".to_owned()];
    let entry = |name: &str, optional: bool| json!({"name": name, "optional": optional});
    let selection = select(
        &binding(json!([
            entry("there", false),
            entry("m", false),
            entry("om", true),
            entry("d", false),
            entry("od", true)
        ])),
        &answer,
    );
    assert_eq!(files(&selection), ["there 440=1", "m kept", "d kept"]);
    assert_eq!(
        findings(&selection),
        [
            ("d", &Trouble::Denied, true),
            ("m", &Trouble::Missing, true),
            ("od", &Trouble::Denied, false),
            ("om", &Trouble::Missing, false),
        ]
    );
    assert_eq!(
        selection.required.iter().map(FilePath::as_str).collect::<Vec<_>>(),
        ["d", "m"]
    );
    assert!(!selection.blocked(), "a file that is there is as good as a value");
}

#[test]
fn a_name_that_the_answer_does_not_mention_is_missing() {
    let selection = select(
        &binding(json!([{"name": "a", "optional": false}])),
        &bundle(json!({"unasked": "x"})),
    );
    assert_eq!(files(&selection), ["a kept"]);
    assert_eq!(findings(&selection), [("a", &Trouble::Missing, true)]);
}

#[test]
fn a_pattern_may_match_nothing_unless_it_is_required() {
    for (optional, want) in [(true, vec![]), (false, vec![("x-*", &Trouble::NoMatch, true)])] {
        let selection = select(
            &binding(json!([{"pattern": "x-*", "optional": optional}])),
            &bundle(json!({"y": "1"})),
        );
        assert_eq!(findings(&selection), want);
        assert_eq!(selection.blocked(), !optional);
        assert_eq!(
            files(&selection),
            Vec::<String>::new(),
            "what was not selected is not written"
        );
    }
}

#[test]
fn a_key_that_is_named_and_matched_is_one_file() {
    let selection = select(
        &binding(json!([
            {"pattern": "*", "optional": true},
            {"name": "db-a", "optional": false, "mode": 0o400},
            {"name": "x/y", "path": "xy", "optional": false},
        ])),
        &bundle(json!({"db-a": "1", "other": "2", "x/y": "3"})),
    );
    assert_eq!(
        files(&selection),
        ["db-a 400=1", "xy 440=3", "other 440=2"],
        "the literal entry decides"
    );
    assert_eq!(selection.findings, []);
}

#[test]
fn two_secrets_cannot_have_one_path() {
    let selection = select(
        &binding(json!([
            {"name": "a", "path": "x", "optional": false},
            {"name": "b", "path": "x", "optional": false},
            {"name": "c", "path": "x/y", "optional": true},
            {"name": "d", "path": "p/q", "optional": false},
            {"pattern": "p", "optional": true},
        ])),
        &bundle(json!({"a": "1", "b": "2", "c": "3", "d": "4", "p": "5"})),
    );
    assert_eq!(files(&selection), ["x 440=1", "p/q 440=4"]);
    let taken = |path: &str| Trouble::PathTaken(path.parse().unwrap());
    let (x, xy, p) = (taken("x"), taken("x/y"), taken("p"));
    assert_eq!(
        findings(&selection),
        [("b", &x, true), ("c", &xy, false), ("p", &p, false)]
    );
    assert!(selection.blocked(), "b is required and can never be written");
}

#[test]
fn one_secret_may_become_two_files_but_not_two_versions() {
    let entry = |path: &str, version: Option<u64>| {
        let mut entry = json!({"name": "a", "path": path, "optional": false});
        if let Some(version) = version {
            entry["version"] = json!(version);
        }
        entry
    };
    let answer = bundle(json!({"a": "1"}));
    let selection = select(&binding(json!([entry("x", None), entry("y", None)])), &answer);
    assert_eq!(files(&selection), ["x 440=1", "y 440=1"]);
    let selection = select(&binding(json!([entry("x", Some(2)), entry("y", None)])), &answer);
    assert_eq!(files(&selection), ["x 440=1"]);
    assert_eq!(findings(&selection), [("a", &Trouble::OtherVersion, true)]);
    assert!(selection.blocked());
}

#[test]
fn base64_is_decoded_where_the_binding_says_so() {
    let entry = |name: &str, optional: bool| json!({"name": name, "optional": optional, "decode": "base64"});
    let selection = select(
        &binding(json!([entry("good", false), entry("bad", false), entry("blank", true)])),
        &bundle(json!({"good": "aGVs\nbG8=\n", "bad": "not base64!", "blank": "\n"})),
    );
    assert_eq!(files(&selection), ["good 440=hello", "bad kept", "blank kept"]);
    assert_eq!(
        findings(&selection),
        [
            ("bad", &Trouble::NotBase64, true),
            ("blank", &Trouble::NotBase64, false)
        ]
    );
    assert_eq!(selection.versions.keys().collect::<Vec<_>>(), ["good"]);
}

#[test]
fn values_that_are_no_text_arrive_as_their_bytes() {
    let mut answer = bundle(json!({"binary": "//79"}));
    answer.secrets.get_mut("binary").unwrap().encoding = Some(sealpod_core::Encoding::Base64);
    let selection = select(&binding(json!([{"name": "binary", "optional": false}])), &answer);
    assert_eq!(*selection.files.write[0].content.0, [0xff, 0xfe, 0xfd]);
}

#[test]
fn only_permission_bits_of_a_mode_count() {
    let selection = select(
        &binding(json!([{"name": "a", "optional": false, "mode": 0o6755}])),
        &bundle(json!({"a": "1"})),
    );
    assert_eq!(files(&selection), ["a 755=1"]);
}

#[test]
fn nothing_shows_a_value() {
    let selection = select(
        &binding(
            json!([{"name": "a", "optional": false}, {"name": "b\n", "path": "b", "optional": false, "decode": "base64"}]),
        ),
        &bundle(json!({"a": "canary", "b\n": "canary!"})),
    );
    let text: String = selection.findings.iter().map(ToString::to_string).collect();
    assert!(!format!("{selection:?}{text}").contains("canary"));
    assert!(text.starts_with(r#""b\n" is not base64"#), "names are escaped: {text}");
}

proptest! {
    #[test]
    fn whatever_the_answer_no_two_paths_collide_and_none_leaves(
        keys in proptest::collection::btree_map("[a-c./_-]{1,4}", "[a-z]{1,3}", 0..12),
        folders in proptest::collection::vec("[ab](/[ab])?", 0..4),
        files in proptest::collection::vec("[a-c](/[ab])?", 0..4),
        configurations in proptest::collection::btree_map("[a-c./_-]{1,4}", "[a-z]{0,3}", 0..6),
    ) {
        let entries: Vec<_> = folders.iter().map(|folder| json!({"pattern": "*", "path": folder, "optional": true})).collect();
        let secrets = if entries.is_empty() { Value::Null } else { json!(entries) };
        let mut binding = binding(secrets);
        binding.configurations = Some(serde_json::from_value(json!({"path": "c"})).unwrap());
        let json = |path: &String| json!({"path": path, "values": {"format": "json"}});
        binding.files = serde_json::from_value(files.iter().map(json).collect()).unwrap();
        let mut bundle = bundle(json!(keys));
        bundle.configurations = configurations;
        let selection = select(&binding, &bundle);
        let paths: Vec<_> = selection.files.write.iter().map(|file| &file.path).collect();
        for (index, path) in paths.iter().enumerate() {
            prop_assert!(path.as_str().split('/').all(|segment| !segment.starts_with('.') && !segment.is_empty()));
            prop_assert!(paths[index + 1..].iter().all(|other| !path.collides_with(other)));
        }
    }
}
