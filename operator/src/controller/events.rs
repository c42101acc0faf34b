//! Events about objects. One that is told again within minutes counts on, in place of another object.
//!
//! The library's recorder keeps the whole of every event for that, and goes through all of them for each new one. With
//! thousands of bindings that was the largest part of what this process held; a few numbers do as well.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::runtime::events::{Event, EventType, Reporter};
use kube::{Client, Resource};
use serde_json::json;

/// How long after it was told last the same counts as told again.
const AGAIN_WITHIN: Duration = Duration::from_mins(6);
/// How often what is older is dropped.
const DROPPED_EVERY: Duration = Duration::from_mins(1);
/// Longest beginning of an object's name in an event's, which has a suffix of up to 17 bytes and at most 253.
const MOST_OF_NAME: usize = 230;

pub struct Recorder {
    kube: Client,
    reporter: Reporter,
    told: Mutex<Told>,
    /// With keys of its own, so that nobody can write objects whose events are taken for one another.
    hasher: RandomState,
}

struct Told {
    /// By the hash of what was told about what.
    events: HashMap<u64, Last>,
    dropped: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    /// When it was told first, by which its object is named.
    first: Timestamp,
    at: Instant,
    times: i32,
}

impl Recorder {
    pub fn new(kube: Client, reporter: Reporter) -> Self {
        Self {
            kube,
            reporter,
            told: Mutex::new(Told {
                events: HashMap::new(),
                dropped: Instant::now(),
            }),
            hasher: RandomState::new(),
        }
    }

    /// Tells, in the namespace of what it is about.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) -> kube::Result<()> {
        let key = self.key(event, about);
        let now = Timestamp::now();
        let path = KubeEvent::url_path(&(), Some(about.namespace.as_deref().unwrap_or("default")));
        let before = self.before(key);
        let request = if let Some(last) = before {
            let series = json!({"series": {"count": last.times.saturating_add(1), "lastObservedTime": MicroTime(now)}});
            let name = name(about, last.first);
            Request::new(path).patch(&name, &PatchParams::default(), &Patch::Merge(&series))
        } else {
            let body = serde_json::to_vec(&self.object(event, about, now)).expect("an event is plain data");
            Request::new(path).create(&PostParams::default(), body)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let sent = self.kube.request_text(request).await;
        let mut told = self.told();
        if sent.is_ok() {
            let last = Last {
                first: before.map_or(now, |last| last.first),
                at: Instant::now(),
                times: before.map_or(1, |last| last.times.saturating_add(1)),
            };
            told.events.insert(key, last);
        } else {
            // It may have been deleted: next time there is a new one.
            told.events.remove(&key);
        }
        drop(told);
        sent.map(drop)
    }

    /// The note is no part of it: what is told again may be told in other words.
    fn key(&self, event: &Event, about: &ObjectReference) -> u64 {
        let is_warning = event.type_ == EventType::Warning;
        self.hasher.hash_one((
            is_warning,
            &event.action,
            &event.reason,
            &about.kind,
            &about.namespace,
            &about.name,
            &about.uid,
        ))
    }

    fn before(&self, key: u64) -> Option<Last> {
        let now = Instant::now();
        let mut told = self.told();
        let is_recent = |last: &Last| now.duration_since(last.at) < AGAIN_WITHIN;
        if now.duration_since(told.dropped) >= DROPPED_EVERY {
            told.dropped = now;
            told.events.retain(|_, last| is_recent(last));
            told.events.shrink_to_fit();
        }
        told.events.get(&key).copied().filter(is_recent)
    }

