//! How a browser comes in, and what its cookie does not open.

use std::time::Duration;

use orien_door::DoorConfig;

use crate::house::{Answer, House};

/// A login link's path and query.
async fn link(house: &House) -> String {
    let answer = house.post("/api/login-links", "", "").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let own = format!("http://{}/login?code=", house.address);
    assert!(url.starts_with(&own) && !url.contains(&house.token), "{url}");
    assert!(answer.json()["expiresAt"].is_string());
    url.strip_prefix(&format!("http://{}", house.address)).unwrap().to_owned()
}

/// What a browser sends: no token, perhaps a cookie.
async fn browse(house: &House, line: &str, lines: &str) -> Answer {
    let address = house.address;
    let accept = "accept: text/html,application/xhtml+xml\r\n";
    house.send(format!("{line} HTTP/1.1\r\nhost: {address}\r\n{accept}{lines}content-length: 0\r\nconnection: close\r\n\r\n")).await
}

async fn log_in(house: &House) -> String {
    let answer = browse(house, &format!("GET {}", link(house).await), "").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/;", "; Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    format!("cookie: other=1; {}\r\n", cookie.split(';').next().unwrap())
}

#[tokio::test]
async fn a_link_lets_one_browser_in_once_and_leaves_no_query_behind() {
    let house = House::open().await;
    let path = link(&house).await;
    let looked = browse(&house, &format!("HEAD {path}"), "").await;
    assert_eq!(looked.status, 204, "looking at it does not use it up");
    assert_eq!(browse(&house, &format!("GET {path}"), "").await.status, 303);
    let again = browse(&house, &format!("GET {path}"), "").await;
    assert!(again.status == 410 && again.body.contains("orien open") && again.header("set-cookie").is_none(), "{again:?}");
    for path in ["/login", "/login?code=", "/login?code=0000"] {
        assert_eq!(browse(&house, &format!("GET {path}"), "").await.status, 410);
    }
    house.close().await;
}

#[tokio::test]
async fn a_link_and_a_login_end_with_their_time() {
    let house = House::open_with(|config: &mut DoorConfig| config.limits.login_code = Duration::ZERO).await;
    let path = link(&house).await;
    assert_eq!(browse(&house, &format!("GET {path}"), "").await.status, 410);
    house.close().await;
    let house = House::open_with(|config: &mut DoorConfig| config.limits.login = Duration::ZERO).await;
    let cookie = log_in(&house).await;
    assert_eq!(browse(&house, "GET /id", &cookie).await.status, 401);
    house.close().await;
}

#[tokio::test]
async fn a_cookie_reads_and_changes_only_what_a_page_of_the_door_asks_for() {
    let house = House::open().await;
    let (cookie, port) = (log_in(&house).await, house.address.port());
    assert_eq!(browse(&house, "GET /id", &cookie).await.status, 200);
    assert_eq!(browse(&house, "GET /who", &cookie).await.json()["id"], "owner");
    let own = ["sec-fetch-site: same-origin\r\n".to_owned(), format!("origin: http://127.0.0.1:{port}\r\n")];
    for lines in own {
        assert_eq!(browse(&house, "POST /upload", &format!("{cookie}{lines}")).await.status, 200, "{lines}");
    }
    browse(&house, "POST /upload", &cookie).await.problem(403, "cross_site");
    for (lines, code) in [
        ("sec-fetch-site: cross-site\r\n", "cross_origin"),
        ("sec-fetch-site: same-site\r\n", "cross_origin"),
        ("sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n", "cross_site"),
        ("sec-fetch-site: same-origin\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n", "cross_site"),
        ("origin: http://evil.example\r\n", "cross_origin"),
        ("origin: null\r\n", "cross_origin"),
    ] {
        browse(&house, "POST /upload", &format!("{cookie}{lines}")).await.problem(403, code);
    }
    // A program with a token says none of that.
    assert_eq!(house.post("/upload", "", "").await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn a_wrong_or_doubled_cookie_opens_nothing_and_a_logout_ends_it() {
    let house = House::open().await;
    let cookie = log_in(&house).await;
    let name = format!("orien-{}", house.address.port());
    for lines in [format!("cookie: {name}=0000\r\n"), format!("{cookie}cookie: {name}=0000\r\n"), "cookie: orien-1=0000\r\n".to_owned()] {
        assert_eq!(browse(&house, "GET /id", &lines).await.status, 401, "{lines}");
    }
    let site = "sec-fetch-site: same-origin\r\n";
    browse(&house, "POST /logout", &cookie).await.problem(403, "cross_site");
    let out = browse(&house, "POST /logout", &format!("{cookie}{site}")).await;
    assert!(out.status == 303 && out.header("set-cookie").unwrap().contains("Max-Age=0"), "{out:?}");
    assert_eq!(browse(&house, "GET /id", &cookie).await.status, 401);
    house.close().await;
}

#[tokio::test]
async fn a_browser_without_a_login_is_shown_how_to_get_one_and_a_program_gets_a_problem() {
    let house = House::open().await;
    let shown = browse(&house, "GET /id", "").await;
    assert_eq!(shown.status, 401);
    assert_eq!(shown.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(shown.body.contains("orien open"), "{shown:?}");
    let policy = shown.header("content-security-policy").unwrap();
    assert_eq!(
        policy,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'"
    );
    let icon = browse(&house, "GET /favicon.ico", "").await;
    assert_eq!((icon.status, icon.header("content-type")), (200, Some("image/svg+xml")));
    house.close().await;
}
