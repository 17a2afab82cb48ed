//! What can be known of a session before it is opened, and costs something: whether its provider fits, and takes the run that it is for.

use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::shop::ShopPlan;
use crate::world::{World, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_for_a_run_that_its_provider_would_refuse_is_not_opened() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let order = |provider: &str, budget: &str, run: &Value| json!({ "providerId": provider, "budgetAllowance": budget, "firstRun": run });
    let echo = |args: Value| json!({ "toolId": "echo", "args": args });
    let cases = [
        (echo(json!({})), "0.5", 422, "bad_arguments"),
        (echo(json!({ "text": 5 })), "0.5", 422, "bad_arguments"),
        (echo(json!({ "text": "x".repeat(101) })), "0.5", 422, "bad_arguments"),
        (echo(json!({ "text": "x", "more": 1 })), "0.5", 422, "bad_arguments"),
        (json!({ "toolId": "nope" }), "0.5", 404, "no_provider"),
        (json!({ "toolId": "echo", "args": { "text": "x" }, "maxCost": 0 }), "0.5", 422, "invalid_body"),
        (json!({ "toolId": "echo", "args": { "text": "x" }, "maxCost": 0.009 }), "0.5", 402, "budget_exhausted"),
        // The call fee and five seconds come to 0.06.
        (echo(json!({ "text": "x" })), "0.059", 402, "budget_exhausted"),
        (json!({ "tool": "echo" }), "0.5", 422, "invalid_body"),
    ];
    for (number, (run, budget, status, code)) in cases.iter().enumerate() {
        for provider in ["auto", "shop"] {
            let answer = client.post("/api/sessions", &format!("bad-{number}-{provider}"), &order(provider, budget, run)).await;
            let problem = answer.problem(*status, code);
            if *code == "bad_arguments" {
                assert!(text(&problem["problems"][0], "problem").len() > 5, "{problem}");
            }
        }
    }
    let mut dry = order("auto", "0.5", &echo(json!({})));
    dry["dryRun"] = json!(true);
    client.post("/api/sessions", "dry", &dry).await.problem(422, "bad_arguments");
    assert_eq!(shop.see(|seen| seen.proposals.len()), 0, "nothing was asked of the provider");
    assert_eq!(client.get("/api/balance").await.ok(200)["reserved"], json!(0));

    let opened = client.post("/api/sessions", "good", &order("auto", "0.06", &echo(json!({ "text": "x" })))).await.ok(201);
    assert_eq!((&opened["status"], shop.see(|seen| seen.jobs.len())), (&json!("active"), 0), "nothing was started by that");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_named_and_never_fitted_is_no_changed_offer() {
    let world = World::new().await;
    let plan = ShopPlan { per_minute: Usdc::from_micros(900_000), ..ShopPlan::default() };
    let shop = world.shop("shop", plan).await;
    let client = world.client();
    for (number, (wish, lack)) in [
        (json!({ "tools": ["nope"] }), "does not offer nope"),
        (json!({ "region": "mars" }), "not in mars"),
        (json!({ "maxPricePerMinute": 0.5 }), "0.9 USDC per minute"),
    ]
    .into_iter()
    .enumerate()
    {
        for dry in [false, true] {
            let mut order = json!({ "providerId": "shop", "budgetAllowance": 0.5, "dryRun": dry });
            order.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
            let problem = client.post("/api/sessions", &format!("open-{number}-{dry}"), &order).await.problem(404, "no_provider");
            assert!(text(&problem["problems"][0], "problem").contains(lack), "{problem}");
        }
    }
    shop.close().await;
    world.close().await;
}
