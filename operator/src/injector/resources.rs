//! What our containers request, so that the pod keeps its quality-of-service class and its namespace admits it.

use sealpod_core::kubernetes::annotations;
use serde_json::{Map, Value, json};

use super::cache::{Bounds, Rules};
use super::denial::Denial;
use super::pod::{Container, Pod, items, text};
use super::quantity;

/// The two members of `resources` with amounts, in the order of [`Amount`].
pub const KINDS: [&str; 2] = ["requests", "limits"];

const MILLI: i128 = 1_000_000;
const UNIT: i128 = 1_000 * MILLI;
const MIB: i128 = UNIT << 20;

const CPU_REQUEST: i128 = 5 * MILLI;
/// What the process takes by itself, and some more. It would not start with less.
const MEMORY_REQUEST: i128 = 8 * MIB;
/// A request below is a typing error.
const LEAST_REQUEST: i128 = UNIT << 10;
/// For the process alone; the tmpfs pages that it writes are charged to it and come on top.
const MEMORY_LIMIT: i128 = 32 * MIB;
/// In a Guaranteed pod a limit on CPU is inevitable. Of 5m, 0.5 ms in each 100 ms, a TLS handshake would take seconds.
const CPU_GUARANTEED: i128 = 50 * MILLI;
/// Where the namespace takes no container without one. It costs of the quota only while the container is not throttled
/// by it, which at 20 ms in each 100 ms a start is not.
const CPU_LIMIT: i128 = 200 * MILLI;
/// Log lines, and the program for `exec`. It is written only beside a limit of the user's: of all limits of a pod the
/// kubelet makes one for the whole, so ours alone would evict the app for what it writes.
const DISK: i128 = 32 * MIB;

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

/// What each of our containers gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    /// `resources`, as a container has them.
    pub amounts: Value,
    pub leeway: Leeway,
    /// For the person who makes the pod.
    pub warning: Option<String>,
}

/// What somebody else may have set of the amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leeway {
    /// More memory: where nobody and nothing has said how much it is.
    pub memory: bool,
    /// A limit on CPU where the plan has none: where no rule of the namespace could be broken by it.
    pub cpu: bool,
}

/// Of each of our containers beside tmpfs volumes of `volume_bytes` in all, in a namespace with `rules`.
pub fn of_ours(
    pod: Pod<'_>,
    is_ours: impl Fn(&str) -> bool,
    volume_bytes: u64,
    rules: &Rules,
) -> Result<Resources, Denial> {
    let cpu = Wish::of(pod, annotations::CPU_REQUEST, annotations::CPU_LIMIT)?;
    let memory = Wish::of(pod, annotations::MEMORY_REQUEST, annotations::MEMORY_LIMIT)?;
    no_mistake(pod, memory)?;
    let disk = has_disk_limit(pod, &is_ours).then(|| disk(rules.disk));
    if is_sized_as_a_whole(pod) {
        enough(pod, memory.limit, memory.limited_by(false), None)?;
        // The pod's own limits bound all its containers together; requests of ours could exceed what is left of them. Of
        // the disk it has none.
        return Ok(Resources {
            amounts: written(&[
                ("cpu", [cpu.request, cpu.limit].map(|amount| amount.map(cpu_text))),
                (
                    "memory",
                    [memory.request, memory.limit].map(|amount| amount.map(bytes_text)),
                ),
                ("ephemeral-storage", texts(disk, bytes_text)),
            ]),
            leeway: Leeway {
                memory: false,
                cpu: is_free(rules.cpu),
            },
            warning: tight(memory.limit, volume_bytes),
        });
    }
    let guaranteed = is_guaranteed(pod, is_ours);
    let wished = memory.limited_by(guaranteed);
    let leeway = Leeway {
        memory: !guaranteed && memory.limit.is_none() && is_free(rules.memory),
        cpu: is_free(rules.cpu),
    };
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
    enough(pod, memory.limit, wished, rules.memory.max)?;
    Ok(Resources {
        amounts: written(&[
            ("cpu", texts(Some(cpu), cpu_text)),
            ("memory", texts(Some(memory), bytes_text)),
            ("ephemeral-storage", texts(disk, bytes_text)),
        ]),
        leeway,
        warning: tight(memory.limit, volume_bytes),
    })
}

/// Whether no limit can be too large.
fn is_free(bounds: Bounds) -> bool {
    bounds.max.is_none() && bounds.ratio.is_none()
}

/// Refuses a request that is `m`, a thousandth, where `Mi` was meant: nothing would tell, since it is granted.
fn no_mistake(pod: Pod<'_>, memory: Wish) -> Result<(), Denial> {
    if memory.request.is_none_or(|request| request >= LEAST_REQUEST) {
        return Ok(());
    }
    let (written, meant) = in_other_unit(pod, annotations::MEMORY_REQUEST, LEAST_REQUEST);
    Err(Denial::HardlyAnyMemory {
        annotation: annotations::MEMORY_REQUEST,
        written,
        meant,
    })
}

