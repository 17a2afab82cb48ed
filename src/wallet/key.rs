//! The wallet's secret: where it comes from, and how it is put away.
//!
//! Always true: no secret and no password is ever an argument, an error or a line of a log; a key file that others can open is refused; a keystore that is there is never
//! replaced, because there may be money behind it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use orien_bootstrap::{files, secrets};
use orien_chain::keystore::{self, KeystoreError};
use orien_protocol::signing::{Address, MoneyKey};
use zeroize::Zeroizing;

use crate::cli::WalletAt;
use crate::failure::{Failure, Told};

use super::folder;

/// Largest keystore; one has about 500 bytes.
const KEYSTORE_LIMIT: u64 = 64 * 1024;
/// Largest password file.
const PASSWORD_LIMIT: u64 = 4096;
/// Shortest password of a new keystore: the file may end up in a backup that others read.
const PASSWORD_MIN: usize = 8;
/// A raw key.
const KEY_VARIABLE: &str = "ORIEN_WALLET_KEY";
/// A password.
const PASSWORD_VARIABLE: &str = "ORIEN_WALLET_PASSWORD";

/// Where a wallet's key is.
enum Source {
    /// A file: a keystore or 64 hexadecimal digits.
    File(PathBuf),
    /// The environment.
    Variable(Zeroizing<String>),
}

fn source(at: &WalletAt) -> anyhow::Result<Source> {
    if let Some(file) = &at.key_file {
        return Ok(Source::File(file.clone()));
    }
    // A folder that was named counts before a variable that may be left over.
    if at.wallet.is_none()
        && let Ok(digits) = std::env::var(KEY_VARIABLE)
        && !digits.trim().is_empty()
    {
        return Ok(Source::Variable(Zeroizing::new(digits)));
    }
    let path = folder::keystore_in(&folder::place(at.wallet.as_deref())?);
    if path.exists() {
        return Ok(Source::File(path));
    }
    let text = format!(
        "there is no wallet at {}; make one with `orien wallet new`, take an existing key with `orien wallet import FILE`, or name one with --key-file",
        path.display()
    );
    Err(Told::coded(Failure::Missing, "no_wallet", text))
}

/// Opens the wallet's key, asking for its password if it has one.
pub(crate) fn open(at: &WalletAt) -> anyhow::Result<MoneyKey> {
    match source(at)? {
        Source::Variable(digits) => Ok(MoneyKey::from_bytes(&*raw(&digits, KEY_VARIABLE)?)?),
        Source::File(path) => open_file(&path, at.password_file.as_deref(), "the wallet's keystore"),
    }
}

/// The wallet's address, without opening it if it can be told without.
pub(crate) fn address(at: &WalletAt) -> anyhow::Result<Address> {
    if let Source::File(path) = source(at)? {
        let text = files::read_secret(&path, KEYSTORE_LIMIT)?;
        if let Some(address) = keystore::address(&text) {
            return Ok(address);
        }
    }
    open(at).map(|key| key.address())
}

/// Opens a key file.
fn open_file(path: &Path, password_file: Option<&Path>, what: &str) -> anyhow::Result<MoneyKey> {
    Ok(MoneyKey::from_bytes(&*secret_of(path, password_file, what)?)?)
}

/// The secret of a key file: a keystore, or 64 hexadecimal digits.
pub(crate) fn secret_of(path: &Path, password_file: Option<&Path>, what: &str) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let text = files::read_secret(path, KEYSTORE_LIMIT)?;
    if !text.trim_start().starts_with('{') {
        return raw(&text, &path.display().to_string());
    }
    let password = password(password_file, &format!("password of {what}: "), false)?;
    keystore::open_secret(&text, &password).map_err(|error| match error {
        KeystoreError::WrongPassphrase => {
            Told::coded(Failure::Other, "wrong_password", format!("the password does not open {}", path.display()))
        }
        other => anyhow::Error::new(other).context(format!("{} cannot be opened", path.display())),
    })
}

fn raw(digits: &str, what: &str) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    secrets::parse_money_secret(digits.trim())
        .with_context(|| format!("{what} does not hold a key: neither 64 hexadecimal digits nor a keystore of version 3"))
}

