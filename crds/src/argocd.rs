//! The health check for Argo CD, run as Argo CD runs it.

use mlua::{Lua, Table, Value as LuaValue};
use serde_json::{Value, json};

fn script() -> String {
    let file = include_str!("../../docs/argocd-health.yaml");
    let map: Value = serde_yaml::from_str(file).unwrap();
    let of = |kind: &str| map["data"][format!("resource.customizations.health.sealpod.dev_{kind}")].as_str();
    let script = of("SecretBinding").unwrap();
    assert!(
        ["Application", "Environment"]
            .iter()
            .all(|kind| of(kind) == Some(script))
    );
    script.to_owned()
}

fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Null => LuaValue::Nil,
        Value::Bool(value) => LuaValue::Boolean(*value),
        // As Argo CD hands numbers over.
        Value::Number(number) => LuaValue::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Array(items) => {
            let table = lua.create_table()?;
            for item in items {
                table.push(to_lua(lua, item)?)?;
            }
            LuaValue::Table(table)
        }
        Value::Object(fields) => {
            let table = lua.create_table()?;
            for (field, value) in fields {
                table.set(field.as_str(), to_lua(lua, value)?)?;
            }
            LuaValue::Table(table)
        }
    })
}

/// Status and message.
fn health(object: &Value) -> (String, String) {
    let lua = Lua::new();
    lua.globals().set("obj", to_lua(&lua, object).unwrap()).unwrap();
    let health: Table = lua.load(script()).eval().unwrap();
    (health.get("status").unwrap(), health.get("message").unwrap())
}

fn object(generation: u8, observed: i8, status: &str, reason: &str) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": status, "reason": reason, "message": "because"});
    json!({
        "metadata": {"generation": generation},
        "status": {"observedGeneration": observed, "conditions": [condition("Ready")]},
    })
}

#[test]
fn an_object_is_healthy_degraded_suspended_or_on_its_way() {
    for (object, want) in [
        (json!({"metadata": {"generation": 1}}), "Progressing"),
        // What the API server answers for one that nobody has seen.
        (
            json!({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}),
            "Progressing",
        ),
        (object(2, 1, "True", "Synced"), "Progressing"),
        (object(2, 2, "True", "Synced"), "Healthy"),
        (object(2, 2, "False", "AlreadyExists"), "Degraded"),
        (object(2, 2, "False", "InvalidSpec"), "Degraded"),
        (object(2, 2, "False", "ApplicationNotReady"), "Progressing"),
        (object(2, 2, "Unknown", "ServerUnavailable"), "Progressing"),
        (object(2, 2, "Unknown", "Paused"), "Suspended"),
    ] {
        assert_eq!(health(&object).0, want, "{object}");
    }
}

#[test]
fn a_degraded_object_says_why() {
    let (_, message) = health(&object(1, 1, "False", "AlreadyExists"));
    assert_eq!(message, "AlreadyExists: because");
}
