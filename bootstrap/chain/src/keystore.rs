//! Keystore files of version 3 (Web3 secret storage): a money key behind a passphrase, as every wallet reads and writes it.
//!
//! Always true: what a file asks for is bounded before it is done, so a bad file is an error and neither a panic nor a machine without memory; no error and no log shows
//! a secret. It does not know files, and has no random source: who writes one brings salt and initial vector.

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use alloy_primitives::keccak256;
use ctr::Ctr128BE;
use hmac::Hmac;
use orien_protocol::signing::{Address, MoneyKey};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// Cost of a new file's passphrase, as a power of two: about a second and 128 MiB, as ethers.js chose.
const LOG_N: u8 = 17;
const R: u32 = 8;
const P: u32 = 1;

/// Most memory that a file may ask for.
const MEMORY_LIMIT: u64 = 1 << 30;

/// Most work that a file may ask for beyond its memory.
const PARALLEL_LIMIT: u32 = 16;

/// Most rounds of the older way.
const ROUNDS_LIMIT: u32 = 10_000_000;

/// Longest salt.
const SALT_LIMIT: usize = 128;

const KEY_BYTES: usize = 32;
const IV_BYTES: usize = 16;

/// Why a keystore file does not give its key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeystoreError {
    /// It is not such a file.
    #[error("not a keystore file of version 3: {0}")]
    Malformed(String),
    /// It asks for more than is done for it.
    #[error("the keystore file asks for too much: {0}")]
    Excessive(&'static str),
    /// The passphrase is another.
    #[error("the passphrase of the keystore file is wrong")]
    WrongPassphrase,
    /// What it holds is no key.
    #[error("the keystore file holds no money key")]
    NotAKey,
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    #[serde(default)]
    id: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParams,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Default, Serialize, Deserialize)]
struct KdfParams {
    dklen: u64,
    salt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prf: Option<String>,
}

