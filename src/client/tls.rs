//! Whom the client believes when it speaks TLS.
//!
//! Always true: an answer comes from whoever holds a certificate for the name that was said, signed by somebody trusted; nothing turns that off.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Largest file of certificates: a whole system's roots have a quarter of it.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Trusts the certificates in a file and no others, or those that this machine trusts.
pub(super) fn config(ca_file: Option<&Path>) -> Result<TlsConfig> {
    let roots = match ca_file {
        Some(file) => RootCerts::Specific(Arc::new(certificates(file)?)),
        None => RootCerts::PlatformVerifier,
    };
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(ring).build())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    use std::io::Read;
    let unread = || format!("cannot read the certificates in {}", file.display());
    let mut pem = Vec::new();
    std::fs::File::open(file).with_context(unread)?.take(FILE_LIMIT).read_to_end(&mut pem).with_context(unread)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.with_context(unread)? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("there is no certificate in {}; it has to be PEM", file.display());
    }
    Ok(found)
}
