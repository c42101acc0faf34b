//! What a namespace asks of the resources of each container: its `LimitRanges` and quotas.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use serde::Deserialize;

use super::slim::{Slim, or_default};
use super::table::{Entry, Placed};
use crate::injector::quantity;

/// Amounts by resource, as written.
type Amounts = BTreeMap<String, Amount>;

/// Kubernetes takes a number where it means a quantity.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Number(f64),
}

pub type ReadRange = Slim<LimitRange, RangeSpec>;
pub type ReadQuota = Slim<ResourceQuota, QuotaSpec>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RangeSpec {
    #[serde(deserialize_with = "or_default")]
    limits: Vec<RangeItem>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RangeItem {
    #[serde(deserialize_with = "or_default")]
    r#type: String,
    min: Option<Amounts>,
    max: Option<Amounts>,
    default: Option<Amounts>,
    max_limit_request_ratio: Option<Amounts>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct QuotaSpec {
    hard: Option<Amounts>,
}

/// What is asked of one resource of each container, in units of 10⁻⁹.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    pub min: Option<i128>,
    pub max: Option<i128>,
    /// The most that the limit may be of the request.
    pub ratio: Option<i128>,
    /// Whether a container without a limit is refused, or given one anyway: the default of a `LimitRange`, which nobody
    /// chose for ours and which may be below its request.
    pub needs_limit: bool,
}

/// What one `LimitRange` or one quota asks for, or all of a namespace together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub cpu: Bounds,
    pub memory: Bounds,
    /// The local disk. No quota asks for it: what has no amount is not counted.
    pub disk: Bounds,
}

/// The rules of one object.
#[derive(Debug)]
pub struct Ruling {
    name: String,
    pub rules: Rules,
}

impl Entry for Ruling {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Bounds {
    /// None for items about something else.
    ///
    /// A ratio of whole pods holds if it does for ours and for what there was before. Their `min` and `max` do not concern
    /// ours: one more container only brings a pod nearer to its `min`, and takes what it takes of its `max`.
    fn of(item: &RangeItem, resource: &str) -> Option<Self> {
        let amount = |amounts: &Option<Amounts>| nanos(amounts.as_ref()?.get(resource)?);
        let ratio = amount(&item.max_limit_request_ratio);
        match item.r#type.as_str() {
            "Container" => {
                let max = amount(&item.max);
                Some(Self {
                    min: amount(&item.min),
                    max,
                    ratio,
                    needs_limit: max.is_some() || ratio.is_some() || amount(&item.default).is_some(),
                })
            }
            "Pod" => Some(Self {
                ratio,
                ..Self::default()
            }),
            _ => None,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            min: self.min.max(other.min),
            max: least(self.max, other.max),
            ratio: least(self.ratio, other.ratio),
            needs_limit: self.needs_limit || other.needs_limit,
        }
    }
}

fn least(one: Option<i128>, other: Option<i128>) -> Option<i128> {
    one.into_iter().chain(other).min()
}

fn nanos(amount: &Amount) -> Option<i128> {
    match amount {
        Amount::Text(text) => quantity::nanos(text),
        Amount::Number(number) => quantity::nanos(&number.to_string()),
    }
}

impl Rules {
    pub fn and(self, other: &Self) -> Self {
        Self {
            cpu: self.cpu.and(other.cpu),
            memory: self.memory.and(other.memory),
            disk: self.disk.and(other.disk),
        }
    }
}

impl From<ReadRange> for Placed<Ruling> {
    fn from(read: ReadRange) -> Self {
        let limits = spec(&read, "LimitRange").map_or(&[][..], |spec| &spec.limits);
        let rules = limits
            .iter()
            .map(|item| Rules {
                cpu: Bounds::of(item, "cpu").unwrap_or_default(),
                memory: Bounds::of(item, "memory").unwrap_or_default(),
                disk: Bounds::of(item, "ephemeral-storage").unwrap_or_default(),
            })
            .fold(Rules::default(), |all, rules| all.and(&rules));
        placed(&read, rules)
    }
}

