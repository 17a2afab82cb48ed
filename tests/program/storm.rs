//! A storm: processes of all four roles are killed at random moments, hundreds of times, while agents work. When it is over, every sum is exact and nothing is left behind.
//!
//! `ORIEN_STORM_SEED` asks for the same order of kills and requests again (what they meet still depends on the machine), `ORIEN_STORM_KILLS` for another number of kills.

mod chance;
mod evidence;
mod field;
mod sums;
mod traces;
mod worker;

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::kit::{Door, Role};
use chance::Chance;
use evidence::Outcome;
use field::Field;
use worker::{Asked, Counts, Worker};

/// Kills in one storm, unless the environment says another number.
const KILLS: u64 = 200;
/// Agents at work, half of them at each gateway.
const WORKERS: usize = 6;
/// Longest time in which everything comes to rest when nobody is killed any more: a provider waits 30 s for a last voucher, and asks settlement again after 60 s at most.
const REST: Duration = Duration::from_secs(150);

#[test]
fn a_storm_of_kills_over_all_roles_ends_with_exact_sums_and_leaves_nothing_behind() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("ORIEN_STORM_SEED").unwrap_or(u64::from(now.subsec_nanos()) ^ now.as_secs());
    let kills = usize::try_from(number("ORIEN_STORM_KILLS").unwrap_or(KILLS)).unwrap();
    let mut field = Field::start();
    match catch_unwind(AssertUnwindSafe(|| storm(&mut field, seed, kills))) {
        // Past the harness, which keeps what a passing test prints: how hard it blew is what one wants to know of it.
        Ok(summary) => writeln!(std::io::stderr(), "storm, seed {seed}: {summary}").unwrap(),
        Err(cause) => {
            let account = field.account();
            let kept = field.root.path().to_owned();
            field.root.disable_cleanup(true);
            panic!("{}\n\nORIEN_STORM_SEED={seed}\n{account}\n{}\nEverything is kept in {}", said(&*cause), said(&*cause), kept.display());
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn said(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_else(|| "a panic without words".to_owned())
}

fn storm(field: &mut Field, seed: u64, kills: usize) -> String {
    let begun = Instant::now();
    let (asked, counts) = blow(field, seed, kills);
    let blown = begun.elapsed();
    field.wait_until_open();
    let doors: Vec<Door> = field.gateways().iter().map(Role::door).collect();
    let short = open_short(&doors);
    wait_until("every session ends", || end_all(&doors, &short));
    let outcomes: Vec<Vec<Outcome>> = doors.iter().map(all_sessions).collect();
    let ended = |id: &String| outcomes.iter().flatten().find(|session| session.id == *id).map(|session| session.reason.as_str());
    // Whichever side's clock strikes first says the word; the agent's is that it ends.
    assert!(short.iter().all(|id| matches!(ended(id), Some("expired" | "ended"))), "time did not end {short:?}: {outcomes:?}");
    wait_until("everything is settled", || sums::unsettled(field, &outcomes));
    wait_until("nothing is left of any run", || traces::left_behind(field));
    sums::check_once(&asked, &outcomes);
    let stuck = sums::check(field, &outcomes);
    let rested = begun.elapsed();

    // What is on disk says the same, and nothing begins again.
    field.reopen();
    let again: Vec<Vec<Outcome>> = field.gateways().iter().map(|gateway| all_sessions(&gateway.door())).collect();
    assert_eq!(format!("{again:?}"), format!("{outcomes:?}"), "a restart changed what was over");
    let stuck_again = sums::check(field, &again);
    assert_eq!(format!("{stuck:?}"), format!("{stuck_again:?}"));
    wait_until("nothing is left of any run", || traces::left_behind(field));
    field.check_logs();
    summary(field, &asked, &counts, &outcomes, &stuck, [blown, rested, begun.elapsed()])
}

/// The storm itself, with agents at work in it.
fn blow(field: &mut Field, seed: u64, kills: usize) -> (Vec<Asked>, Vec<Counts>) {
    let stop = AtomicBool::new(false);
    let folders: Vec<_> = field.gateways().iter().map(|gateway| gateway.folder.clone()).collect();
    let workers = (0..WORKERS).map(|number| Worker::new(number % 2, folders[number % 2].clone(), number, seed, &stop)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| worker.work())).collect();
        let blown = catch_unwind(AssertUnwindSafe(|| field.storm(&mut Chance::new(seed, 0), kills, &stop)));
        stop.store(true, Ordering::Relaxed);
        let done: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        if let Err(cause) = blown {
            std::panic::resume_unwind(cause);
        }
        let (mut asked, mut counts) = (Vec::new(), Vec::new());
        for worker in done {
            let worker = worker.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
            asked.extend(worker.asked);
            counts.push(worker.counts);
        }
        (asked, counts)
    })
}