/// Whether a text looks like such a file, and not like bare digits.
pub fn is_keystore(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// The address that a file says it is for, if it does. Nothing proves it before the file is opened.
pub fn address(text: &str) -> Option<Address> {
    let file: File = serde_json::from_str(text).ok()?;
    let address = file.address?.to_ascii_lowercase();
    format!("0x{}", address.strip_prefix("0x").unwrap_or(&address)).parse().ok()
}

/// The key of a file. It takes about a second.
pub fn open(text: &str, passphrase: &str) -> Result<MoneyKey, KeystoreError> {
    MoneyKey::from_bytes(&*open_secret(text, passphrase)?).map_err(|_| KeystoreError::NotAKey)
}

/// The secret of a file, for whoever puts it into another one.
pub fn open_secret(text: &str, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let file: File = serde_json::from_str(text).map_err(|error| KeystoreError::Malformed(error.to_string()))?;
    if file.version != 3 {
        return Err(KeystoreError::Malformed(format!("it is of version {}", file.version)));
    }
    let crypto = &file.crypto;
    if crypto.cipher != "aes-128-ctr" {
        return Err(KeystoreError::Malformed("its cipher is not aes-128-ctr".to_owned()));
    }
    let iv: [u8; IV_BYTES] = fixed("iv", &crypto.cipherparams.iv)?;
    let mut secret = Zeroizing::new(fixed::<KEY_BYTES>("ciphertext", &crypto.ciphertext)?);
    let mac: [u8; 32] = fixed("mac", &crypto.mac)?;
    let derived = derive(crypto, passphrase)?;
    if mac_of(&derived, secret.as_slice()) != mac {
        return Err(KeystoreError::WrongPassphrase);
    }
    apply(&derived, &iv, secret.as_mut_slice());
    let key = MoneyKey::from_bytes(&secret).map_err(|_| KeystoreError::NotAKey)?;
    if address(text).is_some_and(|said| said != key.address()) {
        return Err(KeystoreError::Malformed("its address is not that of its key".to_owned()));
    }
    Ok(secret)
}

/// The text of a new file for a secret. `salt` and `iv` must be random, and `id` too if anybody cares for it.
pub fn seal(secret: &[u8; 32], passphrase: &str, salt: &[u8; 32], iv: &[u8; 16], id: &[u8; 16]) -> Result<String, KeystoreError> {
    let address = MoneyKey::from_bytes(secret).map_err(|_| KeystoreError::NotAKey)?.address();
    let derived = scrypt(passphrase, salt, LOG_N, R, P)?;
    let mut hidden = *secret;
    apply(&derived, iv, &mut hidden);
    let file = File {
        address: Some(hex::encode(address.as_bytes())),
        crypto: Crypto {
            cipher: "aes-128-ctr".to_owned(),
            cipherparams: CipherParams { iv: hex::encode(iv) },
            ciphertext: hex::encode(hidden),
            kdf: "scrypt".to_owned(),
            kdfparams: KdfParams {
                dklen: 32,
                salt: hex::encode(salt),
                n: Some(1 << LOG_N),
                r: Some(R),
                p: Some(P),
                ..KdfParams::default()
            },
            mac: hex::encode(mac_of(&derived, &hidden)),
        },
        id: uuid(id),
        version: 3,
    };
    serde_json::to_string_pretty(&file).map_err(|error| KeystoreError::Malformed(error.to_string()))
}

fn derive(crypto: &Crypto, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let params = &crypto.kdfparams;
    if params.dklen != 32 {
        return Err(KeystoreError::Malformed("its derived key is not 32 bytes long".to_owned()));
    }
    if params.salt.len() > 2 * SALT_LIMIT {
        return Err(KeystoreError::Excessive("a long salt"));
    }
    let salt = hex::decode(&params.salt).map_err(|_| KeystoreError::Malformed("its salt is not hexadecimal".to_owned()))?;
    let missing = |name: &str| KeystoreError::Malformed(format!("it does not say {name}"));
    match crypto.kdf.as_str() {
        "scrypt" => {
            let (n, r, p) =
                (params.n.ok_or_else(|| missing("n"))?, params.r.ok_or_else(|| missing("r"))?, params.p.ok_or_else(|| missing("p"))?);
            if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
                return Err(KeystoreError::Malformed("its scrypt cost makes no sense".to_owned()));
            }
            if n.saturating_mul(u64::from(r)).saturating_mul(128) > MEMORY_LIMIT {
                return Err(KeystoreError::Excessive("more than a gibibyte of memory"));
            }
            if p > PARALLEL_LIMIT {
                return Err(KeystoreError::Excessive("more than 16 rounds of scrypt"));
            }
            let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
            scrypt(passphrase, &salt, log_n, r, p)
        }
        "pbkdf2" => {
            if params.prf.as_deref() != Some("hmac-sha256") {
                return Err(KeystoreError::Malformed("its prf is not hmac-sha256".to_owned()));
            }
            let rounds = params.c.filter(|rounds| *rounds > 0).ok_or_else(|| missing("c"))?;
            if rounds > ROUNDS_LIMIT {
                return Err(KeystoreError::Excessive("more than ten million rounds"));
            }
            let mut key = Zeroizing::new([0; 32]);
            pbkdf2::pbkdf2::<Hmac<Sha256>>(passphrase.as_bytes(), &salt, rounds, key.as_mut_slice());
            Ok(key)
        }
        other => Err(KeystoreError::Malformed(format!("its kdf is `{}`", other.chars().take(20).collect::<String>()))),
    }
}

fn scrypt(passphrase: &str, salt: &[u8], log_n: u8, r: u32, p: u32) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let bad = || KeystoreError::Malformed("its scrypt cost makes no sense".to_owned());
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| bad())?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), salt, &params, key.as_mut_slice()).map_err(|_| bad())?;
    Ok(key)
}

fn mac_of(derived: &[u8; 32], ciphertext: &[u8]) -> [u8; 32] {
    keccak256([&derived[16..], ciphertext].concat()).0
}

fn apply(derived: &[u8; 32], iv: &[u8; IV_BYTES], bytes: &mut [u8]) {
    let (mut key, iv) = (Zeroizing::new([0; 16]), *iv);
    key.copy_from_slice(&derived[..16]);
    Ctr128BE::<Aes128>::new(&(*key).into(), &iv.into()).apply_keystream(bytes);
}

fn fixed<const N: usize>(name: &str, text: &str) -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| KeystoreError::Malformed(format!("its {name} is not {N} hexadecimal bytes")))?;
    Ok(bytes)
}

