//! Who is let in: host, origin, token.

use crate::house::{Answer, House};

async fn with_host(house: &House, host_lines: &str) -> Answer {
    let token = &house.token;
    house.send(format!("GET /id HTTP/1.1\r\n{host_lines}authorization: Bearer {token}\r\nconnection: close\r\n\r\n")).await
}

async fn with_authorization(house: &House, path: &str, lines: &str) -> Answer {
    let address = house.address;
    house.send(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{lines}connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn every_loopback_name_with_the_port_is_this_door() {
    let house = House::open().await;
    let port = house.address.port();
    for name in ["127.0.0.1", "localhost", "LocalHost", "[::1]"] {
        assert_eq!(with_host(&house, &format!("host: {name}:{port}\r\n")).await.status, 200, "{name}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_rebound_or_unclear_host_is_refused_even_with_the_token() {
    let house = House::open().await;
    let port = house.address.port();
    let other = if port == 65535 { 65534 } else { port + 1 };
    for lines in [
        format!("host: evil.example:{port}\r\n"),
        "host: evil.example\r\n".to_owned(),
        format!("host: 127.0.0.1:{other}\r\n"),
        "host: 127.0.0.1\r\n".to_owned(),
        format!("host: localhost.evil.example:{port}\r\n"),
        format!("host: user@localhost:{port}\r\n"),
        format!("host: localhost.:{port}\r\n"),
        format!("host: localhost:{port}\r\nhost: evil.example\r\n"),
        "host:\r\n".to_owned(),
        String::new(),
    ] {
        with_host(&house, &lines).await.problem(421, "host_not_allowed");
    }
    house.close().await;
}

#[tokio::test]
async fn a_rebound_host_is_refused_on_an_open_route_and_an_unknown_one() {
    let house = House::open().await;
    for path in ["/health", "/nowhere"] {
        house
            .send(format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"))
            .await
            .problem(421, "host_not_allowed");
    }
    house.close().await;
}

#[tokio::test]
async fn a_request_line_that_names_another_host_is_refused() {
    let house = House::open().await;
    house.send(house.request("GET http://evil.example/id", "", "")).await.problem(421, "host_not_allowed");
    let own = format!("GET http://{}/id", house.address);
    assert_eq!(house.send(house.request(&own, "", "")).await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn an_extra_host_is_served_with_and_without_the_port() {
    let house = House::open_with(|config| config.extra_hosts = vec!["Build.Example".to_owned()]).await;
    let port = house.address.port();
    for host in ["build.example".to_owned(), format!("build.example:{port}")] {
        assert_eq!(with_host(&house, &format!("host: {host}\r\n")).await.status, 200, "{host}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_request_without_the_right_token_is_told_the_name_of_the_tokens_file_and_neither_its_place_nor_what_is_in_it() {
    let house = House::open().await;
    let almost = format!("{}0", &house.token[..63]);
    let almost = if almost == house.token { format!("{}1", &house.token[..63]) } else { almost };
    for lines in [
        String::new(),
        "authorization: Bearer wrong\r\n".to_owned(),
        format!("authorization: Bearer {almost}\r\n"),
        format!("authorization: Bearer {}0\r\n", house.token),
        format!("authorization: Bearer {}\r\n", &house.token[..32]),
        format!("authorization: Basic {}\r\n", house.token),
        format!("authorization: {}\r\n", house.token),
        "authorization: Bearer\r\n".to_owned(),
        "authorization: Bearer \r\n".to_owned(),
        "authorization: \r\n".to_owned(),
        format!("authorization: Bearer wrong\r\nauthorization: Bearer {}\r\n", house.token),
    ] {
        let answer = with_authorization(&house, "/id", &lines).await;
        let members = answer.problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        let folder = std::path::Path::new(&house.token_file).parent().unwrap().to_str().unwrap();
        assert!(members["detail"].as_str().unwrap().contains("door.token") && !answer.body.contains(folder), "{members}");
        assert!(!answer.body.contains(&house.token) && !answer.head.contains(&house.token));
    }
    house.close().await;
}

#[tokio::test]
async fn the_right_token_opens_whatever_the_case_of_its_scheme() {
    let house = House::open().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let lines = format!("authorization: {scheme} {}\r\n", house.token);
        assert_eq!(with_authorization(&house, "/id", &lines).await.status, 200, "{scheme}");
    }
    house.close().await;
}

#[tokio::test]
async fn an_unknown_path_says_nothing_without_the_token() {
    let house = House::open().await;
    with_authorization(&house, "/nowhere", "").await.problem(401, "unauthorized");
    house.get("/nowhere").await.problem(404, "not_found");
    house.close().await;
}

#[tokio::test]
async fn an_open_route_is_open_for_reading_only() {
    let house = House::open().await;
    let address = house.address;
    let health = with_authorization(&house, "/health", "").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["status"], "ok");
    assert!(health.json()["uptime"].is_u64());
    house
        .send(format!("POST /health HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
        .await
        .problem(401, "unauthorized");
    for path in ["/health/", "//health", "/health/../id", "/Health"] {
        with_authorization(&house, path, "").await.problem(401, "unauthorized");
    }
    house.close().await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_even_with_the_token() {
    let house = House::open().await;
    let port = house.address.port();
    for lines in [
        "origin: http://evil.example\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        "origin: \r\n".to_owned(),
        "origin: http://localhost:1\r\n".to_owned(),
        format!("origin: file://localhost:{port}\r\n"),
        format!("origin: http://localhost:{port}.evil.example\r\n"),
        format!("origin: http://localhost:{port}\r\norigin: http://evil.example\r\n"),
        "sec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n".to_owned(),
        "sec-fetch-site: same-site\r\nsec-fetch-mode: cors\r\n".to_owned(),
    ] {
        let answer = house.send(house.request("GET /id", &lines, "")).await;
        answer.problem(403, "cross_origin");
        assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{answer:?}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_page_of_this_door_and_a_link_to_it_are_let_in() {
    let house = House::open().await;
    let port = house.address.port();
    for lines in [
        format!("origin: http://localhost:{port}\r\nsec-fetch-site: same-origin\r\n"),
        format!("origin: http://127.0.0.1:{port}\r\n"),
        "sec-fetch-site: none\r\nsec-fetch-mode: navigate\r\n".to_owned(),
        "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n".to_owned(),
    ] {
        let answer = house.send(house.request("GET /id", &lines, "")).await;
        assert_eq!(answer.status, 200, "{lines}");
        assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{answer:?}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_browsers_preflight_is_refused_without_cors_headers() {
    let house = House::open().await;
    let lines = "origin: http://evil.example\r\naccess-control-request-method: POST\r\n";
    let answer = house.send(house.request("OPTIONS /json", lines, "")).await;
    answer.problem(403, "cross_origin");
    assert!(!answer.head.to_ascii_lowercase().contains("access-control"));
    house.close().await;
}

#[tokio::test]
async fn a_request_made_on_behalf_of_another_has_its_rights_and_its_id_and_no_more() {
    let house = House::open().await;
    let known = house.send(house.request("GET /again/id", "x-request-id: one\r\n", "")).await;
    assert_eq!((known.status, known.body.as_str()), (200, "200 one"));
    let stranger = with_authorization(&house, "/again/id", "").await;
    assert!(stranger.status == 200 && stranger.body.starts_with("401 "), "{stranger:?}");
    let wrong = with_authorization(&house, "/again/again/id", &format!("authorization: Bearer {}\r\n", "0".repeat(64))).await;
    assert!(wrong.status == 200 && wrong.body.starts_with("200 401 "), "{wrong:?}");
    house.close().await;
}
