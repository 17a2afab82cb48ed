//! Following a session: everything that happens, what it costs meanwhile, and nothing twice after coming back.

use std::time::Duration;

use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::shop::ShopPlan;
use crate::world::{World, until};

#[derive(Debug)]
struct Heard {
    id: Option<u64>,
    name: String,
    data: Value,
}

fn heard(answer: &Answer) -> Vec<Heard> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let frames = text.split("\n\n").filter(|frame| frame.contains("event: "));
    let field = |frame: &str, name: &str| frame.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
    frames
        .map(|frame| Heard {
            id: field(frame, "id: ").map(|id| id.parse().unwrap()),
            name: field(frame, "event: ").unwrap(),
            data: serde_json::from_str(&field(frame, "data: ").unwrap()).unwrap(),
        })
        .collect()
}

fn named<'a>(events: &'a [Heard], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event.name == name).map(|event| &event.data).collect()
}

fn micros(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<Usdc>().unwrap().micros()
}

async fn follow(client: &Client, path: &str, seen: Option<u64>) -> Answer {
    let extra = seen.map(|seen| format!("last-event-id: {seen}\r\n")).unwrap_or_default();
    client.send("GET", path, &extra, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_followed_from_its_opening_to_its_end_with_its_meter_and_its_warnings() {
    let world = World::new().await;
    // A thousandth per second and a fee of a hundredth per call.
    let shop = world.shop("shop", ShopPlan { per_minute: Usdc::from_micros(60_000), ..ShopPlan::default() }).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.05").await;
    let path = format!("/api/sessions/{id}/events");
    let following = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { follow(&client, &path, None).await }
    });
    for n in 0..4 {
        let run = world.run(&format!("echo-{n}"), &id, "echo", json!({ "text": "x" })).await;
        world.over(&run).await;
    }
    client.post(&format!("/api/sessions/{id}/topup"), "more", &json!({ "budgetAllowance": 0.2 })).await.ok(200);
    let long = world.run("sleep", &id, "sleep", json!({})).await;
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    client.send("POST", &format!("/executions/{long}/cancel"), "", b"").await.ok(202);
    world.over(&long).await;
    let ended = client.post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);

    let events = heard(&following.await.unwrap());
    let statuses = |run: &str| -> Vec<String> {
        let of = named(&events, "run").into_iter().filter(|data| data["executionId"] == run);
        of.map(|data| data["status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(statuses(&long), ["pending", "running", "failed"], "{events:#?}");
    let cancelled = named(&events, "run").into_iter().rfind(|data| data["executionId"] == long.as_str()).unwrap();
    assert_eq!((cancelled["endReason"].as_str(), cancelled["toolId"].as_str()), (Some("cancelled"), Some("sleep")), "{cancelled}");
    let warnings = named(&events, "warning");
    assert_eq!(warnings.len(), 1, "four calls use four fifths, and the top-up is far from used: {warnings:?}");
    let (used, left) = (micros(&warnings[0]["budgetConsumed"]), micros(&warnings[0]["remaining"]));
    assert!((40_000..42_000).contains(&used) && used + left == 50_000, "{warnings:?}");

    let meter = named(&events, "meter");
    let running: Vec<&Value> = meter.iter().filter(|data| data["running"] == 1 && data["ratePerMinute"] == "0.06").copied().collect();
    assert!(running.len() >= 3, "about every second while something runs: {meter:#?}");
    let estimates: Vec<u64> = running.iter().map(|data| micros(&data["estimatedCharge"])).collect();
    assert!(estimates.is_sorted() && estimates.last() > estimates.first(), "{estimates:?}");
    assert!(running.iter().all(|data| micros(&data["estimatedCharge"]) >= micros(&data["charged"])), "{running:?}");
    assert!(running.iter().any(|data| micros(&data["charged"]) == used), "only receipts change what is charged");

    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["reason"], &last.data["status"]), ("end", &json!("ended"), &json!("completed")));
    assert_eq!(micros(&last.data["budgetConsumed"]).to_string(), (ended["budgetConsumed"].as_f64().unwrap() * 1e6).round().to_string());
    let numbers: Vec<u64> = events.iter().filter_map(|event| event.id).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(events.iter().all(|event| event.id.is_some() == (event.name != "meter")), "a reading that is old means nothing");

    until("the stored session", || async { (follow(&client, &path, last.id).await.status == 204).then_some(()) }).await;
    let again = heard(&follow(&client, &path, Some(numbers[0])).await);
    assert_eq!((again.len(), again[0].name.as_str(), again[0].id), (1, "end", last.id), "{again:?}");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_gets_what_it_has_not_seen_and_learns_of_an_earlier_run_of_the_gateway() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let id = world.open("open", &shop, "0.5").await;
    let path = format!("/api/sessions/{id}/events");
    let run = world.run("one", &id, "echo", json!({ "text": "x" })).await;
    world.over(&run).await;
    let follower = |seen: Option<u64>| {
        let (client, path) = (world.client(), path.clone());
        tokio::spawn(async move { follow(&client, &path, seen).await })
    };
    let (all, some) = (follower(None), follower(Some(u64::MAX)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.stop_gateway().await;
    let all = heard(&all.await.unwrap());
    assert_eq!(named(&all, "run").len(), 3, "{all:#?}");
    assert!(heard(&some.await.unwrap()).iter().all(|event| event.name == "meter"), "somebody who has everything gets nothing twice");

    world.start_gateway().await;
    let client = world.client();
    let back = tokio::spawn({
        let (client, path, seen) = (client.clone(), path.clone(), all[0].id);
        async move { follow(&client, &path, seen).await }
    });
    until("the provider again", || async { (client.get(&format!("/api/sessions/{id}")).await.ok(200)["connected"] == true).then_some(()) })
        .await;
    let end = client.post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);
    assert_eq!(end["status"], "completed");
    let back = heard(&back.await.unwrap());
    assert_eq!((back[0].name.as_str(), &back[0].data["events"]), ("gap", &Value::Null), "{back:#?}");
    assert!(back.last().is_some_and(|last| last.name == "end"), "{back:#?}");
    shop.close().await;
    world.close().await;
}