/// Puts a secret into a new keystore of the wallet's folder.
pub(crate) fn put_away(at: &WalletAt, secret: &[u8; 32]) -> anyhow::Result<(Address, PathBuf)> {
    let folder = folder::WalletFolder::open(&folder::place(at.wallet.as_deref())?)?;
    let path = folder.keystore();
    refuse_existing(&path)?;
    let password = password(at.password_file.as_deref(), "password of the new keystore: ", true)?;
    if password.chars().count() < PASSWORD_MIN {
        let text = format!("the password of a new keystore has at least {PASSWORD_MIN} characters");
        return Err(Told::coded(Failure::Other, "short_password", text));
    }
    secrets::write_money_key(&path, secret, Some(&password))?;
    Ok((MoneyKey::from_bytes(secret)?.address(), path))
}

/// A keystore is made once.
pub(crate) fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        let text = format!("there is a wallet at {} already; it is never replaced: choose another folder with --wallet", path.display());
        return Err(Told::coded(Failure::Other, "wallet_exists", text));
    }
    Ok(())
}

/// A password: from the file that was named, the environment, or a terminal.
pub(crate) fn password(file: Option<&Path>, question: &str, twice: bool) -> anyhow::Result<Zeroizing<String>> {
    if let Some(file) = file {
        let text = files::read_secret(file, PASSWORD_LIMIT)?;
        return Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()));
    }
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
        return Ok(Zeroizing::new(password));
    }
    if !std::io::stdin().is_terminal() {
        let text = format!("there is no terminal to ask for a password on; give it with --password-file FILE or in {PASSWORD_VARIABLE}");
        return Err(Told::coded(Failure::Other, "no_password", text));
    }
    let ask = |question: &str| rpassword::prompt_password(question).map(Zeroizing::new).context("cannot read the password");
    let password = ask(question)?;
    if twice && *password != *ask("the same again: ")? {
        return Err(Told::coded(Failure::Other, "passwords_differ", "the two passwords differ; nothing was made"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn private(path: &Path, text: &str) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_raw_key_is_read_from_a_private_file_with_or_without_its_prefix_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("plain", "11".repeat(32)), ("prefixed", format!("0x{}\n", "11".repeat(32)))] {
            let path = folder.path().join(name);
            private(&path, &text);
            assert_eq!(open_file(&path, None, "it").unwrap().address().to_string(), "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A");
        }
        for (name, text) in [("short", "11".repeat(31)), ("zero", "00".repeat(32)), ("word", "zz".repeat(32))] {
            let path = folder.path().join(name);
            private(&path, &text);
            let error = format!("{:#}", open_file(&path, None, "it").unwrap_err());
            assert!(error.contains("does not hold a key") && !error.contains(&text[..8]), "{error}");
        }
        let open = folder.path().join("open");
        std::fs::write(&open, "11".repeat(32)).unwrap();
        std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(open_file(&open, None, "it").unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_keystore_opens_with_its_password_only_tells_its_address_without_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            private(&path, text);
            Some(path)
        };
        let (good, bad, short) = (file("good", "correct horse\n"), file("bad", "battery staple\n"), file("short", "seven77\n"));
        let at = |password_file| WalletAt { wallet: Some(folder.path().join("wallet")), key_file: None, password_file };
        assert_eq!(crate::failure::described(&put_away(&at(short), &[0x11; 32]).unwrap_err())["code"], "short_password");
        assert_eq!(crate::failure::described(&open(&at(good.clone())).unwrap_err())["code"], "no_wallet");
        let (made, path) = put_away(&at(good.clone()), &[0x11; 32]).unwrap();
        assert_eq!(made.to_string(), "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A");
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&"11".repeat(32)));
        assert_eq!(address(&at(None)).unwrap(), made);
        assert_eq!(open(&at(good.clone())).unwrap().address(), made);
        assert_eq!(crate::failure::described(&open(&at(bad)).unwrap_err())["code"], "wrong_password");
        assert_eq!(crate::failure::described(&put_away(&at(good), &[0x22; 32]).unwrap_err())["code"], "wallet_exists");
    }
}