impl From<ReadQuota> for Placed<Ruling> {
    fn from(read: ReadQuota) -> Self {
        let hard = spec(&read, "ResourceQuota").and_then(|spec| spec.hard.as_ref());
        let cpu = Bounds {
            needs_limit: hard.is_some_and(|hard| hard.contains_key("limits.cpu")),
            ..Bounds::default()
        };
        // Ours always have a request of CPU, and a request and a limit of memory.
        let rules = Rules {
            cpu,
            ..Rules::default()
        };
        placed(&read, rules)
    }
}

/// One that cannot be read asks for nothing that we know of; where it does, the API server refuses the pod and says so.
fn spec<'a, K, S>(read: &'a Slim<K, S>, kind: &str) -> Option<&'a S> {
    let unread = |error: &String| {
        let (namespace, name) = (read.namespace(), read.name());
        tracing::warn!(
            namespace,
            name,
            error,
            "cannot read this {kind}; going on without its rules"
        );
    };
    read.spec.as_ref().inspect_err(|error| unread(error)).ok()
}

fn placed<K, S, T>(read: &Slim<K, S, T>, rules: Rules) -> Placed<Ruling> {
    Placed {
        namespace: read.namespace().to_owned(),
        entry: Ruling {
            name: read.name().to_owned(),
            rules,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MILLI: i128 = 1_000_000;

    #[test]
    fn a_limit_range_asks_for_the_strictest_of_its_items_for_containers() {
        let read: ReadRange = serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "shop", "managedFields": [{"time": "9999-12-31T23:59:59Z"}]},
            "spec": {"limits": [
                {"type": "Container", "min": {"cpu": "10m", "memory": "16Mi"}, "max": {"cpu": 2}},
                {"type": "Container", "min": {"cpu": "20m", "ephemeral-storage": "50Mi"}, "maxLimitRequestRatio": {"memory": "4"}, "novel": {}},
                {"type": "Pod", "min": {"cpu": "1"}, "max": {"memory": "1Gi"}, "maxLimitRequestRatio": {"memory": "2", "cpu": "5"}},
                {"type": "PersistentVolumeClaim", "min": {"cpu": "3"}, "maxLimitRequestRatio": {"memory": "1"}},
            ]},
        }))
        .unwrap();
        let placed: Placed<Ruling> = read.into();
        assert_eq!((placed.namespace.as_str(), placed.entry.name()), ("shop", "r"));
        let rules = placed.entry.rules;
        let cpu = Bounds {
            min: Some(20 * MILLI),
            max: Some(2_000 * MILLI),
            ratio: quantity::nanos("5"),
            needs_limit: true,
        };
        assert_eq!(rules.cpu, cpu);
        let memory = (rules.memory.min, rules.memory.max, rules.memory.ratio);
        assert_eq!(memory, (quantity::nanos("16Mi"), None, quantity::nanos("2")));
        assert_eq!((rules.disk.min, rules.disk.max), (quantity::nanos("50Mi"), None));
    }

    #[test]
    fn a_ratio_of_whole_pods_asks_for_a_limit_only_where_ours_would_be_given_one() {
        let cpu = |kind: &str| {
            let range = json!({"metadata": {}, "spec": {"limits": [
                {"type": "Pod", "maxLimitRequestRatio": {"cpu": "4"}, "default": {"cpu": "1"}},
                {"type": "Container", kind: {"cpu": "500m"}},
            ]}});
            let read: ReadRange = serde_json::from_value(range).unwrap();
            let cpu = Placed::from(read).entry.rules.cpu;
            (cpu.ratio, cpu.needs_limit)
        };
        assert_eq!(cpu("defaultRequest"), (quantity::nanos("4"), false));
        assert_eq!(cpu("default"), (quantity::nanos("4"), true));
    }

    #[test]
    fn a_quota_asks_for_what_it_counts() {
        let rules = |hard: serde_json::Value| {
            let quota =
                json!({"metadata": {"name": "q", "namespace": "shop"}, "spec": {"hard": hard}, "status": {"used": {}}});
            let read: ReadQuota = serde_json::from_value(quota).unwrap();
            Placed::from(read).entry.rules
        };
        assert_eq!(rules(json!({"pods": "10", "requests.cpu": "1"})), Rules::default());
        assert!(rules(json!({"limits.cpu": "4"})).cpu.needs_limit);
        let disk = json!({"requests.ephemeral-storage": "1Gi", "limits.ephemeral-storage": "2Gi"});
        assert_eq!(rules(disk), Rules::default());
    }
}