/// Looks until nothing is missing any more; what still is, is named when the time is over.
fn wait_until(what: &str, mut missing: impl FnMut() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let left = missing();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < REST, "{what}: not after {} s:\n{}", REST.as_secs(), left.join("\n"));
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Opens a session through each door that time will end while something runs in it, and starts that.
fn open_short(doors: &[Door]) -> Vec<String> {
    let mut short = Vec::new();
    for (number, door) in doors.iter().enumerate() {
        let order = json!({ "providerId": "auto", "budgetAllowance": "2", "tools": ["wait"], "mission": "to expire", "expirySeconds": 10, "failover": false });
        wait_until("calm weather", || {
            let said = door.post_with_key("/api/sessions", &order, &format!("short {number}"));
            short.extend(said.body["id"].as_str().map(str::to_owned));
            if said.status < 300 { Vec::new() } else { vec![format!("{said:?}")] }
        });
        let run = json!({ "sessionId": short[number], "toolId": "wait", "args": { "seconds": 60, "mark": "0" } });
        door.post("/tools/run", &run).ok();
    }
    short
}

/// Ends what is still active, but for the sessions that time has to end, and says what is.
fn end_all(doors: &[Door], short: &[String]) -> Vec<String> {
    let mut active = Vec::new();
    for door in doors {
        let sessions = door.get("/api/sessions?limit=1000&status=active").ok();
        for session in sessions["sessions"].as_array().unwrap() {
            let id = session["id"].as_str().unwrap();
            active.push(session.to_string());
            if short.iter().any(|short| short == id) {
                continue;
            }
            // Whether it is answered in time is seen at the next look.
            let _ = door.try_post(&format!("/api/sessions/{id}/end"), &json!({}), &format!("end {id}"), Duration::from_millis(500));
        }
    }
    active
}

fn all_sessions(door: &Door) -> Vec<Outcome> {
    let list: Value = door.get("/api/sessions?limit=1000").ok();
    let mut ids: Vec<&str> = list["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect();
    assert!(ids.len() < 1000, "more sessions than a list holds");
    ids.sort_unstable();
    ids.into_iter().map(|id| evidence::check(door, id)).collect()
}

fn summary(
    field: &Field,
    asked: &[Asked],
    counts: &[Counts],
    outcomes: &[Vec<Outcome>],
    stuck: &sums::Stuck,
    [blown, rested, ended]: [Duration; 3],
) -> String {
    let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
    outcomes.iter().flatten().for_each(|session| *reasons.entry(&session.reason).or_default() += 1);
    let runs = || outcomes.iter().flatten().flat_map(|session| &session.runs);
    let charged: u64 = outcomes.iter().flatten().map(|session| session.charged).sum();
    let sum = |part: fn(&Counts) -> usize| counts.iter().map(part).sum::<usize>();
    format!(
        "{} kills {:?}; {} sessions asked for, {} answered, ends {reasons:?}; {} runs, {} ran, {} completed; {} requests, {} without an answer, \
         {} repeated after an answer; charged {charged} micro-USDC; {} openings lost, {} reservations of {} micro-USDC wait for their end by time; storm {:.0} s, at rest \
         after {:.0} s, reopened after {:.0} s",
        field.killed(),
        field.kills,
        asked.len(),
        asked.iter().filter(|order| order.session.is_some()).count(),
        runs().count(),
        runs().filter(|run| run.ran).count(),
        runs().filter(|run| run.completed).count(),
        sum(|counts| counts.posts),
        sum(|counts| counts.lost),
        sum(|counts| counts.compared),
        stuck.lost,
        stuck.channels,
        stuck.micros,
        blown.as_secs_f64(),
        rested.as_secs_f64(),
        ended.as_secs_f64(),
    )
}
