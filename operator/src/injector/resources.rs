//! What our containers request, so that the pod keeps its quality-of-service class and its namespace admits it.

use sealpod_core::kubernetes::annotations;
use serde_json::{Map, Value, json};

use super::cache::{Bounds, Rules};
use super::denial::Denial;
use super::pod::{Pod, items, text};
use super::quantity;

const MILLI: i128 = 1_000_000;
const UNIT: i128 = 1_000 * MILLI;
const MIB: i128 = UNIT << 20;

const CPU_REQUEST: i128 = 5 * MILLI;
const MEMORY_REQUEST: i128 = 8 * MIB;
/// For the process alone; the tmpfs pages that it writes are charged to it and come on top.
const MEMORY_LIMIT: i128 = 32 * MIB;
/// In a Guaranteed pod a limit on CPU is inevitable. Of 5m, 0.5 ms in each 100 ms, a TLS handshake would take seconds.
const CPU_GUARANTEED: i128 = 50 * MILLI;
/// Where the namespace takes no container without one. It costs of the quota only while the container is not throttled
/// by it, which at 20 ms in each 100 ms a start is not.
const CPU_LIMIT: i128 = 200 * MILLI;
/// Where a quota counts the local disk: log lines, and the program for `exec`.
const DISK: &str = "32Mi";

/// Request and limit of one resource, in units of 10⁻⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount {
    request: i128,
    limit: Option<i128>,
}

/// What the user writes of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wish {
    request: Option<i128>,
    limit: Option<i128>,
}

/// `resources` of each of our containers beside tmpfs volumes of `volume_bytes` in all, in a namespace with `rules`.
pub fn of_ours(
    pod: Pod<'_>,
    is_ours: impl Fn(&str) -> bool,
    volume_bytes: u64,
    rules: &Rules,
) -> Result<Value, Denial> {
    let cpu = Wish::of(pod, annotations::CPU_REQUEST, annotations::CPU_LIMIT)?;
    let memory = Wish::of(pod, annotations::MEMORY_REQUEST, annotations::MEMORY_LIMIT)?;
    if is_sized_as_a_whole(pod) {
        // The pod's own limits bound all its containers together; requests of ours could exceed what is left of them.
        return Ok(written([
            ("requests", [cpu.request.map(cpu_text), memory.request.map(memory_text)]),
            ("limits", [cpu.limit.map(cpu_text), memory.limit.map(memory_text)]),
        ]));
    }
    let guaranteed = is_guaranteed(pod, is_ours);
    let cpu_limit = if guaranteed {
        Some(CPU_GUARANTEED)
    } else {
        rules.cpu.needs_limit.then_some(CPU_LIMIT)
    };
    let memory_limit = MEMORY_LIMIT.saturating_add(i128::from(volume_bytes) * UNIT);
    let [cpu, memory] = [
        (cpu, CPU_REQUEST, cpu_limit, rules.cpu, MILLI),
        (memory, MEMORY_REQUEST, Some(memory_limit), rules.memory, UNIT),
    ]
    .map(|(wish, request, limit, bounds, step)| {
        Amount { request, limit }
            .with(wish, guaranteed)
            .within(bounds, guaranteed, step)
    });
    let mut resources = written([
        (
            "requests",
            [Some(cpu_text(cpu.request)), Some(memory_text(memory.request))],
        ),
        ("limits", [cpu.limit.map(cpu_text), memory.limit.map(memory_text)]),
    ]);
    for (kind, wanted) in [("requests", rules.disk_request), ("limits", rules.disk_limit)] {
        if wanted {
            resources[kind]["ephemeral-storage"] = json!(DISK);
        }
    }
    Ok(resources)
}

impl Wish {
    fn of(pod: Pod<'_>, request: &'static str, limit: &'static str) -> Result<Self, Denial> {
        let amount = |annotation: &'static str| {
            let Some(written) = pod.annotation(annotation).map(str::trim) else {
                return Ok(None);
            };
            match quantity::nanos(written) {
                Some(amount) if amount > 0 => Ok(Some(amount)),
                _ => Err(Denial::InvalidQuantity {
                    annotation,
                    written: written.to_owned(),
                }),
            }
        };
        let wish = Self {
            request: amount(request)?,
            limit: amount(limit)?,
        };
        match (wish.request, wish.limit) {
            (Some(wanted), Some(most)) if wanted > most => Err(Denial::RequestAboveLimit { request, limit }),
            _ => Ok(wish),
        }
    }
}

