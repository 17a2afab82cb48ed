//! A client that dies and comes back: it loses no line of a log and pays once, whoever else dies meanwhile.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{Door, PATIENCE, micros, wait_for};

/// Lines of the log, how many the tool is given at a time, and how many a reader reads before it goes away.
const LINES: u64 = 4_000;
const FED_AT_ONCE: u64 = 1_000;
const READ_AT_ONCE: usize = 150;

/// What a reader of a log has.
#[derive(Default)]
struct Reader {
    lines: Vec<String>,
    /// Of the last event.
    last: Option<u64>,
    ended: bool,
}

impl Reader {
    /// Reads some lines and hangs up. Whatever stands in the way, it comes again.
    fn visit(&mut self, door: &Door, path: &str) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let mut request = agent.get(format!("{}{path}", door.base)).header("Authorization", format!("Bearer {}", door.token));
        if let Some(last) = self.last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let Ok(response) = request.call() else { return };
        assert_ne!(response.status().as_u16(), 204, "it is told that it has everything, after {:?}", self.last);
        let (mut id, mut event, mut read) = (None, String::new(), 0);
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            // A gateway that dies breaks the line off; what is not whole is not taken.
            let Ok(line) = line else { return };
            if let Some(number) = line.strip_prefix("id:") {
                id = Some(number.trim().parse::<u64>().unwrap());
            } else if let Some(name) = line.strip_prefix("event:") {
                name.trim().clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data:") {
                let data: Value = serde_json::from_str(data).unwrap();
                match event.as_str() {
                    "end" => self.ended = true,
                    "stdout" => {
                        self.last = id;
                        self.lines.push(data["line"].as_str().unwrap().to_owned());
                        read += 1;
                    }
                    other => panic!("{other}: {data}"),
                }
                if self.ended || read >= READ_AT_ONCE {
                    return;
                }
            }
        }
    }
}

/// Sends a request and is gone before its answer.
fn ask_and_die(door: &Door, path: &str, body: &Value, key: &str) {
    let said = door.try_post(path, body, key, Duration::from_millis(40));
    assert!(said.is_none_or(|said| said.status == 201));
}

/// Repeats a request until it is not under way any more, as the refusal says.
fn answered(door: &Door, path: &str, body: &Value, key: &str) -> Value {
    wait_for("an answer", || {
        let said = door.post_with_key(path, body, key);
        (said.status != 409 || said.body["code"] != "in_progress").then_some(said)
    })
    .ok()
}

#[test]
fn two_calls_lead_to_a_first_result() {
    let cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let session = door.post("/api/sessions", &json!({ "providerId": "auto", "budgetAllowance": 1 })).ok();
    let order = json!({ "sessionId": session["id"], "toolId": "say", "args": { "words": "hello" }, "wait": 60 });
    let done = door.post("/tools/run", &order).ok();
    assert_eq!((&done["status"], &done["exitCode"], &done["output"]), (&json!("completed"), &json!(0), &json!("hello\n")), "{done}");
    assert!(micros(&done["cost"]) > 0 && done["usage"]["outputVerified"] == true, "{done}");
}

#[test]
fn a_reader_that_goes_away_again_and_again_loses_no_line_although_the_gateway_is_killed() {
    let mut cast = Cast::small();
    let session = cast.open("2");
    let order = json!({ "sessionId": session, "toolId": "upper", "args": {}, "stdin": { "stream": true } });
    let run = cast.gateway().post("/tools/run", &order).ok()["executionId"].as_str().unwrap().to_owned();
    let (path, mut reader) = (format!("/logs/{run}"), Reader::default());
    let mut fed = 0;
    for turn in 0.. {
        // The tool is fed while its output is read: more than it keeps to itself each time, then the end.
        if fed < LINES {
            let lines: String = (fed..(fed + FED_AT_ONCE).min(LINES)).map(|number| format!("line {number}\n")).collect();
            let is_last = fed + FED_AT_ONCE >= LINES;
            let query = if is_last { "?end=true" } else { "" };
            cast.gateway().post_bytes(&format!("/executions/{run}/stdin{query}"), lines.as_bytes()).ok();
            fed += FED_AT_ONCE;
        }
        if turn == 3 || turn == 12 {
            cast.gateways[0].kill();
            cast.gateways[0].restart();
            wait_for("the session after the restart", || {
                (cast.gateway().get(&format!("/api/sessions/{session}")).ok()["connected"] == true).then_some(())
            });
        }
        reader.visit(&cast.gateway(), &path);
        if reader.ended {
            break;
        }
    }
    let expected: Vec<String> = (0..LINES).map(|number| format!("LINE {number}")).collect();
    assert_eq!(reader.lines.len(), expected.len());
    assert!(reader.lines == expected);
    // Whoever has everything is told so.
    let done = cast.ended(&run);
    assert_eq!((&done["status"], &done["usage"]["outputVerified"]), (&json!("completed"), &json!(true)), "{done}");
    cast.end(&session);
    cast.settled(&session);
}

#[test]
fn a_client_that_dies_before_its_answers_pays_once() {
    let mut cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let open = json!({ "providerId": "auto", "budgetAllowance": 1, "tools": ["wait"] });
    ask_and_die(&door, "/api/sessions", &open, "open");
    let session = answered(&door, "/api/sessions", &open, "open")["id"].as_str().unwrap().to_owned();
    let order = json!({ "sessionId": session, "toolId": "wait", "args": { "seconds": 3 }, "wait": 60 });
    ask_and_die(&door, "/tools/run", &order, "run");
    wait_for("the run", || {
        let runs = cast.gateway().get(&format!("/executions?sessionId={session}")).ok();
        runs["executions"].as_array().unwrap().iter().any(|run| run["status"] == "running").then_some(())
    });
    cast.gateways[0].kill();
    cast.gateways[0].restart();
    let door = cast.gateway();
    assert_eq!(answered(&door, "/api/sessions", &open, "open")["id"], session.as_str());
    let first = answered(&door, "/tools/run", &order, "run");
    let again = answered(&door, "/tools/run", &order, "run");
    assert_eq!((&first["status"], &first["executionId"]), (&json!("completed"), &again["executionId"]), "{first} {again}");
    assert_eq!(first["cost"], again["cost"]);
    let sessions = door.get("/api/sessions").ok();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
    let runs = door.get(&format!("/executions?sessionId={session}")).ok();
    assert_eq!(runs["executions"].as_array().unwrap().len(), 1, "{runs}");
    let ended = cast.end(&session);
    assert_eq!(micros(&ended["budgetConsumed"]), micros(&first["cost"]), "{ended}");
    let settled = cast.settled(&session);
    assert_eq!(micros(&settled["totalCost"]), micros(&first["cost"]));
}