/// Refuses a limit with which our program is killed before it has done anything, by what has made it so low: an
/// annotation, which in a Guaranteed pod may be that of the request, or else `max`, the bound of the namespace.
fn enough(
    pod: Pod<'_>,
    limit: Option<i128>,
    wished: Option<(&'static str, i128)>,
    max: Option<i128>,
) -> Result<(), Denial> {
    let Some(limit) = limit.filter(|limit| *limit < MEMORY_REQUEST) else {
        return Ok(());
    };
    match wished.filter(|(_, amount)| *amount < MEMORY_REQUEST) {
        Some((annotation, _)) => {
            let (written, meant) = in_other_unit(pod, annotation, MEMORY_REQUEST);
            Err(Denial::TooLittleMemory {
                annotation,
                written,
                meant,
            })
        }
        None => Err(Denial::MemoryBound {
            most: bytes_text(max.unwrap_or(limit)),
        }),
    }
}

/// What an annotation says, and the same number of `Mi` where that would be enough.
fn in_other_unit(pod: Pod<'_>, annotation: &str, least: i128) -> (String, Option<String>) {
    let written = pod.annotation(annotation).unwrap_or_default().trim();
    let number = written.strip_suffix(['m', 'M']);
    let meant = number.map(|number| format!("{number}Mi"));
    let is_enough = |meant: &String| quantity::nanos(meant).is_some_and(|amount| amount >= least);
    (written.to_owned(), meant.filter(is_enough))
}

/// A warning where the process and full volumes take more than `limit`.
fn tight(limit: Option<i128>, volume_bytes: u64) -> Option<String> {
    let most = MEMORY_REQUEST.saturating_add(i128::from(volume_bytes) * UNIT);
    limit.filter(|limit| *limit < most).map(|limit| {
        format!(
            "Sealpod's containers may use {} of memory, and with full volumes need {}: they are killed when they use more; raise \
             {} (a LimitRange may bound it), or lower sizeLimit in the bindings",
            bytes_text(limit),
            bytes_text(most),
            annotations::MEMORY_LIMIT
        )
    })
}

fn disk(bounds: Bounds) -> Amount {
    let both = Amount {
        request: DISK,
        limit: Some(DISK),
    };
    both.within(bounds, true, UNIT)
}

impl Wish {
    /// The annotation of memory that says what its limit is.
    fn limited_by(self, guaranteed: bool) -> Option<(&'static str, i128)> {
        let limit = self.limit.map(|limit| (annotations::MEMORY_LIMIT, limit));
        let request = self.request.filter(|_| guaranteed);
        limit.or(request.map(|request| (annotations::MEMORY_REQUEST, request)))
    }

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
    amount / unit + i128::from(amount % unit > 0)
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

fn bytes_text(nanos: i128) -> String {
    quantity::format(u64::try_from(ceiling(nanos, UNIT)).unwrap_or(u64::MAX))
}

/// Request and limit of an amount.
fn texts(amount: Option<Amount>, text: impl Fn(i128) -> String) -> [Option<String>; 2] {
    let limit = amount.and_then(|amount| amount.limit);
    [amount.map(|amount| amount.request), limit].map(|amount| amount.map(&text))
}

/// `resources` of what there is: of each resource its request and its limit.
fn written(all: &[(&str, [Option<String>; 2]); 3]) -> Value {
    let mut resources = Map::new();
    for (place, kind) in KINDS.into_iter().enumerate() {
        let amounts: Map<String, Value> = all
            .iter()
            .filter_map(|(resource, amounts)| Some(((*resource).to_owned(), json!(amounts[place].as_ref()?))))
            .collect();
        if !amounts.is_empty() {
            resources.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    Value::Object(resources)
}

/// Whether the kubelet holds the whole pod to what containers of the user's may take of the disk.
fn has_disk_limit(pod: Pod<'_>, is_ours: impl Fn(&str) -> bool) -> bool {
    let limited = |container: &Container| {
        let limits = container.raw.get("resources").and_then(|all| all.get("limits"));
        limits.is_some_and(|limits| limits.get("ephemeral-storage").is_some_and(|limit| !limit.is_null()))
    };
    pod.all_containers()
        .filter(|container| !is_ours(container.name()))
        .any(|container| limited(&container))
}

/// Pod-level resources: `spec.resources`.
fn is_sized_as_a_whole(pod: Pod<'_>) -> bool {
    KINDS.into_iter().any(|field| {
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
mod tests;
