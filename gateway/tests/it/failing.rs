//! A gateway whose disk fails at work: it sends and answers nothing that is not on the disk, ends, and carries out what is repeated once.

use std::collections::BTreeSet;

use orien_bootstrap::FaultyDisk;
use orien_gateway::RunGatewayError;
use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::client::Client;
use crate::shop::{Shop, ShopPlan};
use crate::world::{World, text, until};

/// Crashes in one world: as many budgets as the account has money for, with room to spare.
const CRASHES_PER_WORLD: usize = 30;
/// Operations at the end of an opening in each of which the power fails: the commits of the open session and of its answer are among them.
const LAST_OPERATIONS: u64 = 8;

/// Asks for something; none when there is no answer, or none but that the gateway fails.
async fn ask(client: &Client, path: &str, key: &str, body: &Value) -> Option<Value> {
    let answer = client.try_post(path, key, body).await?;
    assert!([200, 201, 500, 503].contains(&answer.status), "{}", answer.text());
    (answer.status < 500).then(|| answer.json())
}

/// Answers of a job, as far as it came: the session, its runs, its end.
#[derive(Debug, Default)]
struct Job {
    session: Option<String>,
    runs: Vec<String>,
    ended: Option<Value>,
}

/// Opens a session, runs two tools in it and ends it, each under its own key.
async fn job(client: &Client, shop: &Shop, number: usize) -> Job {
    let mut job = Job::default();
    let order = json!({ "providerId": shop.id().to_string(), "budgetAllowance": "0.12" });
    let Some(session) = ask(client, "/api/sessions", &format!("open-{number}"), &order).await else { return job };
    let id = text(&session, "id");
    job.session = Some(id.clone());
    for run in 0..2 {
        let order = json!({ "sessionId": id, "toolId": "echo", "args": { "text": run.to_string() } });
        let Some(started) = ask(client, "/tools/run", &format!("run-{number}-{run}"), &order).await else { return job };
        job.runs.push(text(&started, "executionId"));
    }
    job.ended = ask(client, &format!("/api/sessions/{id}/end"), &format!("end-{number}"), &json!({})).await;
    job
}

fn micros(value: &Value) -> u64 {
    (value.as_f64().unwrap() * 1e6).round() as u64
}

