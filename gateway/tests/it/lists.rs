//! Lists: ranked, filtered, in pages, and not sent again to who has them; and runs that are waited for.

use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::client::Client;
use crate::shop::ShopPlan;
use crate::world::{World, text, until};

fn ids(list: &Value, name: &str) -> Vec<String> {
    list[name].as_array().unwrap_or_else(|| panic!("no {name} in {list}")).iter().map(|item| text(item, "id")).collect()
}

/// All pages of a list, two items each.
async fn pages(client: &Client, path: &str, name: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}limit=2{cursor}")).await.ok(200);
        let found = ids(&page, name);
        assert!(found.len() <= 2, "{page}");
        all.extend(found);
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_ranked_with_reasons_and_what_does_not_fit_says_what_it_lacks() {
    let world = World::new().await;
    let price = |micros| Usdc::from_micros(micros);
    let dear = world.shop("dear", ShopPlan { label: "dear", per_minute: price(900_000), ..ShopPlan::default() }).await;
    let cheap = world.shop("cheap", ShopPlan { label: "cheap", per_minute: price(100_000), ..ShopPlan::default() }).await;
    let client = world.client();

    let all = client.get("/api/providers?tool=echo").await.ok(200);
    assert_eq!(ids(&all, "providers"), [cheap.id().to_string(), dear.id().to_string()]);
    let first = &all["providers"][0];
    assert_eq!(first["rank"], 1);
    assert!(text(first, "why").starts_with("the cheapest of 2 that offer echo: 0.1 USDC per minute"), "{first}");
    assert_eq!(first["measured"]["samples"], 0);
    assert_eq!((&first["reputation"]["own"]["completed"], &first["reputation"]["attestations"]), (&json!(0), &json!([])));
    assert_eq!(pages(&client, "/api/providers?tool=echo&", "providers").await.len(), 2);

    let path = "/api/providers?tool=echo&maxPricePerMinute=0.5&rejected=true";
    let some = client.get(path).await.ok(200);
    assert_eq!(ids(&some, "providers"), [cheap.id().to_string()]);
    assert_eq!(some["rejected"][0]["label"], "dear");
    assert_eq!(some["rejected"][0]["why"], "it asks 0.9 USDC per minute, more than 0.5");
    for (query, lack) in [("minUptime=99.5", "less than 99.5 %"), ("region=mars", "not in mars"), ("confinement=S3", "S0, less than S3")] {
        let none = client.get(&format!("/api/providers?{query}&rejected=true")).await.ok(200);
        assert_eq!(none["providers"], json!([]), "{query}");
        assert!(text(&none["rejected"][0], "why").contains(lack), "{none}");
    }
    for sort in ["price", "start", "uptime", "reputation"] {
        assert_eq!(ids(&client.get(&format!("/api/providers?sort={sort}")).await.ok(200), "providers").len(), 2);
    }
    for query in
        ["sort=luck", "minUptime=101", "confinement=S9", "limit=0", "cursor=x", "odd=1", "maxPricePerMinute=free", "rejected=perhaps"]
    {
        client.get(&format!("/api/providers?{query}")).await.problem(400, "invalid_query");
    }
    dear.close().await;
    cheap.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lived_through_with_a_provider_is_shown_also_after_a_restart() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let path = format!("/api/providers/{}", shop.id());
    let id = world.open("open", &shop, "0.5").await;
    world.over(&world.run("run", &id, "echo", json!({ "text": "x" })).await).await;
    let large = vec![7; 200_000];
    world.client().send("PUT", &format!("/api/sessions/{id}/files/large"), "", &large).await.ok(201);
    assert_eq!(world.client().get(&format!("/api/sessions/{id}/files/large")).await.body.len(), large.len());
    let live = world.client().get(&path).await.ok(200);
    assert_eq!((&live["measured"]["samples"], &live["reputation"]["own"]["completed"]), (&json!(1), &json!(0)));
    assert!(live["measured"]["uploadBytesPerSecond"].as_u64().unwrap() > 0, "{live}");
    assert!(live["measured"]["downloadBytesPerSecond"].as_u64().unwrap() > 0, "{live}");
    world.client().post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);

    let closed = until("the session in the sums", || async {
        let provider = world.client().get(&path).await.ok(200);
        (provider["reputation"]["own"]["completed"] == 1).then_some(provider)
    })
    .await;
    world.stop_gateway().await;
    world.start_gateway().await;
    let client = world.client();
    let again = until("the offer at the gateway", || async {
        let answer = client.get(&path).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(again["reputation"]["own"], closed["reputation"]["own"]);
    assert_eq!((&again["reputation"]["own"]["runs"], &again["reputation"]["own"]["charged"]), (&json!(1), &json!(0.01005)));
    for figure in ["startP50Ms", "startP95Ms", "samples"] {
        assert_eq!(again["measured"][figure], closed["measured"][figure], "{figure}");
    }
    let ranked = client.get("/api/providers?sort=reputation").await.ok(200);
    assert!(text(&ranked["providers"][0], "why").contains("1 of 1 sessions here went well"), "{ranked}");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_runs_come_in_pages_newest_first_and_a_list_that_did_not_change_is_not_sent_again() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let mut sessions = Vec::new();
    for number in 0..3 {
        sessions.push(world.open(&format!("open-{number}"), &shop, "0.5").await);
    }
    let mut runs = Vec::new();
    for number in 0..3 {
        let run = world.run(&format!("run-{number}"), &sessions[0], "echo", json!({ "text": "x" })).await;
        world.over(&run).await;
        runs.push(run);
    }
    sessions.reverse();
    runs.reverse();
    assert_eq!(pages(&client, "/api/sessions?", "sessions").await, sessions);
    assert_eq!(pages(&client, &format!("/executions?sessionId={}&", sessions[2]), "executions").await, runs);
    client.get("/api/sessions?cursor=nonsense").await.problem(400, "invalid_query");
    client.get(&format!("/executions?sessionId={}&cursor={}", sessions[2], sessions[0])).await.problem(400, "invalid_query");

    for path in ["/api/sessions".to_owned(), format!("/executions?sessionId={}", sessions[2])] {
        let first = client.get(&path).await;
        let tag = first.header("etag").unwrap().to_owned();
        assert!(tag.starts_with("W/\""), "{tag}");
        let again = client.send("GET", &path, &format!("if-none-match: {tag}\r\n"), b"").await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())));
    }
    let tag = client.get("/api/sessions").await.header("etag").unwrap().to_owned();
    world.open("one-more", &shop, "0.5").await;
    assert_eq!(client.send("GET", "/api/sessions", &format!("if-none-match: {tag}\r\n"), b"").await.status, 200);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_waited_for_is_answered_whole_and_one_that_goes_on_as_it_stands() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "5").await;
    let order = json!({ "sessionId": id, "toolId": "echo", "args": { "text": "world" }, "wait": 30 });
    let answer = client.post("/tools/run", "echo", &order).await;
    let run = answer.ok(201);
    assert_eq!((&run["status"], &run["output"], &run["cost"]), (&json!("completed"), &json!("hello\nworld\n"), &json!(0.01005)));
    assert_eq!(run, client.get(&format!("/executions/{}", text(&run, "id"))).await.ok(200));
    assert_eq!(answer.header("idempotency-replayed"), None);

    let order = json!({ "sessionId": id, "toolId": "sleep", "args": {}, "wait": 1 });
    let sleeping = client.post("/tools/run", "sleep", &order).await.ok(201);
    assert_eq!(sleeping["status"], "running");
    let path = format!("/executions/{}", text(&sleeping, "id"));
    // A caller that hangs up in the middle of its wait changes nothing.
    let gone = {
        let (client, order) = (client.clone(), json!({ "sessionId": id, "toolId": "sleep", "args": {}, "wait": 300 }));
        tokio::spawn(async move { client.try_post("/tools/run", "gone", &order).await })
    };
    let other = until("the second run", || async {
        let runs = client.get(&format!("/executions?sessionId={id}")).await.ok(200);
        runs["executions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| text(run, "id"))
            .find(|other| *other != text(&sleeping, "id") && *other != text(&run, "id"))
    })
    .await;
    gone.abort();
    client.send("POST", &format!("{path}/cancel"), "", b"").await.ok(202);
    let again = client.post("/tools/run", "sleep", &order).await;
    let cancelled = again.ok(201);
    assert_eq!((&cancelled["id"], &cancelled["endReason"]), (&sleeping["id"], &json!("cancelled")));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let seconds = cancelled["effectiveDurationSeconds"].as_f64().unwrap();
    let milliseconds = (seconds * 1000.0).round();
    let expected = 0.01 + milliseconds * 600_000.0 / 60_000.0 / 1e6;
    assert!((cancelled["cost"].as_f64().unwrap() - expected).abs() < 1e-9, "only elapsed time is charged: {cancelled}");
    assert_eq!(client.get(&format!("/executions/{other}")).await.ok(200)["status"], "running");

    // Whoever stops the gateway does not wait for those who wait.
    let waiting = {
        let (client, order) = (client.clone(), json!({ "sessionId": id, "toolId": "sleep", "args": {}, "wait": 300 }));
        tokio::spawn(async move { client.post("/tools/run", "long", &order).await.ok(201)["status"].clone() })
    };
    until("the third run", || async {
        let runs = client.get(&format!("/executions?sessionId={id}")).await.ok(200);
        let running = runs["executions"].as_array().unwrap().iter().filter(|run| run["status"] == "running");
        (running.count() == 2).then_some(())
    })
    .await;
    world.stop_gateway().await;
    assert_eq!(waiting.await.unwrap(), "running");
    world.start_gateway().await;
    let order = json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" }, "wait": 301 });
    world.client().post("/tools/run", "too-long", &order).await.problem(422, "invalid_body");
    shop.close().await;
    world.close().await;
}
