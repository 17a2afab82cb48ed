//! The bootstrap role run as a whole, looked at through its local door.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use orien_bootstrap::{Config, DoorFile, DoorSettings, RoleName, RunError, run};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::{World, shop, until};

fn config(world: &World) -> Config {
    let mut config = Config::new(world.data_dir("bootstrap"), Some(world.network.clone()), vec!["/ip4/127.0.0.1/tcp/0".to_owned()]);
    config.door = DoorSettings::local(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config
}

async fn get(door: &DoorFile, path: &str, token: Option<&str>) -> (u16, Value) {
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Connection: close\r\n\r\n", door.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn door_of(data_dir: &Path) -> DoorFile {
    until("the door is open", || DoorFile::read(data_dir).ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_shows_its_health_and_catalogue_and_stops_when_told() {
    let world = World::new();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(run(config(&world), cancel.clone()));
    let door = door_of(&world.data_dir("bootstrap")).await;
    assert_eq!((door.role.as_str(), door.pid), ("bootstrap", std::process::id()));
    let (status, health) = get(&door, "/health", None).await;
    assert_eq!((status, &health["status"], &health["peerId"]), (200, &Value::from("ok"), &Value::from(door.peer_id.as_str())));
    let addresses: Vec<String> = serde_json::from_value(health["addresses"].clone()).unwrap();

    let provider = world.start("provider", RoleName::Node, &addresses).await;
    provider.publish(shop("run_build")).await.unwrap();
    let token = std::fs::read_to_string(&door.token_file).unwrap();
    assert_eq!(get(&door, "/catalogue", None).await.0, 401);
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    let offers = loop {
        let (status, body) = get(&door, "/catalogue", Some(token.trim())).await;
        assert_eq!(status, 200);
        if body["offers"].as_array().is_some_and(|offers| !offers.is_empty()) {
            break body["offers"].clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "the offer was not listed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(offers[0]["peerId"], provider.id().to_string());
    assert_eq!(offers[0]["tools"][0], "run_build");
    assert!(offers[0]["expiresAt"].as_str().unwrap().ends_with('Z'), "{offers}");
    let (_, health) = get(&door, "/health", None).await;
    assert_eq!((&health["peers"], &health["offers"]), (&Value::from(1), &Value::from(1)));

    cancel.cancel();
    running.await.unwrap().unwrap();
    assert!(DoorFile::read(&world.data_dir("bootstrap")).is_err(), "an orderly stop removes the door file");
    assert!(TcpStream::connect(door.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_cannot_open_stops_the_peer_again() {
    let world = World::new();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut config = config(&world);
    config.door.address = taken.local_addr().unwrap();
    let error = run(config.clone(), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Door(_)) && error.to_string().contains("in use"), "{error}");
    config.door.address.set_port(0);
    let cancel = CancellationToken::new();
    cancel.cancel();
    run(config, cancel).await.unwrap();
}
