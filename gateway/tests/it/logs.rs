//! Reading the output of a run: whatever is missing of it is told, once, to everybody who reads it.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::shop::ShopPlan;
use crate::world::{World, until};

/// Events as number, name and line, or the lines that a gap stands for.
fn told(answer: &Answer) -> Vec<(Option<u64>, String, Value)> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let events = text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let shown = |event: Value| {
        let name = event["event"].as_str().unwrap().to_owned();
        let data = match name.as_str() {
            "gap" => event["data"]["lines"].clone(),
            "end" => event["data"]["status"].clone(),
            _ => event["data"]["line"].clone(),
        };
        (event["id"].as_u64(), name, data)
    };
    events.map(shown).filter(|(_, name, _)| name != "keep_alive").collect()
}

async fn read(client: &Client, run: &str, seen: Option<u64>) -> Answer {
    let seen = seen.map(|seen| format!("last-event-id: {seen}\r\n")).unwrap_or_default();
    client.send("GET", &format!("/logs/{run}"), &format!("accept: application/x-ndjson\r\n{seen}"), b"").await
}

fn event(id: impl Into<Option<u64>>, name: &str, data: impl Into<Value>) -> (Option<u64>, String, Value) {
    (id.into(), name.to_owned(), data.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_is_lost_at_the_end_of_a_run_is_told_to_whoever_has_everything_before_it() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    shop.see(|seen| seen.drops_output = true);
    let id = world.open("open", &shop, "0.5").await;
    let run = world.run("run", &id, "echo", json!({ "text": "x" })).await;
    world.over(&run).await;
    let (missing, end) = (event(3, "gap", Value::Null), event(None, "end", "completed"));
    let all = [event(1, "stdout", "hello"), event(2, "stdout", "x"), missing.clone(), end.clone()];
    for is_stored in [false, true] {
        if is_stored {
            world.client().post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);
            world.stop_gateway().await;
            world.start_gateway().await;
        }
        let client = world.client();
        assert_eq!(told(&read(&client, &run, None).await), all, "stored: {is_stored}");
        assert_eq!(told(&read(&client, &run, Some(2)).await), [missing.clone(), end.clone()], "stored: {is_stored}");
        assert_eq!(read(&client, &run, Some(3)).await.status, 204, "stored: {is_stored}");
        let shown = client.get(&format!("/executions/{run}")).await.ok(200);
        assert_eq!((&shown["output"], &shown["outputTruncated"]), (&json!("hello\nx\n"), &json!(true)));
        assert_eq!(shown["usage"]["outputVerified"], Value::Null);
    }
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_run_that_its_provider_and_the_gateway_forgot_in_the_middle_learns_that_something_is_missing() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let order = json!({ "providerId": shop.id().to_string(), "budgetAllowance": "0.5", "failover": false });
    let id = crate::world::text(&client.post("/api/sessions", "open", &order).await.ok(201), "id");
    let run = world.run("run", &id, "sleep", json!({})).await;
    until("the first line", || async { (client.get(&format!("/executions/{run}")).await.ok(200)["output"] == "zzz\n").then_some(()) })
        .await;
    world.stop_gateway().await;
    shop.see(|seen| seen.forgets_logs = true);
    shop.stop_sessions();
    world.start_gateway().await;
    let client = world.client();
    let back = told(&read(&client, &run, Some(1)).await);
    let number = back[0].0.unwrap();
    assert_eq!(back, [event(number, "gap", Value::Null), event(None, "end", "failed")]);
    assert!(number > 1_000_000_000_000, "higher than what anybody may have: {number}");
    assert_eq!(read(&client, &run, Some(number)).await.status, 204);
    shop.close().await;
    world.close().await;
}
