//! What a wallet was asked to send, on disk: one small file for each thing, named by the caller's key.
//!
//! Always true: the bytes of a transaction are in its record before anybody else sees them, so whatever is interrupted can go on with the same transaction; a key stands
//! for one thing, and asking for another under it is refused.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use orien_chain::{TxHash, Wei};
use orien_protocol::hash::Hash;
use orien_protocol::signing::Address;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Told};

use super::folder::WalletFolder;

/// The layout of records.
const VERSION: u32 = 1;
/// Longest key of a caller.
const KEY_LIMIT: usize = 200;
/// Largest record: a deployment's bytes in hexadecimal, once for each time that its fee was raised.
const RECORD_LIMIT: u64 = 4 * 1024 * 1024;
/// Most records that are looked at for unfinished ones; a wallet that sent more puts old ones away.
const RECORDS_LIMIT: usize = 10_000;

/// One thing that was asked for, under one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    /// The caller's.
    pub(crate) key: String,
    pub(crate) chain_id: u64,
    /// Who sends.
    pub(crate) sender: String,
    /// What is done, in one word.
    pub(crate) name: String,
    /// What makes it this thing and no other.
    pub(crate) facts: Value,
    /// What is sent for it, once it was signed.
    pub(crate) order: Option<Order>,
    /// Every transaction that was signed for it and may still be carried out, all with one nonce; the newest last.
    pub(crate) attempts: Vec<Attempt>,
    /// How it ended, if it has.
    pub(crate) outcome: Option<Outcome>,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Order {
    /// The contract; none to make one.
    pub(crate) to: Option<String>,
    /// In hexadecimal.
    pub(crate) data: String,
    pub(crate) gas_limit: u64,
}

impl Order {
    pub(crate) fn new(to: Option<Address>, data: &[u8], gas_limit: u64) -> Self {
        Self { to: to.map(|to| to.to_string()), data: hex::encode(data), gas_limit }
    }

    /// The contract that is called.
    pub(crate) fn to(&self) -> anyhow::Result<Option<Address>> {
        self.to.as_deref().map(|to| to.parse().context("the record is damaged")).transpose()
    }

    /// What it is called with.
    pub(crate) fn data(&self) -> anyhow::Result<Vec<u8>> {
        hex::decode(&self.data).context("the record is damaged")
    }
}

/// A signed transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Attempt {
    pub(crate) nonce: u64,
    #[serde(with = "text")]
    pub(crate) hash: TxHash,
    /// As it goes to the chain, in hexadecimal.
    pub(crate) raw: String,
    /// Most per gas.
    pub(crate) max_fee: Wei,
    /// Most of it for whoever makes the block.
    pub(crate) tip: Wei,
}

/// A transaction that was carried out and is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Outcome {
    /// None when somebody else had it done, and so nothing was paid for it.
    pub(crate) transaction: Option<String>,
    pub(crate) block: u64,
    pub(crate) gas_used: u64,
    pub(crate) fee: Wei,
    /// The contract that it made.
    pub(crate) contract: Option<String>,
}

/// Values as people write them.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Record {
    /// The record of a key: the one there is, if it is for the same thing, or a new one that is not on disk yet.
    pub(crate) fn find(
        folder: &WalletFolder,
        key: &str,
        (chain_id, sender): (u64, &Address),
        name: &str,
        facts: &Value,
    ) -> anyhow::Result<Self> {
        if key.is_empty() || key.len() > KEY_LIMIT || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("--key takes 1 to {KEY_LIMIT} printable characters without spaces");
        }
        let sender = sender.to_string();
        let path = path(folder, chain_id, &sender, key);
        if !path.exists() {
            let facts = facts.clone();
            return Ok(Self {
                version: VERSION,
                key: key.to_owned(),
                chain_id,
                sender,
                name: name.to_owned(),
                facts,
                order: None,
                attempts: Vec::new(),
                outcome: None,
            });
        }
        let record = read(&path)?;
        if record.name != name || record.facts != *facts {
            let text =
                format!("the key {key} stands for something else already: {} {}; take another key", record.name, words(&record.facts));
            return Err(Told::coded(Failure::Other, "key_reused", text));
        }
        Ok(record)
    }

    /// What this sender began on this chain and has not seen the end of, by nonce.
    pub(crate) fn unfinished(folder: &WalletFolder, chain_id: u64, sender: &Address) -> anyhow::Result<Vec<Self>> {
        let sender = sender.to_string();
        let entries = std::fs::read_dir(folder.records()).context("cannot look at the wallet's records")?;
        let mut found = Vec::new();
        for (count, entry) in entries.enumerate() {
            if count == RECORDS_LIMIT {
                bail!("there are more than {RECORDS_LIMIT} records in {}; move old ones away", folder.records().display());
            }
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                let record = read(&path)?;
                if record.chain_id == chain_id && record.sender == sender && record.outcome.is_none() && !record.attempts.is_empty() {
                    found.push(record);
                }
            }
        }
        found.sort_by_key(|record| record.attempts.last().map(|attempt| attempt.nonce));
        Ok(found)
    }

    /// Puts it on the disk.
    pub(crate) fn save(&self, folder: &WalletFolder) -> anyhow::Result<()> {
        let path = path(folder, self.chain_id, &self.sender, &self.key);
        Ok(orien_bootstrap::files::replace(&path, &serde_json::to_vec_pretty(self)?)?)
    }

    /// Nothing was sent for it yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.attempts.is_empty() && self.outcome.is_none()
    }
}

