//! A door that speaks TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orien_door::{Door, DoorConfig, OpenDoorError, TlsFiles};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::house::{Answer, HUNG, House};

fn files() -> TlsFiles {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls");
    TlsFiles { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") }
}

fn connector() -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files().certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn encrypted(house: &House, request: String) -> Answer {
    let stream = house.connect().await;
    let mut stream = connector().connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(HUNG, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    Answer::parse(&String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn a_door_with_a_certificate_speaks_tls_and_marks_its_cookies_for_it() {
    let house = House::open_with(|config| config.tls = Some(files())).await;
    assert_eq!(encrypted(&house, house.request("GET /id", "", "")).await.status, 200);
    let link = encrypted(&house, house.request("POST /api/login-links", "", "")).await.json();
    let path = link["url"].as_str().unwrap().strip_prefix(&format!("https://{}", house.address)).unwrap().to_owned();
    let login = encrypted(&house, house.request(&format!("GET {path}"), "", "")).await;
    assert!(login.status == 303 && login.header("set-cookie").unwrap().contains("; Secure"), "{login:?}");
    // The program's own commands are on this machine.
    assert_eq!(house.get("/id").await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_is_closed_and_others_are_served() {
    let house = House::open_with(|config| {
        config.tls = Some(files());
        config.limits.header_timeout = Duration::from_millis(50);
    })
    .await;
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16\x03\x01\x00\x04garb"] {
        let mut stream = house.connect().await;
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        let _ended = tokio::time::timeout(HUNG, stream.read_to_end(&mut rest)).await.unwrap();
    }
    assert_eq!(encrypted(&house, house.request("GET /id", "", "")).await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn a_certificate_opens_any_address_and_one_that_cannot_be_used_none() {
    let directory = TempDir::new().unwrap();
    let config = |tls| DoorConfig { tls, ..DoorConfig::local(([0, 0, 0, 0], 0).into(), directory.path().join("token")) };
    Door::bind(config(Some(files()))).await.unwrap();
    let swapped = TlsFiles { certificate: files().key, key: files().certificate };
    let absent = TlsFiles { certificate: directory.path().join("none.pem"), ..files() };
    for tls in [swapped, absent] {
        let error = Door::bind(config(Some(tls))).await.unwrap_err();
        assert!(matches!(error, OpenDoorError::Tls(_)) && error.to_string().contains(".pem"), "{error}");
    }
}