/// Lets the power fail at an operation of a job, and repeats the job; what is on the disk then.
async fn crash(world: &mut World, shop: &Shop, number: usize, image: Vec<u8>, (at, seed): (u64, u64)) -> Vec<u8> {
    let what = format!("crash {number} at {at}");
    let disk = FaultyDisk::holding(image);
    world.start_gateway_over(&disk).await;
    shop.see(|seen| (seen.jobs.clear(), seen.vouchers.clear()));
    disk.cut_at(disk.operations() + at, seed);
    let before = job(&world.client(), shop, number).await;
    if disk.is_off() {
        let operations = disk.operations();
        let error = world.failed().await;
        assert!(matches!(error, RunGatewayError::Store(_)), "{what}: {error}");
        assert_eq!(disk.operations(), operations, "{what}: written after a failed write");
    } else {
        world.stop_gateway().await;
    }
    let (jobs, promised) = shop.see(|seen| {
        let jobs: BTreeSet<String> = seen.jobs.iter().map(|job| job.execution.to_string()).collect();
        (jobs, seen.vouchers.iter().map(|voucher| voucher.total.micros()).max())
    });
    let disk = FaultyDisk::holding(disk.left(seed));
    world.start_gateway_over(&disk).await;
    let client = world.client();
    for job in &jobs {
        assert_eq!(client.get(&format!("/executions/{job}")).await.status, 200, "{what}: a job was sent that is not kept");
    }
    let after = job(&client, shop, number).await;
    let session = after.session.unwrap();
    assert!(before.session.is_none_or(|before| before == session), "{what}: another session");
    assert_eq!(before.runs[..], after.runs[..before.runs.len()], "{what}: other runs");
    let ended = after.ended.unwrap();
    assert!(before.ended.is_none_or(|before| before == ended), "{what}: another end");
    let consumed = micros(&ended["budgetConsumed"]);
    assert!(promised.is_none_or(|promised| promised <= consumed), "{what}: promised {promised:?}, ended at {consumed}");
    let (executions, newest) = shop.see(|seen| {
        let executions: BTreeSet<String> = seen.jobs.iter().map(|job| job.execution.to_string()).collect();
        (executions, seen.vouchers.iter().map(|voucher| voucher.total.micros()).max())
    });
    assert!(executions.iter().eq(after.runs.iter().collect::<BTreeSet<_>>()), "{what}: {executions:?} {:?}", after.runs);
    assert_eq!(newest, Some(consumed), "{what}: both sides end with the same sum");
    until("no session is open", || async {
        let open = client.get("/api/sessions?status=active").await.ok(200);
        (open["sessions"] == json!([])).then_some(())
    })
    .await;
    world.stop_gateway().await;
    disk.left(seed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_disk_fails_sends_nothing_that_is_not_kept_and_does_what_is_repeated_once() {
    let mut world = World::new().await;
    let mut shop = world.shop("shop", ShopPlan::default()).await;
    world.stop_gateway().await;
    let disk = FaultyDisk::default();
    world.start_gateway_over(&disk).await;
    let from = disk.operations();
    assert!(job(&world.client(), &shop, 0).await.ended.is_some());
    let length = disk.operations() - from;
    world.stop_gateway().await;
    let mut image = disk.left(0);
    let is_all = std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all");
    let step = if is_all { 1 } else { (length / 8).max(1) };
    for (number, at) in (1_usize..).zip((0..length).filter(|at| at.is_multiple_of(step))) {
        if number.is_multiple_of(CRASHES_PER_WORLD) {
            shop.close().await;
            world.start_gateway().await;
            world.close().await;
            world = World::new().await;
            shop = world.shop("shop", ShopPlan::default()).await;
            world.stop_gateway().await;
            image = Vec::new();
        }
        image = crash(&mut world, &shop, number, image, (at, at * 31 + 7)).await;
    }
    shop.close().await;
    world.start_gateway().await;
    world.close().await;
}

/// Lets the power fail at an operation of an `auto` opening whose first provider is never proposed to, and repeats the request; how many operations it had, and what is on the disk then.
async fn crash_opening(world: &mut World, dear: &Shop, number: usize, image: Vec<u8>, (at, seed): (u64, u64)) -> (u64, Vec<u8>) {
    let what = format!("crash {number} at {at}");
    let order = json!({ "providerId": "auto", "budgetAllowance": "0.12", "tools": ["echo"] });
    let key = format!("open-{number}");
    let disk = FaultyDisk::holding(image);
    world.start_gateway_over(&disk).await;
    let from = disk.operations();
    disk.cut_at(from + at, seed);
    let before = ask(&world.client(), "/api/sessions", &key, &order).await.map(|session| text(&session, "id"));
    let length = disk.operations() - from;
    if disk.is_off() {
        drop(world.failed().await)
    } else {
        world.stop_gateway().await
    }
    let disk = FaultyDisk::holding(disk.left(seed));
    world.start_gateway_over(&disk).await;
    let client = world.client();
    let first = client.post("/api/sessions", &key, &order).await.ok(201);
    let again = client.post("/api/sessions", &key, &order).await;
    assert_eq!((again.header("idempotency-replayed"), &again.ok(201)["id"]), (Some("true"), &first["id"]), "{what}");
    let id = text(&first, "id");
    assert!(before.is_none_or(|before| before == id), "{what}: another session");
    assert_eq!(first["providerId"], dear.id().to_string(), "{what}: the second has to take it");
    let proposals = dear.see(|seen| std::mem::take(&mut seen.proposals));
    let different: BTreeSet<_> = proposals.iter().collect();
    assert_eq!(different.len(), proposals.len(), "{what}: a session was proposed again over the records of what it was: {proposals:?}");
    assert_eq!(proposals.last().map(ToString::to_string), Some(id.clone()), "{what}: nothing is opened beside it");
    client.post(&format!("/api/sessions/{id}/end"), &format!("end-{number}"), &json!({})).await.ok(200);
    world.stop_gateway().await;
    (length, disk.left(seed))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_opening_finds_its_session_although_its_first_provider_was_never_proposed_to() {
    let mut world = World::new().await;
    let (micros, minimum_charge) = (Usdc::from_micros, Usdc::from_micros(1_000_000));
    // More than the budget: it is given up before anything is proposed.
    let cheap = world.shop("cheap", ShopPlan { label: "cheap", per_minute: micros(300_000), minimum_charge, ..ShopPlan::default() }).await;
    let dear = world.shop("dear", ShopPlan { label: "dear", ..ShopPlan::default() }).await;
    let ranked = world.client().get("/api/providers?tool=echo").await.ok(200);
    assert_eq!(ranked["providers"][0]["id"], cheap.id().to_string(), "it is tried first");
    world.stop_gateway().await;
    // The first is let through, to see how long it is.
    let (length, mut image) = crash_opening(&mut world, &dear, 0, Vec::new(), (1_000_000, 0)).await;
    for (number, at) in (1_usize..).zip(length.saturating_sub(LAST_OPERATIONS)..length) {
        image = crash_opening(&mut world, &dear, number, image, (at, at * 31 + 7)).await.1;
    }
    assert!(cheap.see(|seen| seen.proposals.is_empty()), "it was proposed to");
    cheap.close().await;
    dear.close().await;
    world.start_gateway().await;
    world.close().await;
}
