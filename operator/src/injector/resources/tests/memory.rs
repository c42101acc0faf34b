//! How much memory there has to be.

use super::*;

#[test]
fn memory_may_grow_where_nobody_has_said_how_much_it_is() {
    let may = |annotations: Value, containers: &Value, memory: Bounds| {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": containers}});
        let rules = Rules {
            memory,
            ..Rules::default()
        };
        of_ours(Pod(&pod), |_| false, BYTES, &rules).unwrap().leeway.memory
    };
    let (app, free) = (json!([{"name": "a"}]), Bounds::default());
    assert!(may(json!({}), &app, free));
    assert!(!may(json!({annotations::MEMORY_LIMIT: "64Mi"}), &app, free));
    assert!(!may(json!({}), &fixed(), free));
    assert!(!may(json!({}), &app, bounds(None, Some("64Mi"), None)));
    assert!(!may(json!({}), &app, bounds(None, None, Some("2"))));
}

#[test]
fn memory_with_which_no_process_starts_is_refused_with_what_was_meant() {
    let app = json!([{"name": "a"}]);
    let needs = "is too little for Sealpod's program, which needs 8Mi (8388608 bytes) as its limit";
    let hardly = "is less than 1Ki of memory, and m means thousandths of a byte";
    for (annotation, written, containers, told) in [
        (
            annotations::MEMORY_LIMIT,
            "64m",
            &app,
            Some((needs, " (did you mean \"64Mi\"?)")),
        ),
        (annotations::MEMORY_LIMIT, "4m", &app, Some((needs, ""))),
        (annotations::MEMORY_LIMIT, "64", &app, Some((needs, ""))),
        (annotations::MEMORY_LIMIT, "8388607", &app, Some((needs, ""))),
        (
            annotations::MEMORY_LIMIT,
            "8M",
            &app,
            Some((needs, " (did you mean \"8Mi\"?)")),
        ),
        (annotations::MEMORY_LIMIT, "8Mi", &app, None),
        (
            annotations::MEMORY_REQUEST,
            "16m",
            &app,
            Some((hardly, " (did you mean \"16Mi\"?)")),
        ),
        (annotations::MEMORY_REQUEST, "1000", &app, Some((hardly, ""))),
        (annotations::MEMORY_REQUEST, "4Mi", &app, None),
        // There it is the limit.
        (annotations::MEMORY_REQUEST, "4Mi", &fixed(), Some((needs, ""))),
        (annotations::MEMORY_REQUEST, "8Mi", &fixed(), None),
    ] {
        let result = annotated(&json!({annotation: written}), containers);
        assert_eq!(result.is_err(), told.is_some(), "{written}: {result:?}");
        if let (Err(text), Some((why, meant))) = (result, told) {
            let start = format!("annotation {annotation}: \"{written}\" {why}{meant}; write ");
            assert!(text.starts_with(&start), "{text}");
        }
    }
}

#[test]
fn a_limit_is_too_low_by_whatever_has_made_it_so() {
    let app = json!([{"name": "a"}]);
    let told = |annotations: Value, containers: &Value, memory: Bounds| {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": containers}});
        let rules = Rules {
            memory,
            ..Rules::default()
        };
        in_namespace(&pod, &rules)
    };
    let low = bounds(None, Some("4Mi"), None);
    for (annotations, containers) in [
        (json!({}), &app),
        (json!({}), &fixed()),
        (json!({annotations::MEMORY_REQUEST: "2Mi"}), &app),
        (json!({annotations::MEMORY_LIMIT: "64Mi"}), &app),
    ] {
        let text = told(annotations, containers, low).unwrap_err();
        assert!(
            text.starts_with("a LimitRange of the namespace lets a container have 4Mi of memory"),
            "{text}"
        );
    }
    for (annotation, containers) in [
        (annotations::MEMORY_LIMIT, &app),
        (annotations::MEMORY_REQUEST, &fixed()),
    ] {
        let text = told(json!({annotation: "2Mi"}), containers, low).unwrap_err();
        assert!(text.starts_with(&format!("annotation {annotation}: \"2Mi\"")), "{text}");
    }
    // What the namespace makes of it is enough.
    let raised = told(
        json!({annotations::MEMORY_LIMIT: "4Mi"}),
        &app,
        bounds(Some("16Mi"), None, None),
    );
    assert_eq!(raised.unwrap()["limits"]["memory"], "16Mi");
    let whole = json!({
        "metadata": {"annotations": {annotations::MEMORY_LIMIT: "4Mi"}},
        "spec": {"containers": app, "resources": {"limits": {"cpu": "1"}}},
    });
    assert!(
        in_namespace(&whole, &Rules::default())
            .unwrap_err()
            .contains("memory-limit")
    );
}

#[test]
fn a_limit_that_full_volumes_would_break_is_a_warning() {
    let told = |annotations: Value, spec: Value, memory: Bounds| {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": spec});
        let rules = Rules {
            memory,
            ..Rules::default()
        };
        of_ours(Pod(&pod), |_| false, BYTES, &rules).unwrap().warning
    };
    let limit = |limit: &str| json!({annotations::MEMORY_LIMIT: limit});
    let (app, free) = (json!({"containers": [{"name": "a"}]}), Bounds::default());
    let whole = json!({"containers": [{"name": "a"}], "resources": {"limits": {"cpu": "1"}}});
    let text = told(limit("23Mi"), app.clone(), free).unwrap();
    assert!(
        text.contains("may use 23Mi of memory, and with full volumes need 24Mi")
            && text.contains("sealpod.dev/memory-limit"),
        "{text}"
    );
    assert!(told(limit("23Mi"), whole.clone(), free).is_some());
    assert!(told(json!({}), app.clone(), bounds(None, Some("20Mi"), None)).is_some());
    assert_eq!(told(limit("24Mi"), app.clone(), free), None);
    assert_eq!(told(json!({}), app, free), None);
    assert_eq!(told(json!({}), whole, free), None, "the pod has its own limit");
}
