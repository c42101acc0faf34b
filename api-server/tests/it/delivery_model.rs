//! The delivery path against a model: after any operation of anybody, every caller's bundle is what the model says, a 304 is
//! answered exactly where the model says that nothing changed, and of the polls that wait those answer whose answer changed,
//! and no others.
//!
//! The walks are the same in every run. `PROPTEST_CASES=500 cargo test -p sealpod-api-server --test it delivery_model` takes so
//! many others.

mod model;
mod questions;
mod requests;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Call, M, O, Reply, Server, time};
use model::{Answer, Model, State};
use questions::QUESTIONS;
use steps::{ENVIRONMENTS, KEYS, Step, step};

/// How far ahead "in a moment" is: nothing depends on it but how long the test takes.
const MOMENT: Duration = Duration::from_millis(100);
/// Longer than a poll takes on the slowest machine, and far below its `wait`.
const PATIENCE: Duration = Duration::from_secs(10);

/// A caller as the server knows it.
#[derive(Default)]
struct Caller {
    id: String,
    key: String,
    /// Ids of its rules.
    rules: BTreeMap<usize, String>,
    /// What it got last, and the tag of that.
    last: Option<(State, String)>,
    poll: Option<JoinHandle<Reply>>,
}

/// What a step leaves behind beside the new state of things.
#[derive(Default)]
struct Wake {
    /// Whose key died without its account.
    dead: Option<usize>,
    /// Every path that anybody waited on leads nowhere now.
    moved: bool,
    /// How many waited for it, and how many it woke.
    waiting: usize,
    woken: u64,
    /// When the state of the model has begun, at the latest: until then it may be another one.
    from: Option<Instant>,
}

struct World<'s> {
    server: &'s Server,
    /// Both names of the project of this walk.
    names: [String; 2],
    model: Model,
    callers: Vec<Caller>,
    /// How many were woken last and had nothing to tell.
    restless: u64,
    /// The tag of each state that a caller had, and the state of each tag.
    tags: HashMap<String, String>,
    states: HashMap<String, String>,
}

/// In a moment.
fn soon() -> String {
    time(i64::try_from(MOMENT.as_millis()).unwrap())
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for poll in self.callers.iter_mut().filter_map(|caller| caller.poll.take()) {
            poll.abort();
        }
    }
}

impl<'s> World<'s> {
    /// A project with both environments, and callers of which each may read something.
    async fn new(server: &'s Server) -> Self {
        let names = ["p", "q"].map(|initial| format!("{initial}{}", uuid::Uuid::now_v7().simple()));
        let project = &names[0];
        server.application(project).await;
        let prod = json!({"name": "prod"});
        let path = format!("{O}/projects/{project}/envs");
        server.admin("POST", &path).json(prod).status(201).await;
        let mut world = Self {
            server,
            names,
            model: Model::new(),
            callers: QUESTIONS.iter().map(|_| Caller::default()).collect(),
            restless: 0,
            tags: HashMap::new(),
            states: HashMap::new(),
        };
        for (caller, question) in QUESTIONS.iter().enumerate() {
            let rule = if question.configurations { 2 } else { caller % 2 };
            for step in [Step::Enter { caller }, Step::Grant { caller, rule }] {
                world.take(&step, "").await;
            }
        }
        let environment = 0;
        for key in [0, 1, 1, 3] {
            let window = (None, None);
            world
                .take(
                    &Step::Put {
                        environment,
                        key,
                        window,
                    },
                    "first",
                )
                .await;
        }
        world.take(&Step::SetEntry { environment, entry: 0 }, "first").await;
        world.settle(Wake::default()).await;
        world
    }

    fn project(&self) -> &str {
        &self.names[usize::from(self.model.is_renamed)]
    }

    fn environment(&self, environment: usize) -> String {
        format!("{O}/projects/{}/envs/{}", self.project(), ENVIRONMENTS[environment])
    }

    fn secret(&self, environment: usize, key: usize) -> String {
        format!("{}/secrets/{}", self.environment(environment), KEYS[key])
    }

    fn application(&self) -> String {
        format!("{M}/{}", self.project())
    }

