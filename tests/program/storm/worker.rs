//! Agents in a storm: each opens sessions, uploads, runs, follows, cancels, tops up and ends, through one gateway's door.
//!
//! Every request that can cost money has a key of its own and is repeated under it until there is an answer; an answer that was given once has to be given again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chance::Chance;
use crate::kit::{Door, Said};

/// Longest answer: an opening or an end may take most of a minute.
const LONGEST: Duration = Duration::from_secs(60);
/// Somebody who hangs up.
const IMPATIENT: Duration = Duration::from_millis(25);
/// One request is repeated for so long.
const INSIST: Duration = Duration::from_secs(90);
/// "Not now, nothing was done" is taken for an answer after so many times.
const NOT_NOW: usize = 3;

/// A session that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which gateway.
    pub(crate) gateway: usize,
    /// What the session says it is for: different for each request.
    pub(crate) mission: String,
    /// Its id, if an answer came.
    pub(crate) session: Option<String>,
    pub(crate) runs: Vec<AskedRun>,
}

/// A run that was asked for.
#[derive(Debug)]
pub(crate) struct AskedRun {
    /// What stands in its arguments: different for each request.
    pub(crate) mark: String,
    /// Its id, if an answer came.
    pub(crate) execution: Option<String>,
}

/// How often things happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) posts: usize,
    pub(crate) lost: usize,
    pub(crate) compared: usize,
}

/// What an insistent request came to.
enum Came {
    Done(Value),
    /// The code of a refusal, or nothing when it was given up.
    Not(Option<String>),
}