    fn object(&self, event: &Event, about: &ObjectReference, now: Timestamp) -> KubeEvent {
        let Reporter { controller, instance } = &self.reporter;
        let type_ = match event.type_ {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let mut object = KubeEvent {
            action: Some(event.action.clone()),
            reason: Some(event.reason.clone()),
            note: event.note.clone(),
            type_: Some(type_.to_owned()),
            event_time: Some(MicroTime(now)),
            regarding: Some(about.clone()),
            related: event.secondary.clone(),
            reporting_controller: Some(controller.clone()),
            reporting_instance: Some(instance.as_ref().unwrap_or(controller).clone()),
            ..KubeEvent::default()
        };
        object.metadata.namespace.clone_from(&about.namespace);
        object.metadata.name = Some(name(about, now));
        object
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(about: &ObjectReference, first: Timestamp) -> String {
    let name = about.name.as_deref().unwrap_or("sealpod");
    let name = &name[..name.floor_char_boundary(MOST_OF_NAME)];
    format!("{}.{:x}", name.trim_end_matches(['.', '-']), first.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use serde_json::Value;

    fn about(uid: &str) -> ObjectReference {
        ObjectReference {
            kind: Some("SecretBinding".to_owned()),
            name: Some("db".to_owned()),
            namespace: Some("shop".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }
    }

    fn event(note: &str) -> Event {
        Event {
            type_: EventType::Warning,
            reason: "SecretMissing".to_owned(),
            note: Some(note.to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        }
    }

    fn recorder(fake: &FakeApi) -> Recorder {
        let reporter = Reporter {
            controller: "sealpod-operator".to_owned(),
            instance: Some("a".to_owned()),
        };
        Recorder::new(fake.client(), reporter)
    }

    /// What `kubectl describe` shows of each: note, and how often it was told.
    fn shown(fake: &FakeApi) -> Vec<(Value, Value)> {
        let events = fake.events();
        events
            .iter()
            .map(|event| (event["note"].clone(), event["series"]["count"].clone()))
            .collect()
    }

    #[tokio::test]
    async fn what_is_told_again_counts_on_and_anything_else_is_another_event() {
        let fake = FakeApi::default();
        let recorder = recorder(&fake);
        recorder.publish(&event("first"), &about("u1")).await.unwrap();
        recorder.publish(&event("in other words"), &about("u1")).await.unwrap();
        recorder.publish(&event("first"), &about("u1")).await.unwrap();
        assert_eq!(shown(&fake), [(json!("first"), json!(3))]);
        let mut normal = event("normal");
        normal.type_ = EventType::Normal;
        recorder.publish(&normal, &about("u1")).await.unwrap();
        recorder
            .publish(&event("of the next of the name"), &about("u2"))
            .await
            .unwrap();
        let events = fake.events();
        assert_eq!(events.len(), 3);
        assert_eq!(events[1]["type"], "Normal");
        assert_eq!(events[2]["regarding"]["uid"], "u2");
        assert_eq!(events[2]["reportingController"], "sealpod-operator");
        assert_eq!(events[2]["reportingInstance"], "a");
        assert_eq!(events[2]["metadata"]["namespace"], "shop");
        assert!(events[2]["eventTime"].is_string() && events[2]["series"].is_null());
    }

    #[tokio::test]
    async fn one_that_somebody_deleted_is_made_anew() {
        let fake = FakeApi::default();
        let recorder = recorder(&fake);
        recorder.publish(&event("first"), &about("u1")).await.unwrap();
        let name = fake.events()[0]["metadata"]["name"].as_str().unwrap().to_owned();
        fake.remove(&format!("/apis/events.k8s.io/v1/namespaces/shop/events/{name}"));
        assert!(recorder.publish(&event("lost"), &about("u1")).await.is_err());
        recorder.publish(&event("again"), &about("u1")).await.unwrap();
        assert_eq!(shown(&fake), [(json!("again"), Value::Null)]);
    }

    #[test]
    fn the_name_of_an_event_is_one_however_long_the_objects_is() {
        let mut long = about("u1");
        let label = "a".repeat(45);
        long.name = Some([label.as_str(); 5].join(".") + "-" + "b".repeat(23).as_str());
        let name = name(&long, Timestamp::now());
        assert!(name.len() <= 253, "{name}");
        assert!(sealpod_core::names::check_dns_name(&name).is_ok(), "{name}");
    }
}
