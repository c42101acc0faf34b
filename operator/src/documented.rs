//! For tests of metrics: what people are shown of them is what there is.

/// That every panel of a dashboard asks for what `text`, an answer of `/metrics`, has: one whose panels stay empty says
/// that all is well. Metrics of other parts are not looked at.
pub fn dashboard(text: &str, dashboard: &str) {
    let part = |name: &str| name.splitn(3, '_').take(2).collect::<Vec<_>>().join("_");
    let parts: Vec<_> = types(text).map(|(name, _)| part(name)).collect();
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let names = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in names.filter(|name| name.starts_with("sealpod_") && parts.contains(&part(name))) {
                let row = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
                assert!(text.lines().any(row), "{name} is not in\n{text}");
                asked += 1;
            }
            for label in query.split("by (").skip(1).filter_map(|rest| rest.split(')').next()) {
                for label in label.split(", ") {
                    assert!(text.contains(&format!("{label}=\"")), "{label} is no label");
                }
            }
        }
    }
    assert!(asked >= 10);
}

/// That the documentation has a row for each metric in `text`; answers how many there are.
pub fn in_words(text: &str) -> usize {
    let documentation = include_str!("../../docs/OPERATOR.md");
    for (name, kind) in types(text) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        let row = format!("| `{name}{suffix}` |");
        assert!(documentation.contains(&row), "{row}");
    }
    types(text).count()
}

fn types(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.map(|line| line.split_once(' ').unwrap())
}

mod tests {
    /// A key for all kinds is one key for everybody's, and a patch of it takes theirs away.
    #[test]
    fn the_health_checks_for_argo_cd_are_one_key_for_each_kind() {
        let checks = include_str!("../../docs/argocd-health.yaml");
        let keys = checks
            .lines()
            .filter_map(|line| line.strip_prefix("  resource.")?.split_once(':'));
        let keys: Vec<_> = keys.map(|(key, _)| key).collect();
        let key = |kind: &str| format!("customizations.health.sealpod.dev_{kind}");
        assert_eq!(keys, ["Application", "Environment", "SecretBinding"].map(key));
    }
}