    fn moment(&self, moment: Option<i64>) -> Value {
        moment.map_or(Value::Null, |moment| json!(self.model.moment(moment)))
    }

    /// The id of a deletion, counted from the newest.
    async fn trashed(&self, back: usize) -> Option<String> {
        let trash = self.server.admin("GET", &format!("{O}/trash")).status(200).await;
        let own = trash.list().iter().filter(|item| item["project"] == self.project());
        let ids: Vec<_> = own.map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), self.model.trash_len(), "{}", trash.text);
        ids.get(back).cloned()
    }

    /// Does the step on both sides.
    async fn take(&mut self, step: &Step, value: &str) -> Wake {
        let mut wake = Wake {
            waiting: self.waiting(),
            ..Wake::default()
        };
        let Some(call) = self.call(step, value).await else {
            return wake;
        };
        let is_waiting: Vec<_> = self.callers.iter().map(|caller| caller.poll.is_some()).collect();
        let wakes = self.model.wakes(step, &is_waiting);
        let before = self.server.store.stats().wakes;
        let reply = call.send().await;
        let woken = self.server.store.stats().wakes - before;
        assert_eq!(reply.status, self.model.take(step, value), "{step:?}: {}", reply.text);
        if reply.status >= 300 {
            assert_eq!(woken, 0, "{step:?} was refused, and woke somebody");
            return wake;
        }
        // Who was woken for nothing just before may be about to wait again, and is then told once more.
        let most = wakes.end() + self.restless;
        assert!(
            (*wakes.start()..=most).contains(&woken),
            "{step:?} woke {woken}, not {wakes:?}"
        );
        wake.woken = woken;
        match step {
            Step::Grant { caller, rule } => {
                self.callers[*caller].rules.insert(*rule, reply.text_at("id"));
            }
            Step::Revoke { caller, rule } => {
                self.callers[*caller].rules.remove(rule);
            }
            Step::Rotate { caller, overlap } => {
                self.callers[*caller].key = reply.text_at("api_key");
                wake.dead = (!overlap).then_some(*caller);
            }
            Step::Leave { caller } => self.callers[*caller].rules.clear(),
            Step::Enter { caller } => {
                let one = &mut self.callers[*caller];
                (one.id, one.key) = (reply.text_at("id"), reply.text_at("api_key"));
            }
            Step::Begin { .. } | Step::End { .. } => {
                // The call was made after this, and said so many milliseconds.
                wake.from = Some(Instant::now() + MOMENT);
            }
            Step::Rename => wake.moved = true,
            _ => {}
        }
        wake
    }

    /// A caller's question, perhaps with the tag of what it has, and with a time to wait.
    fn ask(&self, caller: usize, tag: Option<&str>, wait: u64) -> Call {
        let question = &QUESTIONS[caller];
        let keys = question.keys.iter().map(|key| format!("key={key}"));
        let patterns = question.pattern.iter().map(|(pattern, _)| format!("pattern={pattern}"));
        let pinned = question
            .pinned
            .iter()
            .map(|(key, number)| format!("version={key}:{number}"));
        let flags = [
            format!("configurations={}", question.configurations),
            format!("values={}", question.values),
            format!("wait={wait}"),
        ];
        let query: Vec<_> = keys.chain(patterns).chain(pinned).chain(flags).collect();
        let path = format!("{}/bundle?{}", self.environment(question.environment), query.join("&"));
        let call = self.server.call("GET", &path).key(&self.callers[caller].key);
        match tag {
            Some(tag) => call.header("if-none-match", tag),
            None => call,
        }
    }

    /// Checks an answer against the model's, and keeps it as the last one.
    fn check(&mut self, caller: usize, reply: &Reply, answer: &Answer) {
        let state = match answer {
            Answer::Refused(status) => {
                assert_eq!(reply.status, *status, "{caller}: {}", reply.text);
                return;
            }
            Answer::Bundle(state) => state,
        };
        assert_eq!(reply.status, 200, "{caller}: {}", reply.text);
        let mut body = reply.body.clone();
        let tag = reply.header("etag").to_owned();
        let within = body.as_object_mut().unwrap().remove("etag").unwrap();
        assert_eq!(format!("\"{}\"", within.as_str().unwrap()), tag);
        assert_eq!(body, state.body, "{caller}");
        self.remember(caller, state, &tag);
        self.callers[caller].last = Some((state.clone(), tag));
    }

    /// One state has one tag, whatever was in between, and one tag is of one state.
    fn remember(&mut self, caller: usize, state: &State, tag: &str) {
        let name = format!("{caller} {} {}", state.identity, state.windows);
        let known = self.tags.entry(name.clone()).or_insert_with(|| tag.to_owned());
        assert_eq!(known, tag, "{name}");
        // What the windows are is not told by their being changed alone.
        let name = format!("{caller} {}", state.identity);
        let known = self.states.entry(tag.to_owned()).or_insert_with(|| name.clone());
        assert_eq!(*known, name, "{tag}");
    }

    /// Brings every caller to the state of now: the polls of those whose answer changed have answered, all others wait
    /// on, and everybody waits again who can.
    async fn settle(&mut self, wake: Wake) {
        let answers: Vec<_> = (0..self.callers.len())
            .map(|caller| self.model.answer(caller))
            .collect();
        let before: Vec<_> = self.callers.iter().map(|caller| caller.last.clone()).collect();
        for (caller, answer) in answers.iter().enumerate() {
            if wake.dead == Some(caller) {
                self.woken(caller, &Answer::Refused(401)).await;
            } else if wake.moved && self.model.accounts[caller].is_live {
                self.woken(caller, &Answer::Refused(404)).await;
            } else if self.has_news(caller, answer) {
                self.hop(caller, answer, wake.from.is_some()).await;
                self.woken(caller, answer).await;
            }
        }
        if let Some(from) = wake.from {
            tokio::time::sleep_until(from.into()).await;
        }
        let looks = self.looks(&before).await;
        for (caller, (fresh, known)) in looks.iter().enumerate() {
            self.look(caller, fresh, &answers[caller]).await;
            if let Some(known) = known {
                self.check_known(caller, known, &answers[caller], before[caller].as_ref());
            }
        }
        for (caller, one) in self.callers.iter().enumerate() {
            let is_waiting = one.poll.as_ref().is_none_or(|poll| !poll.is_finished());
            assert!(is_waiting, "the poll of {caller} ended, and its answer is the same");
        }
        let answered = wake.waiting - self.waiting();
        self.restless = wake.woken.saturating_sub(u64::try_from(answered).unwrap());
        self.wait(&answers).await;
    }

    /// Whether the answer is another one than the caller has.
    fn has_news(&self, caller: usize, answer: &Answer) -> bool {
        match (&self.callers[caller].last, answer) {
            (Some((last, _)), Answer::Bundle(state)) => last.identity != state.identity,
            _ => true,
        }
    }

    /// What comes before a moment comes is told as well, and may be told or not where the moment is here already.
    async fn hop(&mut self, caller: usize, answer: &Answer, is_awaited: bool) {
        let (Answer::Bundle(state), true, Some(poll)) = (answer, is_awaited, &mut self.callers[caller].poll) else {
            return;
        };
        let reply = tokio::time::timeout(PATIENCE, poll).await;
        let reply = reply
            .unwrap_or_else(|_| panic!("the poll of {caller} is not told of {answer:?}"))
            .unwrap();
        let again = if reply.body["secrets"] == state.body["secrets"]
            && reply.body["next_change_at"] == state.body["next_change_at"]
        {
            // It is the state that was to come; ask once more, as if for the first time.
            self.ask(caller, None, 0)
        } else {
            assert_eq!(reply.status, 200, "{caller}: {}", reply.text);
            self.ask(caller, Some(reply.header("etag")), 120)
        };
        self.callers[caller].poll = Some(tokio::spawn(again.send()));
    }

    /// The answer of the caller's poll, if it has one.
    async fn woken(&mut self, caller: usize, answer: &Answer) {
        let Some(poll) = self.callers[caller].poll.take() else {
            return;
        };
        let reply = tokio::time::timeout(PATIENCE, poll).await;
        let reply = reply.unwrap_or_else(|_| panic!("the poll of {caller} is not told of {answer:?}"));
        let reply = reply.unwrap();
        self.check(caller, &reply, answer);
    }

    /// What every caller gets without waiting: without a tag, and with that of what it had before.
    async fn looks(&self, before: &[Option<(State, String)>]) -> Vec<(Reply, Option<Reply>)> {
        let looks = before.iter().enumerate().map(|(caller, before)| async move {
            let known = match before {
                Some((_, tag)) => Some(self.ask(caller, Some(tag), 0).send().await),
                None => None,
            };
            (self.ask(caller, None, 0).send().await, known)
        });
        futures::future::join_all(looks).await
    }

    /// Checks what a caller got that did not tell what it has.
    async fn look(&mut self, caller: usize, reply: &Reply, answer: &Answer) {
        if let (Some((_, tag)), Answer::Bundle(_)) = (&self.callers[caller].last, answer)
            && reply.status == 200
            && reply.header("etag") != tag
        {
            // Only a window moved, of what is given out all the same: told or not, but then by the poll as well.
            self.woken(caller, answer).await;
        }
        self.check(caller, reply, answer);
    }

    /// Checks what a caller got that told what it had.
    fn check_known(&self, caller: usize, reply: &Reply, answer: &Answer, before: Option<&(State, String)>) {
        let now = self.callers[caller].last.as_ref().map(|(_, tag)| tag);
        match answer {
            Answer::Refused(status) => assert_eq!(reply.status, *status, "{caller}: {}", reply.text),
            Answer::Bundle(_) if now == before.map(|(_, tag)| tag) => {
                assert_eq!(reply.status, 304, "{caller}: {}", reply.text);
                assert_eq!(Some(reply.header("etag")), now.map(String::as_str));
            }
            Answer::Bundle(_) => {
                assert_eq!(reply.status, 200, "{caller}");
                assert_eq!(Some(reply.header("etag")), now.map(String::as_str));
            }
        }
    }

    /// Opens a poll for everybody who has an answer and none, and returns once all of them wait.
    async fn wait(&mut self, answers: &[Answer]) {
        for (caller, answer) in answers.iter().enumerate() {
            let (Answer::Bundle(_), None) = (answer, &self.callers[caller].poll) else {
                continue;
            };
            let (_, tag) = self.callers[caller].last.as_ref().expect("it just got one");
            let call = self.ask(caller, Some(tag), 120);
            self.callers[caller].poll = Some(tokio::spawn(call.send()));
        }
        waiters(self.server, self.waiting()).await;
    }

    fn waiting(&self) -> usize {
        self.callers.iter().filter(|caller| caller.poll.is_some()).count()
    }
}

