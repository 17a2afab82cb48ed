//! Files over HTTP: looked at, in parts, and gone on with after a break.

use std::time::Duration;

use orien_protocol::hash::Hash;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, HUNG};
use crate::shop::{Shop, ShopPlan};
use crate::world::World;

fn many(count: usize) -> Vec<u8> {
    (0..u32::MAX).flat_map(u32::to_le_bytes).take(count).collect()
}

async fn begun() -> (World, Shop, Client, String) {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    (world, shop, client, format!("/api/sessions/{id}/files"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_looked_at_and_fetched_in_parts_of_one_state_of_it() {
    let (world, shop, client, files) = begun().await;
    let path = format!("{files}/data.bin");
    let bytes = many(3_000_000);
    client.send("PUT", &path, "x-executable: true\r\n", &bytes).await.ok(201);
    let head = client.send("HEAD", &path, "", b"").await;
    assert_eq!((head.status, head.header("content-length"), head.header("x-executable")), (200, Some("3000000"), Some("true")));
    assert_eq!((head.header("accept-ranges"), head.header("x-content-hash"), head.body.len()), (Some("bytes"), None, 0));
    let tag = head.header("etag").unwrap().to_owned();
    let named = format!("blake3:{}", Hash::of(&bytes));
    assert_eq!(client.send("HEAD", &format!("{path}?hash=true"), "", b"").await.header("x-content-hash"), Some(named.as_str()));
    let stat = client.get(&format!("{path}?stat=true&hash=true")).await.ok(200);
    assert_eq!(
        (&stat["path"], &stat["size"], &stat["hash"], &stat["etag"]),
        (&json!("data.bin"), &json!(3_000_000), &json!(named), &json!(tag))
    );

    for (range, first, last) in [("bytes=0-99", 0, 99), ("bytes=2999990-", 2_999_990, 2_999_999), ("bytes=-1500000", 1_500_000, 2_999_999)]
    {
        let part = client.send("GET", &path, &format!("range: {range}\r\nif-range: {tag}\r\n"), b"").await;
        assert_eq!((part.status, part.header("etag")), (206, Some(tag.as_str())), "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/3000000").as_str()));
        assert_eq!(part.header("content-length"), Some((last - first + 1).to_string().as_str()));
        assert!(part.body == bytes[first..=last], "{range}");
    }
    let beyond = client.send("GET", &path, "range: bytes=3000000-\r\n", b"").await;
    beyond.problem(416, "range_not_satisfiable");
    assert_eq!(beyond.header("content-range"), Some("bytes */3000000"));
    assert_eq!(client.send("GET", &path, &format!("if-none-match: \"0\", {tag}\r\n"), b"").await.status, 304);

    // Another file in its place: what was begun is not gone on with.
    client.send("PUT", &path, "", b"another").await.ok(201);
    let whole = client.send("GET", &path, &format!("range: bytes=3-\r\nif-range: {tag}\r\n"), b"").await;
    assert_eq!((whole.status, whole.body.as_slice()), (200, b"another".as_slice()));
    assert_ne!(whole.header("etag"), Some(tag.as_str()));
    client.send("HEAD", &format!("{files}/none"), "", b"").await;
    assert_eq!(client.send("HEAD", &format!("{files}/none"), "", b"").await.status, 404);
    shop.close().await;
    world.close().await;
}

/// Sends the beginning of an upload and hangs up.
async fn break_off(client: &Client, path: &str, extra: &str, length: usize, sent: &[u8]) {
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    let (address, token) = (client.address, &client.token);
    let head =
        format!("PUT {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n{extra}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

/// Where an upload broke off, once the provider has noticed.
async fn held(client: &Client, path: &str) -> usize {
    let look = async {
        loop {
            let head = client.send("HEAD", &format!("{path}?upload=true"), "", b"").await;
            if let Some(offset) = head.header("upload-offset") {
                return offset.parse().unwrap();
            }
            assert_eq!(head.status, 404);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HUNG, look).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_twice_is_gone_on_with_and_no_byte_is_lost() {
    let (world, shop, client, files) = begun().await;
    let path = format!("{files}/large.bin");
    let bytes = many(2_000_000);
    break_off(&client, &path, "", bytes.len(), &bytes[..700_000]).await;
    let first = held(&client, &path).await;
    assert!(first > 0 && first <= 700_000, "{first}");
    let wrong = format!("content-range: bytes {}-1999999/2000000\r\n", first + 1);
    let refused = client.send("PUT", &path, &wrong, &bytes[first + 1..]).await;
    assert_eq!(refused.problem(409, "wrong_offset")["uploadOffset"], first);
    assert_eq!(refused.header("upload-offset"), Some(first.to_string().as_str()));

    let rest = |from: usize| format!("content-range: bytes {from}-1999999/2000000\r\n");
    break_off(&client, &path, &rest(first), bytes.len() - first, &bytes[first..first + 500_000]).await;
    let second = held(&client, &path).await;
    assert!(second > first, "{second}");
    let unfinished = client.get(&format!("{path}?upload=true")).await.ok(200);
    assert_eq!(unfinished, json!({ "path": "large.bin", "offset": second, "length": 2_000_000 }));
    let named = format!("blake3:{}", Hash::of(&bytes));
    let extra = format!("{}x-content-hash: {named}\r\n", rest(second));
    let stored = client.send("PUT", &path, &extra, &bytes[second..]).await.ok(201);
    assert_eq!(stored, json!({ "path": "large.bin", "size": 2_000_000, "hash": named }));
    assert!(client.get(&path).await.body == bytes);
    client.get(&format!("{path}?upload=true")).await.problem(404, "no_such_upload");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_with_another_hash_or_a_range_that_makes_no_sense_stores_nothing() {
    let (world, shop, client, files) = begun().await;
    let path = format!("{files}/a");
    let hash = |bytes: &[u8]| format!("x-content-hash: blake3:{}\r\n", Hash::of(bytes));
    client.send("PUT", &path, &hash(b"other"), b"bytes").await.problem(422, "hash_mismatch");
    client.send("PUT", &path, "x-content-hash: sha256:00\r\n", b"bytes").await.problem(400, "bad_hash");
    for range in ["bytes 1-5/6x", "bytes 0-4/6", "bytes 2-6/7x", "lines 0-4/5"] {
        client.send("PUT", &path, &format!("content-range: {range}\r\n"), b"bytes").await.problem(400, "bad_range");
    }
    client.send("PUT", &path, "content-range: bytes 5-9/10\r\n", b"bytes").await.problem(409, "wrong_offset");
    client.get(&path).await.problem(404, "no_such_file");
    client.send("PUT", &path, &hash(b"bytes"), b"bytes").await.ok(201);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_comes_in_pages_that_together_are_the_whole() {
    let (world, shop, client, files) = begun().await;
    for index in 0..1200 {
        shop.see(|seen| seen.files.insert(format!("f{index:04}"), (Vec::new(), false)));
    }
    let (mut names, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = client.get(&format!("{files}?limit=500{cursor}")).await.ok(200);
        names.extend(page["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()));
        pages += 1;
        assert_eq!(page["more"], json!(page["nextCursor"].is_string()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((names.len(), pages), (1200, 3));
    assert!(names.is_sorted());
    client.get(&format!("{files}?cursor=nonsense")).await.problem(400, "invalid_query");
    client.get(&format!("{files}?cursor=2e2e")).await.problem(400, "invalid_query");
    let tag = client.get(&files).await.header("etag").unwrap().to_owned();
    assert_eq!(client.send("GET", &files, &format!("if-none-match: {tag}\r\n"), b"").await.status, 304);
    shop.close().await;
    world.close().await;
}