impl Amount {
    /// As the user wants it. A Guaranteed pod has one amount for both, so the limit wins.
    fn with(self, wish: Wish, guaranteed: bool) -> Self {
        if guaranteed {
            let both = wish.limit.or(wish.request).or(self.limit).unwrap_or(self.request);
            return Self {
                request: both,
                limit: Some(both),
            };
        }
        let limit = match (wish.limit, wish.request) {
            (Some(limit), _) => Some(limit),
            (None, Some(request)) => self.limit.map(|limit| limit.max(request)),
            (None, None) => self.limit,
        };
        let request = wish.request.unwrap_or(self.request);
        Self {
            request: limit.map_or(request, |limit| request.min(limit)),
            limit,
        }
    }

    /// As the `LimitRanges` of the namespace take it. What a ratio makes of it is rounded up to a whole `step`, and never
    /// beyond a bound: so it is written exactly.
    fn within(self, bounds: Bounds, guaranteed: bool, step: i128) -> Self {
        let at_most = |amount: i128| bounds.max.map_or(amount, |max| amount.min(max));
        let least = self.request.max(bounds.min.unwrap_or(0));
        let limit = self.limit.map(|limit| at_most(limit.max(least)));
        let by_ratio = match (limit, bounds.ratio) {
            // The ratio is in units of 10⁻⁹ too.
            (Some(limit), Some(ratio)) if ratio > 0 => {
                ceiling(ceiling(limit.saturating_mul(UNIT), ratio), step).saturating_mul(step)
            }
            _ => 0,
        };
        let request = at_most(least.max(by_ratio));
        match limit {
            Some(limit) if guaranteed => Self {
                request: limit,
                limit: Some(limit),
            },
            Some(limit) => Self {
                request: request.min(limit),
                limit: Some(limit),
            },
            None => Self { request, limit: None },
        }
    }
}

fn ceiling(amount: i128, unit: i128) -> i128 {
    (amount + unit - 1) / unit
}

fn cpu_text(nanos: i128) -> String {
    if nanos % UNIT == 0 {
        (nanos / UNIT).to_string()
    } else if nanos % MILLI == 0 {
        format!("{}m", nanos / MILLI)
    } else {
        format!("{nanos}n")
    }
}

fn memory_text(nanos: i128) -> String {
    quantity::format(u64::try_from(ceiling(nanos, UNIT)).unwrap_or(u64::MAX))
}

/// `resources` of what there is.
fn written(kinds: [(&'static str, [Option<String>; 2]); 2]) -> Value {
    let mut resources = Map::new();
    for (kind, [cpu, memory]) in kinds {
        let amounts: Map<String, Value> = [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter_map(|(resource, amount)| Some((resource.to_owned(), json!(amount?))))
            .collect();
        if !amounts.is_empty() {
            resources.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    Value::Object(resources)
}

/// Pod-level resources: `spec.resources`.
fn is_sized_as_a_whole(pod: Pod<'_>) -> bool {
    ["requests", "limits"].into_iter().any(|field| {
        let amounts = pod.spec().get("resources").and_then(|resources| resources.get(field));
        amounts
            .and_then(Value::as_object)
            .is_some_and(|amounts| !amounts.is_empty())
    })
}

/// Whether every container but ours has limits on CPU and memory, and requests equal to them or none.
fn is_guaranteed(pod: Pod<'_>, is_ours: impl Fn(&str) -> bool) -> bool {
    let fixed = |container: &Value, resource: &str| {
        let amount = |kind: &str| {
            let amounts = container.get("resources")?.get(kind)?;
            quantity::nanos(text(amounts, resource)?)
        };
        match (amount("limits"), amount("requests")) {
            (Some(limit), Some(request)) => limit == request,
            (Some(limit), None) => limit > 0,
            (None, _) => false,
        }
    };
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| items(pod.spec(), list))
        .filter(|container| !is_ours(text(container, "name").unwrap_or_default()))
        .all(|container| fixed(container, "cpu") && fixed(container, "memory"))
}

#[cfg(test)]
#[path = "resources/tests.rs"]
mod tests;