/// Returns once so many wait.
async fn waiters(server: &Server, count: usize) {
    let since = Instant::now();
    while server.store.stats().watchers != count {
        assert!(
            since.elapsed() < PATIENCE,
            "{} wait, not {count}",
            server.store.stats().watchers
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn walk(server: &Server, steps: &[Step]) {
    waiters(server, 0).await;
    let mut world = World::new(server).await;
    for (n, step) in steps.iter().enumerate() {
        // Now and then also what cannot be done: it is refused, and changes nothing.
        let step = if n % 5 == 4 {
            Some(step.clone())
        } else {
            world.model.aimed(step)
        };
        if let Some(step) = step {
            let wake = world.take(&step, &format!("value {n}")).await;
            world.settle(wake).await;
        }
    }
}

#[test]
fn every_callers_bundle_and_every_poll_is_what_the_model_says_whatever_anybody_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    runtime.block_on(async {
        server.application("elsewhere").await;
        server.put("elsewhere", "local", "a", "v").await;
    });
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(4),
        failure_persistence: None,
        // A poll that is not woken takes its time to show.
        max_shrink_iters: 10,
        ..ProptestConfig::default()
    };
    let mut runner = match asked {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let walked = runner.run(&prop::collection::vec(step(), 45..50), |steps| {
        runtime.block_on(walk(&server, &steps));
        Ok(())
    });
    walked.unwrap();
}