/// Keys of callers may hold any character, so a file has the name of their hash.
fn path(folder: &WalletFolder, chain_id: u64, sender: &str, key: &str) -> PathBuf {
    let hash = Hash::of(format!("{chain_id}\n{sender}\n{key}").as_bytes());
    folder.records().join(format!("{}.json", &hash.to_string()[..32]))
}

fn read(path: &Path) -> anyhow::Result<Record> {
    let text = orien_bootstrap::files::read_secret(path, RECORD_LIMIT)?;
    let record: Record =
        serde_json::from_str(&text).with_context(|| format!("{} is not a record of a transaction; move it away", path.display()))?;
    if record.version != VERSION {
        bail!("{} was written by another version of this program", path.display());
    }
    Ok(record)
}

fn words(facts: &Value) -> String {
    let Some(facts) = facts.as_object() else { return String::new() };
    let cells = facts.iter().map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    cells.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder() -> (tempfile::TempDir, WalletFolder) {
        let parent = tempfile::tempdir().unwrap();
        let folder = WalletFolder::open(&parent.path().join("wallet")).unwrap();
        (parent, folder)
    }

    fn attempt(nonce: u64) -> Attempt {
        Attempt { nonce, hash: TxHash::from_hash(Hash::ZERO), raw: "0x02".to_owned(), max_fee: Wei(2), tip: Wei(1) }
    }

    #[test]
    fn a_key_stands_for_one_thing_and_for_another_on_another_chain() {
        let (_parent, folder) = folder();
        let sender = Address::from_bytes([1; 20]);
        let find = |chain, key: &str, amount: &str| Record::find(&folder, key, (chain, &sender), "deposit", &json!({ "amount": amount }));
        let mut record = find(1, "a b/c".replace(' ', "").as_str(), "5").unwrap();
        assert!(record.is_fresh());
        record.attempts.push(attempt(3));
        record.save(&folder).unwrap();
        assert_eq!(find(1, "ab/c", "5").unwrap().attempts.len(), 1);
        assert!(find(2, "ab/c", "6").unwrap().is_fresh());
        let error = find(1, "ab/c", "6").unwrap_err();
        assert_eq!(crate::failure::described(&error)["code"], "key_reused");
        assert!(error.to_string().contains("deposit amount=5"), "{error}");
        for key in ["", "a b", &"x".repeat(201)] {
            assert!(find(1, key, "5").is_err(), "{key}");
        }
    }

    #[test]
    fn unfinished_things_of_one_sender_come_by_nonce() {
        let (_parent, folder) = folder();
        let (one, other) = (Address::from_bytes([1; 20]), Address::from_bytes([2; 20]));
        let outcome = Outcome { transaction: None, block: 1, gas_used: 0, fee: Wei(0), contract: None };
        for (key, sender, nonce, outcome) in
            [("late", one, 8, None), ("early", one, 7, None), ("over", one, 6, Some(outcome)), ("theirs", other, 5, None)]
        {
            let mut record = Record::find(&folder, key, (1, &sender), "withdraw", &json!({})).unwrap();
            record.attempts.push(attempt(nonce));
            record.outcome = outcome;
            record.save(&folder).unwrap();
        }
        let keys: Vec<String> = Record::unfinished(&folder, 1, &one).unwrap().into_iter().map(|record| record.key).collect();
        assert_eq!(keys, ["early", "late"]);
    }
}
