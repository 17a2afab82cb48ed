//! Connections that are too many, stalled or garbage, and how a door stops.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::{Answer, HUNG, House, read_until};

/// Waits until the other side has closed, however it did.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ended = tokio::time::timeout(HUNG, stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn garbage_is_answered_400_and_the_door_stays_healthy() {
    let house = House::open().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = house.send(bytes).await;
        assert!(answer.status == 400 || answer.status == 505 || answer.head.is_empty(), "{answer:?}");
    }
    house.assert_healthy().await;
    house.close().await;
}

#[tokio::test]
async fn contradicting_lengths_are_refused() {
    let house = House::open().await;
    let request = house.request("POST /upload", "transfer-encoding: chunked\r\n", "0\r\n\r\n");
    let answer = house.send(request).await;
    assert!(answer.status == 400 || answer.body == "0", "{answer:?}");
    let answer = house.post("/upload", "content-length: 3\r\n", "ab").await;
    assert_eq!(answer.status, 400);
    house.close().await;
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let house = House::open().await;
    let address = house.address;
    let one = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    assert_eq!(house.send(one).await.status, 431);
    let many = "a: b\r\n".repeat(5_000);
    let many = format!("GET /health HTTP/1.1\r\nhost: {address}\r\n{many}\r\n");
    assert_eq!(house.send(many).await.status, 431);
    house.assert_healthy().await;
    house.close().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_closed() {
    let house = House::open_with(|config| config.limits.header_timeout = Duration::from_millis(50)).await;
    for begun in ["", "GET /hea", "GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow"] {
        let mut stream = house.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        closed(&mut stream).await;
    }
    // Idle after an answer is the same.
    let mut stream = house.connect().await;
    let request = house.request("GET /health", "", "").replace("connection: close\r\n", "");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "200 OK").await;
    closed(&mut stream).await;
    house.close().await;
}

#[tokio::test]
async fn a_reader_who_stops_reading_is_closed() {
    let house = House::open_with(|config| {
        config.limits.write_stall = Duration::from_millis(50);
        config.limits.connections = 1;
    })
    .await;
    let mut stream = house.connect().await;
    stream.write_all(house.request("GET /flood", "", "").as_bytes()).await.unwrap();
    read_until(&mut stream, "retry").await;
    // The buffers fill, the door gives up, and the only place is free again.
    tokio::time::timeout(HUNG, async {
        while house.get("/health").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    drop(stream);
    house.close().await;
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_a_place_that_frees_is_given() {
    let house = House::open_with(|config| config.limits.connections = 2).await;
    let (mut one, mut two) = (house.connect().await, house.connect().await);
    for stream in [&mut one, &mut two] {
        stream.write_all(house.request("GET /quiet", "", "").as_bytes()).await.unwrap();
        read_until(stream, "retry").await;
    }
    let answer = house.get("/health").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["code"], "too_many_connections");
    drop(one);
    tokio::time::timeout(HUNG, async {
        while house.get("/health").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    drop(two);
    house.close().await;
}

#[tokio::test]
async fn connections_that_ask_nothing_leave_their_places_and_a_request_in_flight_stays() {
    let house = House::open_with(|config| config.limits.connections = 4).await;
    let mut busy = house.connect().await;
    busy.write_all(house.request("GET /slow", "", "").as_bytes()).await.unwrap();
    house.in_slow.notified().await;
    // Held open, and far more than there are places: silent ones, half a head, and one that was answered and asks no more.
    let mut idle = Vec::new();
    for number in 0..24 {
        let mut stream = house.connect().await;
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow").await.unwrap(),
            _ => {
                let request = house.request("GET /health", "", "").replace("connection: close\r\n", "");
                stream.write_all(request.as_bytes()).await.unwrap();
                read_until(&mut stream, "uptime").await;
            }
        }
        idle.push(stream);
        assert_eq!(house.get("/id").await.status, 200, "after {number}");
    }
    house.finish_slow.notify_one();
    assert_eq!(Answer::read(&mut busy).await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let house = House::open().await;
    let keep = house.request("GET /number/1", "", "").replace("connection: close\r\n", "");
    let text = format!("{keep}{keep}{}", house.request("GET /number/2", "", ""));
    let mut stream = house.connect().await;
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all.matches("200 OK").count(), 3);
    house.close().await;
}

#[tokio::test]
async fn stopping_ends_event_streams_and_idle_connections_cleanly() {
    let house = House::open().await;
    let mut events = house.connect().await;
    events.write_all(house.request("GET /quiet", "", "").as_bytes()).await.unwrap();
    read_until(&mut events, "retry").await;
    let mut idle = house.connect().await;
    let request = house.request("GET /health", "", "").replace("connection: close\r\n", "");
    idle.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut idle, "uptime").await;
    let mut silent = house.connect().await;
    let address = house.address;

    house.close().await;

    let mut rest = String::new();
    events.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream was cut: {rest:?}");
    closed(&mut idle).await;
    closed(&mut silent).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stopping_lets_a_request_in_flight_finish() {
    let house = House::open_with(|config| config.limits.grace = HUNG).await;
    let mut stream = house.connect().await;
    stream.write_all(house.request("GET /slow", "", "").as_bytes()).await.unwrap();
    house.in_slow.notified().await;
    house.cancel.cancel();
    tokio::time::timeout(HUNG, async {
        while TcpStream::connect(house.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    house.finish_slow.notify_one();
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    house.close().await;
}

#[tokio::test]
async fn stopping_does_not_wait_longer_than_the_grace() {
    let house = House::open_with(|config| config.limits.grace = Duration::from_millis(50)).await;
    let mut stream = house.connect().await;
    stream.write_all(house.request("GET /slow", "", "").as_bytes()).await.unwrap();
    house.in_slow.notified().await;
    house.close().await;
    closed(&mut stream).await;
}
