//! What keeps a door from opening.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use orien_door::{Door, DoorConfig, OpenDoorError, Token, TokenFileError};
use tempfile::TempDir;

fn config(directory: &TempDir) -> DoorConfig {
    DoorConfig::local(SocketAddr::from(([127, 0, 0, 1], 0)), directory.path().join("token"))
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_new_token_file_is_private_and_the_next_start_reads_the_same_token() {
    let directory = TempDir::new().unwrap();
    let first = Door::bind(config(&directory)).await.unwrap();
    let mode = fs::metadata(first.token_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(first.token().expose().len(), 64);
    assert_eq!(Token::read(first.token_file()).unwrap().expose(), first.token().expose());

    let second = Door::bind(config(&directory)).await.unwrap();
    assert_eq!(second.token().expose(), first.token().expose());
}

#[tokio::test]
async fn two_doors_have_two_tokens_and_neither_is_shown_by_debug() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (here, there) = (Door::bind(config(&here)).await.unwrap(), Door::bind(config(&there)).await.unwrap());
    assert_ne!(here.token().expose(), there.token().expose());
    assert!(!format!("{here:?}").contains(here.token().expose()));
}

#[tokio::test]
async fn a_token_file_others_can_read_is_refused_with_the_fix() {
    for mode in [0o640, 0o604, 0o660, 0o644, 0o666] {
        let directory = TempDir::new().unwrap();
        write(&config(&directory).token_file, &"a".repeat(64), mode);
        let error = Door::bind(config(&directory)).await.unwrap_err();
        assert!(matches!(error, OpenDoorError::Token(TokenFileError::Exposed { .. })), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(!error.to_string().contains("aaaa"), "{error}");
    }
}

#[tokio::test]
async fn a_token_file_without_a_token_is_refused() {
    for text in ["", "\n", "short", &"g".repeat(64), &"a".repeat(65), &"a".repeat(100_000)] {
        let directory = TempDir::new().unwrap();
        write(&config(&directory).token_file, text, 0o600);
        let error = Door::bind(config(&directory)).await.unwrap_err();
        assert!(matches!(error, OpenDoorError::Token(TokenFileError::Malformed { .. })), "{error}");
    }
}

#[tokio::test]
async fn a_token_file_that_is_a_directory_or_a_link_is_refused() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(config(&directory).token_file).unwrap();
    let error = Door::bind(config(&directory)).await.unwrap_err();
    assert!(matches!(error, OpenDoorError::Token(TokenFileError::NotAFile { .. })), "{error}");

    let directory = TempDir::new().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    write(&elsewhere, &"a".repeat(64), 0o600);
    std::os::unix::fs::symlink(&elsewhere, config(&directory).token_file).unwrap();
    let error = Door::bind(config(&directory)).await.unwrap_err();
    assert!(matches!(error, OpenDoorError::Token(TokenFileError::Read { .. })), "{error}");
}

#[tokio::test]
async fn a_token_directory_that_is_absent_is_named() {
    let directory = TempDir::new().unwrap();
    let mut config = config(&directory);
    config.token_file = directory.path().join("absent/token");
    let error = Door::bind(config).await.unwrap_err();
    assert!(error.to_string().contains("absent/token"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let directory = TempDir::new().unwrap();
    let first = Door::bind(config(&directory)).await.unwrap();
    let mut second = config(&directory);
    second.address = first.address();
    let error = Door::bind(second).await.unwrap_err();
    assert!(matches!(error, OpenDoorError::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
}

#[tokio::test]
async fn an_address_beyond_loopback_needs_the_flag_the_error_names() {
    let directory = TempDir::new().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let mut config = config(&directory);
        config.address = address.parse().unwrap();
        let error = Door::bind(config).await.unwrap_err();
        assert!(matches!(error, OpenDoorError::RemoteNotAllowed { .. }), "{error}");
        assert!(error.to_string().contains("--allow-remote-http"), "{error}");
    }
    assert!(!config(&directory).token_file.exists());

    let mut allowed = config(&directory);
    allowed.address = "0.0.0.0:0".parse().unwrap();
    allowed.allow_remote = true;
    Door::bind(allowed).await.unwrap();
}

#[tokio::test]
async fn an_extra_host_that_is_no_host_is_refused() {
    for host in ["", "http://name", "a b", "user@name", "*.example", "name/path"] {
        let directory = TempDir::new().unwrap();
        let mut config = config(&directory);
        config.extra_hosts = vec![host.to_owned()];
        let error = Door::bind(config).await.unwrap_err();
        assert!(matches!(error, OpenDoorError::BadExtraHost { .. }), "{host:?}: {error}");
    }
}
