//! Trees over HTTP, as the tar archives of the system's own tar and as ones that nobody should make.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::shop::{Shop, ShopPlan};
use crate::world::World;

async fn begun() -> (World, Shop, Client, String) {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    (world, shop, client, format!("/api/sessions/{id}/archive"))
}

async fn put(client: &Client, archive: &str, bytes: &[u8]) -> Answer {
    client.send("PUT", archive, "content-type: application/x-tar\r\n", bytes).await
}

fn tar(folder: &TempDir, options: &[&str]) -> Vec<u8> {
    let made = Command::new("tar").arg("-C").arg(folder.path()).args(options).args(["-cf", "-", "."]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

/// One entry with a header of its own making, and its end.
fn entry(name: &[u8], kind: u8, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(name.as_bytes(), b'0', content.len() as u64, content)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_in_and_comes_out_as_the_systems_own_tar_makes_and_reads_it() {
    let (world, shop, client, archive) = begun().await;
    let long = format!("{}/{}/{}", "a".repeat(90), "b".repeat(90), "c".repeat(90));
    let large: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    for format in ["gnu", "pax", "ustar"] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at(&long).parent().unwrap()).unwrap();
        std::fs::create_dir(at("empty")).unwrap();
        let name = if format == "ustar" { "short" } else { long.as_str() };
        for (name, content) in [(name, b"long".as_slice()), ("run.sh", b"#!/bin/sh"), ("\u{e4} b", b""), ("large", &large)] {
            std::fs::write(at(name), content).unwrap();
        }
        if format == "ustar" {
            std::fs::remove_dir_all(at(&"a".repeat(90))).unwrap();
        }
        std::fs::set_permissions(at("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let bytes = tar(&folder, &[&format!("--format={format}")]);
        let unpacked = put(&client, &format!("{archive}?path=in/{format}"), &bytes).await.ok(200);
        assert_eq!((&unpacked["files"], &unpacked["bytes"], &unpacked["problems"]), (&json!(4), &json!(2_000_013), &json!([])), "{format}");
        let stored = |name: &str| shop.see(|seen| seen.files.get(&format!("in/{format}/{name}")).cloned());
        assert_eq!(stored("run.sh"), Some((b"#!/bin/sh".to_vec(), true)));
        assert_eq!(stored(name), Some((b"long".to_vec(), false)));
        assert_eq!(stored("\u{e4} b"), Some((Vec::new(), false)));
        assert!(stored("large") == Some((large.clone(), false)));
    }
    let out = client.get(&archive).await;
    assert_eq!((out.status, out.header("content-type")), (200, Some("application/x-tar")));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("out.tar"), &out.body).unwrap();
    let read = Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(folder.path().join("out.tar")).output().unwrap();
    assert!(read.status.success() && read.stderr.is_empty(), "{}", String::from_utf8_lossy(&read.stderr));
    for format in ["gnu", "pax"] {
        let at = folder.path().join("in").join(format);
        assert_eq!(std::fs::read(at.join(&long)).unwrap(), b"long");
        assert!(std::fs::read(at.join("large")).unwrap() == large);
        let mode = |name: &str| std::fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("run.sh"), mode("large")), (0o755, 0o644));
    }
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_in_a_tree_is_named_and_the_rest_is_stored() {
    let (world, shop, client, archive) = begun().await;
    let mut bytes = file("before", b"1");
    let bad: &[(&[u8], u8, &str)] = &[
        (b"link", b'2', "symbolic links"),
        (b"hard", b'1', "hard links"),
        (b"tty", b'3', "devices"),
        (b"disk", b'4', "devices"),
        (b"pipe", b'6', "pipes"),
        (b"odd", b'Z', "kind of entry"),
        (b"../up", b'0', "does not stay inside"),
        (b"/etc/passwd", b'0', "does not stay inside"),
        (b"a/../b", b'0', "does not stay inside"),
        (b"a//b", b'0', "does not stay inside"),
        (b"line\nbreak", b'0', "does not stay inside"),
        (b"\xff\xfe", b'0', "not UTF-8"),
        (b"../folder/", b'5', "does not stay inside"),
    ];
    for (name, kind, _) in bad {
        bytes.extend(entry(name, *kind, 0, b""));
    }
    bytes.extend(entry(b"././@LongLink", b'L', 100_000, &[b'x'; 100_000]));
    bytes.extend(file("short", b"2"));
    bytes.extend(entry(b"pax", b'x', 12, b"9999 path=a\n"));
    bytes.extend(file("other", b"3"));
    bytes.extend(file("full", b"4"));
    bytes.extend(file("./after", b"5"));
    bytes.extend([0; 1024]);
    let answer = put(&client, &archive, &bytes).await.ok(207);
    let problems: Vec<Value> = answer["problems"].as_array().unwrap().clone();
    assert_eq!((&answer["files"], problems.len(), &answer["moreProblems"]), (&json!(2), bad.len() + 3, &json!(0)), "{answer}");
    for ((name, _, why), problem) in bad.iter().zip(&problems) {
        assert_eq!(problem["code"], "bad_path");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{} {problem}", String::from_utf8_lossy(name));
    }
    assert_eq!(problems[bad.len()]["detail"], "its name is too long");
    assert_eq!(problems[bad.len() + 1]["detail"], "its extended header makes no sense");
    assert_eq!((&problems[bad.len() + 2]["path"], &problems[bad.len() + 2]["code"]), (&json!("full"), &json!("workspace_full")));
    assert_eq!(shop.see(|seen| seen.files.keys().cloned().collect::<Vec<_>>()), ["after", "before"]);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_none_or_has_no_end_is_refused_and_says_what_is_there() {
    let (world, shop, client, archive) = begun().await;
    let whole = [file("one", b"1"), file("two", &[7; 5000])].concat();
    let mut endless = file("one", b"1");
    for _ in 0..100 {
        endless.extend(entry(b"more", b'K', 1, b"x"));
    }
    let mut sizes = file("one", b"1");
    sizes.extend(entry(b"pax", b'x', 12, b"12 size=99\n\n"));
    for (bytes, stored) in [
        (vec![7; 4096], 0),
        ([file("one", b"1"), vec![9; 512]].concat(), 1),
        (endless, 1),
        ([file("one", b"1"), entry(b"L", b'L', u64::from(u32::MAX), b"abc")].concat(), 1),
    ] {
        let problem = put(&client, &archive, &bytes).await.problem(400, "bad_archive");
        assert!(problem["detail"].as_str().unwrap().contains(&format!("{stored} files")), "{problem}");
    }
    put(&client, &archive, &whole[..whole.len() - 3000]).await.problem(400, "bad_archive");
    assert_eq!(put(&client, &archive, b"").await.ok(200)["files"], 0);
    // Two blocks of zeros at the end are usual, not needed.
    assert_eq!(put(&client, &archive, &whole).await.ok(200)["files"], 2);
    put(&client, &format!("{archive}?path=../up"), &whole).await.problem(400, "bad_path");
    client.get(&format!("{archive}?path=/etc")).await.problem(400, "bad_path");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_wrong_bytes_in_it_has_no_end() {
    let (world, shop, client, archive) = begun().await;
    shop.see(|seen| seen.files.insert("wrong".to_owned(), (vec![1; 300_000], false)));
    let out = client.get(&archive).await;
    assert!(out.body.len() < 300_000, "{}", out.body.len());
    shop.close().await;
    world.close().await;
}