/// A random UUID (version 4) in text.
fn uuid(random: &[u8; 16]) -> String {
    let mut bytes = *random;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An example of the standard.
    const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
        "kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
        "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
    /// Written by another implementation (eth-account of Python).
    const SCRYPT: &str = r#"{"address":"008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b","crypto":{"cipher":"aes-128-ctr",
        "cipherparams":{"iv":"03d09a99b5e892a4cb98881448e87848"},
        "ciphertext":"bb2eb0ebf9a95b096211719d6c0ca7c1d8e2a65a06ef0e68e7df10ad22b7e457","kdf":"scrypt",
        "kdfparams":{"dklen":32,"n":16384,"r":8,"p":1,"salt":"390e86e3cf3d034efdf9845a5f0b130a"},
        "mac":"49657087000dfd9b7d334b4c114dce57c206e139221c5f7b1a5723a4ed765fbc"},"id":"393fdcfd-d274-450a-8791-b57839b260ab","version":3}"#;

    /// The secret of the standard's own examples.
    fn example() -> MoneyKey {
        let mut bytes = [0; 32];
        hex::decode_to_slice("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d", &mut bytes).unwrap();
        MoneyKey::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn files_of_the_standard_and_of_wallets_open_with_their_passphrase_and_no_other() {
        assert_eq!(example().address().to_string(), "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b");
        for text in [PBKDF2, SCRYPT] {
            assert_eq!(open(text, "testpassword").unwrap().address(), example().address());
            assert_eq!(open(text, "Testpassword").unwrap_err(), KeystoreError::WrongPassphrase);
        }
    }

    #[test]
    fn a_sealed_key_opens_again_and_its_file_names_its_address_and_no_secret() {
        let text = seal(&[0x42; 32], "correct horse", &[1; 32], &[2; 16], &[0xff; 16]).unwrap();
        let key = MoneyKey::from_bytes(&[0x42; 32]).unwrap();
        assert_eq!(open(&text, "correct horse").unwrap().address(), key.address());
        assert_eq!(open(&text, "").unwrap_err(), KeystoreError::WrongPassphrase);
        assert_eq!((address(&text), address(SCRYPT)), (Some(key.address()), Some(example().address())));
        let moved = text.replace(&hex::encode(key.address().as_bytes()), &"11".repeat(20));
        assert!(open(&moved, "correct horse").unwrap_err().to_string().contains("not that of its key"));
        assert!(is_keystore(&text) && !text.contains(&"42".repeat(32)));
        assert!(text.to_lowercase().contains(&key.address().to_string()[2..].to_lowercase()));
        assert!(text.contains("ffffffff-ffff-4fff-bfff-ffffffffffff"), "{text}");
        assert_eq!(seal(&[0; 32], "x", &[1; 32], &[2; 16], &[3; 16]).unwrap_err(), KeystoreError::NotAKey);
    }

    #[test]
    fn a_bad_file_is_an_error_and_never_a_panic_or_a_machine_without_memory() {
        let cases = [
            (SCRYPT.replace("\"n\":16384", "\"n\":1073741824"), "gibibyte"),
            (SCRYPT.replace("\"r\":8", "\"r\":4294967295"), "gibibyte"),
            (SCRYPT.replace("\"p\":1", "\"p\":4000000"), "16 rounds"),
            (SCRYPT.replace("\"n\":16384", "\"n\":16383"), "makes no sense"),
            (SCRYPT.replace("\"n\":16384", "\"n\":1"), "makes no sense"),
            (SCRYPT.replace("\"n\":16384", "\"n\":0"), "makes no sense"),
            (SCRYPT.replace("\"dklen\":32", "\"dklen\":8"), "32 bytes"),
            (SCRYPT.replace("03d09a99", "03d0"), "iv"),
            (SCRYPT.replace("bb2eb0eb", "bb2e"), "ciphertext"),
            (SCRYPT.replace("\"scrypt\"", "\"argon2\""), "argon2"),
            (SCRYPT.replace("aes-128-ctr", "aes-128-cbc"), "cipher"),
            (SCRYPT.replace("\"version\":3", "\"version\":1"), "version 1"),
            (PBKDF2.replace("262144", "4000000000"), "ten million"),
            (PBKDF2.replace("262144", "0"), "does not say c"),
            (PBKDF2.replace("hmac-sha256", "hmac-sha1"), "prf"),
            (PBKDF2.replace("ae3cd4e7", &"ae".repeat(500)), "long salt"),
            ("{}".to_owned(), "missing field"),
            (String::new(), "EOF"),
        ];
        for (text, expected) in cases {
            let refused = open(&text, "testpassword").unwrap_err().to_string();
            assert!(refused.contains(expected), "{expected}: {refused}");
        }
    }
}
