//! Tokens beside the door's own: what each opens, how it ends, and what is kept of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use orien_door::{Door, DoorConfig, OpenDoorError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::house::{Answer, HUNG, House, read_until};

async fn create(house: &House, body: &Value) -> Answer {
    house.post("/api/tokens", "content-type: application/json\r\n", &body.to_string()).await
}

/// A token with these scopes: its id and its text.
async fn token(house: &House, scopes: &[&str]) -> (String, String) {
    let mut body = json!({ "name": "a test", "scopes": scopes });
    if scopes.contains(&"spend") {
        body["cap"] = json!("2.5");
    }
    let answer = create(house, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

fn bearing(house: &House, token: &str, line: &str, body: &str) -> String {
    let request = house.request(line, "content-type: application/json\r\n", body);
    request.replace(&format!("Bearer {}", house.token), &format!("Bearer {token}"))
}

async fn ask(house: &House, token: &str, line: &str) -> Answer {
    house.send(bearing(house, token, line, "{\"number\":1}")).await
}

#[tokio::test]
async fn each_route_takes_its_scope_and_what_is_not_named_is_closed() {
    let house = House::open().await;
    // Reading, running, spending, and one that nobody has named.
    let lines = ["GET /id", "POST /json", "POST /upload", "PUT /json", "GET /api/tokens", "POST /api/login-links"];
    for (scope, opened) in [("read", 1), ("run", 2), ("spend", 3), ("admin", 6)] {
        let (_, token) = token(&house, &[scope]).await;
        for (number, line) in lines.iter().enumerate() {
            let answer = ask(&house, &token, line).await;
            if number < opened {
                assert_ne!(answer.status, 403, "{scope}: {line}");
            } else {
                let members = answer.problem(403, "insufficient_scope");
                let needed = ["read", "run", "spend", "admin"][number.min(3)];
                assert_eq!(members["neededScope"], needed, "{line}");
                assert!(members["detail"].as_str().unwrap().contains(needed), "{members}");
            }
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_route_learns_who_calls_and_with_what_cap() {
    let house = House::open().await;
    let (id, spender) = token(&house, &["spend", "read"]).await;
    let who = ask(&house, &spender, "GET /who").await.json();
    assert_eq!(who, json!({ "id": id, "cap": 2_500_000, "runs": false }));
    let owner = house.get("/who").await.json();
    assert_eq!(owner, json!({ "id": "owner", "cap": null, "runs": true }));
    house.close().await;
}

#[tokio::test]
async fn two_callers_with_the_same_idempotency_key_are_told_apart() {
    let house = House::open().await;
    let (id, token) = token(&house, &["admin"]).await;
    let key = "idempotency-key: same\r\n";
    let own = house.post("/key", key, "").await;
    let theirs = house.send(house.request("POST /key", key, "").replace(&house.token, &token)).await;
    assert_eq!((own.body.as_str(), theirs.body), ("owner same", format!("{id} same")));
    house.close().await;
}

#[tokio::test]
async fn a_token_is_shown_once_and_only_its_hash_is_kept_in_a_private_file() {
    let house = House::open().await;
    let (id, secret) = token(&house, &["run"]).await;
    let list = house.get("/api/tokens").await;
    assert!(!list.body.contains(&secret) && list.body.contains(&id), "{list:?}");
    let shown = &list.json()["tokens"][0];
    assert_eq!((&shown["scopes"], &shown["name"], &shown["isExpired"]), (&json!(["run"]), &json!("a test"), &json!(false)));
    assert!(shown["createdAt"].as_str().unwrap().ends_with('Z') && shown["lastUsedAt"].is_null(), "{shown}");

    let file = format!("{}s", house.token_file);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&file).unwrap();
    let random = secret.rsplit('_').next().unwrap();
    assert!(kept.contains(&id) && !kept.contains(random), "{kept}");

    assert_eq!(ask(&house, &secret, "GET /id").await.status, 200);
    // Known to the hour, and never before the token was made.
    let listed = house.get("/api/tokens").await.json()["tokens"][0].clone();
    assert_eq!(listed["lastUsedAt"], listed["createdAt"], "{listed}");
    house.close().await;
}

#[tokio::test]
async fn a_token_that_is_taken_back_opens_nothing_and_ends_what_it_had_begun() {
    let house = House::open().await;
    let (id, secret) = token(&house, &["run"]).await;
    let mut events = house.connect().await;
    events.write_all(bearing(&house, &secret, "GET /quiet", "").as_bytes()).await.unwrap();
    read_until(&mut events, "retry").await;
    let mut slow = house.connect().await;
    slow.write_all(bearing(&house, &secret, "GET /slow", "").as_bytes()).await.unwrap();
    house.in_slow.notified().await;

    assert_eq!(house.send(house.request(&format!("DELETE /api/tokens/{id}"), "", "")).await.status, 204);
    let mut rest = Vec::new();
    let _cut = tokio::time::timeout(HUNG, events.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "cut off, not ended");
    Answer::read(&mut slow).await.problem(401, "unauthorized");
    ask(&house, &secret, "GET /id").await.problem(401, "unauthorized");
    house.send(house.request(&format!("DELETE /api/tokens/{id}"), "", "")).await.problem(404, "token_not_found");
    house.close().await;
}

#[tokio::test]
async fn an_expired_token_is_told_so_and_a_changed_one_is_unknown() {
    let house = House::open().await;
    let answer = create(&house, &json!({ "name": "short", "scopes": ["read"], "expiresInSeconds": 1 })).await.json();
    let secret = answer["token"].as_str().unwrap().to_owned();
    assert!(answer["expiresAt"].is_string());
    tokio::time::timeout(HUNG, async {
        while ask(&house, &secret, "GET /id").await.status == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    ask(&house, &secret, "GET /id").await.problem(401, "token_expired");
    let changed = format!("{}{}", &secret[..secret.len() - 1], if secret.ends_with('0') { '1' } else { '0' });
    for text in [changed.as_str(), "orien_", "orien_0000000000000000_", &secret.replace('_', "-"), &secret[6..]] {
        ask(&house, text, "GET /id").await.problem(401, "unauthorized");
    }
    house.close().await;
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_refused() {
    let house = House::open().await;
    for body in [
        json!({ "name": "", "scopes": ["read"] }),
        json!({ "name": "two\nlines", "scopes": ["read"] }),
        json!({ "name": "x".repeat(65), "scopes": ["read"] }),
        json!({ "name": "x", "scopes": [] }),
        json!({ "name": "x", "scopes": ["root"] }),
        json!({ "name": "x", "scopes": ["spend"] }),
        json!({ "name": "x", "scopes": ["run"], "cap": 1 }),
        json!({ "name": "x", "scopes": ["spend", "admin"], "cap": 1 }),
        json!({ "name": "x", "scopes": ["spend"], "cap": -1 }),
        json!({ "name": "x", "scopes": ["spend"], "cap": "1.0000001" }),
        json!({ "name": "x", "scopes": ["read"], "expiresInSeconds": 0 }),
        json!({ "name": "x", "scopes": ["read"], "expiresInSeconds": u64::MAX }),
        json!({ "name": "x", "scopes": ["read"], "more": 1 }),
    ] {
        create(&house, &body).await.problem(422, "invalid_body");
    }
    assert_eq!(house.get("/api/tokens").await.json(), json!({ "tokens": [] }));
    house.close().await;
}

#[tokio::test]
async fn tokens_live_on_over_a_restart_and_there_is_an_end_to_them() {
    let directory = TempDir::new().unwrap();
    let kept = directory.path().to_owned();
    let place = |config: &mut DoorConfig| config.token_file = kept.join("token");
    let house = House::open_with(place).await;
    let (_, secret) = token(&house, &["read"]).await;
    let (gone, _) = token(&house, &["read"]).await;
    for _ in 1..orien_door::TOKENS_MAX {
        token(&house, &["read"]).await;
        if house.get("/api/tokens").await.json()["tokens"].as_array().unwrap().len() == orien_door::TOKENS_MAX {
            break;
        }
    }
    create(&house, &json!({ "name": "one too many", "scopes": ["read"] })).await.problem(409, "too_many_tokens");
    assert_eq!(house.send(house.request(&format!("DELETE /api/tokens/{gone}"), "", "")).await.status, 204);
    assert_eq!(ask(&house, &secret, "GET /id").await.status, 200);
    house.close().await;

    let again = House::open_with(place).await;
    assert_eq!(ask(&again, &secret, "GET /id").await.status, 200);
    let list = again.get("/api/tokens").await.json();
    let list = list["tokens"].as_array().unwrap();
    assert_eq!(list.len(), orien_door::TOKENS_MAX - 1);
    assert!(list.iter().any(|token| token["lastUsedAt"].is_string()), "when it was used is kept");
    again.close().await;
}

#[tokio::test]
async fn a_file_of_tokens_that_others_can_read_or_that_is_none_keeps_the_door_shut() {
    for (text, mode) in [("{\"version\":1,\"tokens\":[]}", 0o644), ("", 0o600), ("{\"version\":2,\"tokens\":[]}", 0o600), ("[]", 0o600)] {
        let directory = TempDir::new().unwrap();
        let token_file = directory.path().join("token");
        let file = directory.path().join("tokens");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let config = DoorConfig::local(std::net::SocketAddr::from(([127, 0, 0, 1], 0)), token_file);
        let error = Door::bind(config).await.unwrap_err();
        assert!(matches!(error, OpenDoorError::Tokens(_)) && error.to_string().contains("tokens"), "{error}");
    }
}

#[tokio::test]
async fn one_token_that_asks_too_often_is_slowed_down_and_the_others_are_not() {
    let house = House::open_with(|config| config.limits.requests_per_second = 20).await;
    let (_, greedy) = token(&house, &["read"]).await;
    let (_, modest) = token(&house, &["read"]).await;
    let mut refused = None;
    for _ in 0..2000 {
        let answer = ask(&house, &greedy, "GET /id").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let answer = refused.unwrap();
    assert!(answer.problem(429, "rate_limited")["retryAfterSeconds"].as_u64().unwrap() >= 1);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(ask(&house, &modest, "GET /id").await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn guessing_is_slowed_down_and_never_locks_a_good_token_out() {
    let house = House::open_with(|config| config.limits.failures_per_second = 5).await;
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let answer = ask(&house, "wrong", "GET /id").await;
        statuses.insert(answer.status);
        if answer.status == 429 {
            answer.problem(429, "rate_limited");
            break;
        }
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [401, 429]);
    assert_eq!(house.get("/id").await.status, 200);
    house.close().await;
}