/// One agent.
pub(crate) struct Worker<'a> {
    gateway: usize,
    folder: PathBuf,
    name: String,
    chance: Chance,
    stop: &'a AtomicBool,
    keys: usize,
    pub(crate) asked: Vec<Asked>,
    pub(crate) counts: Counts,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(gateway: usize, folder: PathBuf, number: usize, seed: u64, stop: &'a AtomicBool) -> Self {
        let chance = Chance::new(seed, 100 + number as u64);
        Self { gateway, folder, name: format!("w{number}"), chance, stop, keys: 0, asked: Vec::new(), counts: Counts::default() }
    }

    /// One session after the other, until the storm is over.
    pub(crate) fn work(mut self) -> Self {
        let _stop_all = StopAll(self.stop);
        while !self.is_over() {
            self.session();
            self.chance.pause(200);
        }
        self
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn session(&mut self) {
        let mission = format!("{} session {}", self.name, self.asked.len());
        let budget = self.chance.pick(&["0.02", "0.05", "0.5", "0.5", "2", "2"]);
        let seconds = self.chance.pick(&[10, 10, 20, 3600, 3600, 3600]);
        let order = json!({ "providerId": "auto", "budgetAllowance": budget, "tools": ["wait"], "mission": mission, "expirySeconds": seconds, "failover": false });
        self.asked.push(Asked { gateway: self.gateway, mission, session: None, runs: Vec::new() });
        let Came::Done(opened) = self.insist("/api/sessions", &order, "id") else { return };
        let session = opened["id"].as_str().unwrap().to_owned();
        self.last().session = Some(session.clone());
        for _ in 0..self.chance.between(1, 9) {
            if self.is_over() || !self.step(&session, budget) {
                break;
            }
            self.chance.pause(300);
        }
        // Some are left to whoever ends them: time, a provider's death, or the end of the storm.
        if !self.chance.one_in(4) {
            let _ = self.insist(&format!("/api/sessions/{session}/end"), &json!({}), "id");
        }
    }

    fn last(&mut self) -> &mut Asked {
        self.asked.last_mut().unwrap()
    }

    /// One thing that an agent does. False when the session takes nothing any more.
    fn step(&mut self, session: &str, budget: &str) -> bool {
        match self.chance.between(0, 10) {
            0 => self.count_words(session),
            1 => {
                let words = self.mark();
                self.run(session, "say", json!({ "words": words.clone() }), words, true)
            }
            2 => {
                let raised = json!({ "budgetAllowance": format!("{budget}5") });
                !is_ended(&self.insist(&format!("/api/sessions/{session}/topup"), &raised, "id"))
            }
            // One that is not waited for: cancelled now and then, killed with its session or its provider otherwise.
            3 | 4 => {
                let seconds = self.chance.between(20, 90);
                let goes_on = self.wait(session, seconds, false);
                if self.chance.one_in(2) {
                    self.cancel_newest();
                }
                goes_on
            }
            _ => {
                let seconds = self.chance.between(0, 4);
                self.wait(session, seconds, true)
            }
        }
    }

    fn mark(&mut self) -> String {
        self.keys += 1;
        // A number to be added to a time to sleep: nothing, and different each time.
        format!("0.0000{:04}{:03}", self.keys, self.name.trim_start_matches('w').parse::<u32>().unwrap())
    }

    fn wait(&mut self, session: &str, seconds: u64, follow: bool) -> bool {
        let mark = self.mark();
        self.run(session, "wait", json!({ "seconds": seconds, "mark": mark.clone() }), mark, follow)
    }

    fn count_words(&mut self, session: &str) -> bool {
        let mark = self.mark();
        let path = format!("in/{mark}.txt");
        let stored = self
            .door()
            .and_then(|door| door.try_put(&format!("/api/sessions/{session}/files/{path}"), b"one two\nthree\n", Duration::from_secs(10)));
        if stored.is_none_or(|said| said.status >= 300) {
            return true;
        }
        self.run(session, "count_words", json!({ "input_file": format!("/workspace/{path}") }), mark, true)
    }

    fn run(&mut self, session: &str, tool: &str, args: Value, mark: String, follow: bool) -> bool {
        let order = json!({ "sessionId": session, "toolId": tool, "args": args });
        self.last().runs.push(AskedRun { mark, execution: None });
        let came = self.insist("/tools/run", &order, "executionId");
        let Came::Done(started) = came else { return !is_ended(&came) };
        let execution = started["executionId"].as_str().unwrap().to_owned();
        self.last().runs.last_mut().unwrap().execution = Some(execution.clone());
        if follow {
            self.follow(&execution);
        }
        true
    }

    /// Reads the log once or twice, then looks until the run is over, for a while.
    fn follow(&mut self, execution: &str) {
        if self.chance.one_in(2) {
            let _ = self.door().and_then(|door| door.try_get(&format!("/logs/{execution}"), Duration::from_secs(5)));
        }
        let begun = Instant::now();
        while !self.is_over() && begun.elapsed() < Duration::from_secs(6) {
            let state = self.door().and_then(|door| door.try_get(&format!("/executions/{execution}"), Duration::from_secs(5)));
            match state {
                Some(Said { status: 200, body }) if body["status"] == "completed" || body["status"] == "failed" => return,
                Some(Said { status: 404, body }) => panic!("execution {execution} was answered and is not known any more: {body}"),
                _ => self.chance.pause(200),
            }
        }
    }

    fn cancel_newest(&mut self) {
        let newest = self.last().runs.last().and_then(|run| run.execution.clone());
        self.chance.pause(500);
        if let Some(execution) = newest {
            let _ = self.insist(&format!("/executions/{execution}/cancel"), &json!({}), "id");
        }
    }

    fn door(&self) -> Option<Door> {
        Door::try_of(&self.folder)
    }

    /// Repeats a request under its key until there is an answer, and now and then asks once more. `id` is what both answers have to agree on.
    fn insist(&mut self, path: &str, body: &Value, id: &str) -> Came {
        self.keys += 1;
        let key = format!("{} {}", self.name, self.keys);
        let begun = Instant::now();
        let mut not_now = 0;
        let mut longest = if self.chance.one_in(6) { IMPATIENT } else { LONGEST };
        while begun.elapsed() < INSIST {
            self.counts.posts += 1;
            match self.door().and_then(|door| door.try_post(path, body, &key, longest)) {
                Some(said) if said.status < 300 => {
                    self.compare(path, body, &key, id, &said.body);
                    return Came::Done(said.body);
                }
                // Not yet, or a token that is being written.
                Some(Said { status: 409, body }) if body["code"] == "in_progress" => {}
                Some(Said { status: 401, .. }) => {}
                Some(Said { status: 500.., body }) => {
                    not_now += 1;
                    if not_now >= NOT_NOW || self.is_over() {
                        return Came::Not(body["code"].as_str().map(str::to_owned));
                    }
                }
                Some(Said { body, .. }) => return Came::Not(body["code"].as_str().map(str::to_owned)),
                None => self.counts.lost += 1,
            }
            longest = LONGEST;
            self.chance.pause(250);
        }
        Came::Not(None)
    }

    fn compare(&mut self, path: &str, body: &Value, key: &str, id: &str, first: &Value) {
        if !self.chance.one_in(3) {
            return;
        }
        self.chance.pause(150);
        let again = self.door().and_then(|door| door.try_post(path, body, key, LONGEST));
        let Some(again) = again.filter(|said| ![401, 503].contains(&said.status)) else { return };
        assert!(again.status < 300, "{path} was done and its repetition under the same key is refused: {} {}", again.status, again.body);
        assert_eq!(first[id], again.body[id], "{path} was carried out twice under one key");
        self.counts.compared += 1;
    }
}

fn is_ended(came: &Came) -> bool {
    matches!(came, Came::Not(Some(code)) if ["session_ended", "session_not_found", "wrong_state"].contains(&code.as_str()))
}

/// A worker that fails ends the storm.
struct StopAll<'a>(&'a AtomicBool);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
