//! What stands between a request and a loss of files: a folder that is not empty, and conditions of the caller.

use serde_json::json;

use crate::shop::ShopPlan;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_empty_is_removed_only_if_that_was_said() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    let path = |name: &str| format!("/api/sessions/{id}/files/{name}");
    client.send("PUT", &path("keep/sub/f"), "", b"precious").await.ok(201);
    client.send("PUT", &path("keep.txt"), "", b"beside").await.ok(201);
    for query in ["", "?recursive=false"] {
        let problem = client.send("DELETE", &path(&format!("keep{query}")), "", b"").await.problem(409, "folder_not_empty");
        assert!(problem["detail"].as_str().unwrap().contains("keep/sub/f"), "{problem}");
    }
    client.send("DELETE", &path("keep?recursive=perhaps"), "", b"").await.problem(400, "invalid_query");
    assert_eq!(shop.see(|seen| seen.files.len()), 2, "nothing is gone");
    assert_eq!(client.send("DELETE", &path("keep/sub/f"), "", b"").await.status, 204);
    client.send("PUT", &path("keep/sub/f"), "", b"again").await.ok(201);
    assert_eq!(client.send("DELETE", &path("keep?recursive=true"), "", b"").await.status, 204);
    assert_eq!(shop.see(|seen| seen.files.keys().cloned().collect::<Vec<_>>()), ["keep.txt"]);
    client.send("DELETE", &path("keep"), "", b"").await.problem(404, "no_such_file");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_changed_only_in_the_state_that_the_caller_means() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    let path = format!("/api/sessions/{id}/files/notes");
    let put = async |headers: &str, bytes: &[u8]| client.send("PUT", &path, headers, bytes).await;
    let bytes = || shop.see(|seen| seen.files.get("notes").map(|(bytes, _)| bytes.clone()));

    put("if-match: *\r\n", b"one").await.problem(412, "precondition_failed");
    assert_eq!(bytes(), None);
    put("if-none-match: *\r\n", b"one").await.ok(201);
    let problem = put("if-none-match: *\r\n", b"two").await.problem(412, "precondition_failed");
    let first = client.send("HEAD", &path, "", b"").await.header("etag").unwrap().to_owned();
    assert!(problem["detail"].as_str().unwrap().contains(&first), "{problem}");
    put("if-match: \"zz\"\r\n", b"two").await.problem(412, "precondition_failed");
    assert_eq!(bytes().as_deref(), Some(&b"one"[..]));
    put(&format!("if-match: {first}\r\n"), b"two").await.ok(201);
    // Somebody else's change is not overwritten.
    put(&format!("if-match: {first}\r\n"), b"three").await.problem(412, "precondition_failed");
    client.send("DELETE", &path, &format!("if-match: {first}\r\n"), b"").await.problem(412, "precondition_failed");
    assert_eq!(bytes().as_deref(), Some(&b"two"[..]));

    for (value, executable) in [("true", true), ("0", false), ("1", true), ("FALSE", false)] {
        put(&format!("x-executable: {value}\r\n"), b"x").await.ok(201);
        assert_eq!(shop.see(|seen| seen.files["notes"].1), executable, "{value}");
    }
    for value in ["yes", "maybe", ""] {
        put(&format!("x-executable: {value}\r\n"), b"y").await.problem(400, "bad_header");
    }
    assert_eq!(bytes().as_deref(), Some(&b"x"[..]));
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_archive_is_called_what_it_is() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    let archive = format!("/api/sessions/{id}/archive");
    let cases: [(&[u8], &str); 3] =
        [(b"\x1f\x8b\x08\0\0\0\0\0 and so on", "gzip"), (b"\x28\xb5\x2f\xfd\0\0", "zstd"), (b"PK\x03\x04....", "zip archive")];
    for (bytes, kind) in cases {
        let problem = client.send("PUT", &archive, "content-type: application/x-tar\r\n", bytes).await.problem(400, "bad_archive");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(kind) && detail.contains("not compressed"), "{problem}");
    }
    assert_eq!(client.get(&format!("/api/sessions/{id}/files")).await.ok(200)["files"], json!([]));
    shop.close().await;
    world.close().await;
}
