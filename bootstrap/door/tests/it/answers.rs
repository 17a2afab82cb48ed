//! What every answer has: a request id, safe headers, and problems that are complete.

use crate::house::House;
use crate::log;

#[tokio::test]
async fn the_log_has_a_line_per_request_without_token_query_or_path_given() {
    let house = House::open().await;
    let named = |line: &str, id: &str| house.request(line, &format!("x-request-id: {id}\r\n"), "");
    house.send(named("GET /number/3133731337?private=1", "logged-1")).await;
    house.send(named("GET /somebodys-private-path", "logged-2")).await;
    house.send(named("GET /id", "logged-3").replace("Bearer ", "Bearer x")).await;
    let token = house.token.clone();
    house.close().await;

    let text = log::text();
    let line = |id: &str| {
        let mut lines = text.lines().filter(|line| line.ends_with(&format!("request={id}")));
        let first = lines.next().unwrap();
        assert_eq!(lines.next(), None);
        first
    };
    for part in ["INFO", "method=GET", "route=\"/number/{number}\"", "status=200", "ms="] {
        assert!(line("logged-1").contains(part), "{part}: {text}");
    }
    assert!(line("logged-2").contains("route=\"unmatched\" status=404"), "{text}");
    assert!(line("logged-3").contains("status=401"), "{text}");
    assert!(!text.contains(&token) && !text.contains("private") && !text.contains("3133731337"));
}

#[tokio::test]
async fn a_sane_request_id_comes_back_and_any_other_is_replaced() {
    let house = House::open().await;
    let longest = "x".repeat(64);
    for given in ["abc-123", longest.as_str()] {
        let answer = house.send(house.request("GET /id", &format!("x-request-id: {given}\r\n"), "")).await;
        assert_eq!(answer.header("x-request-id"), Some(given));
        assert_eq!(answer.body, given);
    }
    let too_long = "x".repeat(65);
    for given in ["", "a b", too_long.as_str(), "caf\u{e9}"] {
        let answer = house.send(house.request("GET /id", &format!("x-request-id: {given}\r\n"), "")).await;
        let made = answer.header("x-request-id").unwrap();
        assert!(made.starts_with("req_") && made.len() <= 64, "{made}");
        assert_eq!(answer.body, made);
    }
    let (one, two) = (house.get("/id").await, house.get("/id").await);
    assert_ne!(one.body, two.body);
    house.close().await;
}

#[tokio::test]
async fn every_answer_has_safe_headers() {
    let house = House::open().await;
    let stranger = "GET /id HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    for answer in [house.get("/id").await, house.get("/nowhere").await, house.get("/panic").await, house.send(stranger).await] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert!(answer.header("x-request-id").is_some());
    }
    house.close().await;
}

#[tokio::test]
async fn a_page_keeps_its_own_policy_and_escapes_its_title() {
    let house = House::open().await;
    let answer = house.get("/page").await;
    assert!(answer.header("content-security-policy").unwrap().contains("script-src 'self'"));
    assert!(answer.body.contains("<title>a &lt;b&gt; &amp; c</title>"), "{}", answer.body);
    house.close().await;
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems() {
    let house = House::open().await;
    let members = house.get("/nowhere?secret=1").await.problem(404, "not_found");
    assert_eq!(members["instance"], "/nowhere");
    let answer = house.get("/json").await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    house.close().await;
}

#[tokio::test]
async fn an_error_status_without_a_body_becomes_a_problem() {
    let house = House::open().await;
    house.get("/bare").await.problem(409, "conflict");
    house.close().await;
}

#[tokio::test]
async fn a_roles_problem_keeps_its_extra_members_and_no_standard_one_is_replaced() {
    let house = House::open().await;
    let answer = house.get("/poor").await;
    let members = answer.problem(402, "budget_exhausted");
    assert_eq!(members["missing"], "0.25");
    assert_eq!(members["detail"], "0.25 more is needed");
    assert_eq!(members["retryAfterSeconds"], 7);
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(members["instance"], "/poor");
    house.close().await;
}

#[tokio::test]
async fn head_of_a_problem_has_no_body_and_the_connection_stays_in_step() {
    let house = House::open().await;
    let (address, token) = (house.address, &house.token);
    let both = format!(
        "HEAD /poor HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n{}",
        house.request("GET /number/7", "", "")
    );
    let answer = house.send(both).await;
    assert_eq!(answer.status, 402);
    assert!(answer.body.starts_with("HTTP/1.1 200 OK") && answer.body.ends_with("\r\n\r\n7"), "{answer:?}");
    house.close().await;
}

#[tokio::test]
async fn a_route_that_panics_answers_without_internals_and_the_door_stays_healthy() {
    let house = House::open().await;
    for _ in 0..3 {
        let answer = house.get("/panic").await;
        answer.problem(500, "internal");
        assert!(!answer.body.contains("secret of the program"));
    }
    house.assert_healthy().await;
    house.close().await;
}
