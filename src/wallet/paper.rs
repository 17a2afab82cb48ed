//! A signed deposit as a document: whoever has it can carry it out and pay the gas, and nobody can change account, amount or spending key.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use orien_chain::deposit::{self, Authorization, TokenDomain};
use orien_chain::{ChainFacts, call};
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyKey, MoneySignature};
use orien_protocol::time::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Told};

/// What a document says it is.
const KIND: &str = "orien-deposit/1";

/// A deposit that its account signed (EIP-3009).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DepositPaper {
    kind: String,
    pub(crate) chain_id: u64,
    pub(crate) escrow: String,
    pub(crate) token: String,
    pub(crate) account: String,
    pub(crate) spending_key: String,
    /// USDC.
    pub(crate) amount: String,
    salt: String,
    /// Seconds since 1970.
    valid_before: u64,
    signature: String,
}

/// What is deposited for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deposit {
    pub(crate) account: Address,
    pub(crate) spending_key: Address,
    pub(crate) amount: Usdc,
    pub(crate) salt: Hash,
}

impl Deposit {
    /// A deposit whose salt follows from the caller's key, so that repeating it, even without the wallet's records, is the same deposit to the token.
    pub(crate) fn new(facts: &ChainFacts, account: Address, spending_key: Address, amount: Usdc, key: &str) -> Self {
        let mut bytes = b"orien/wallet-deposit/v1\0".to_vec();
        bytes.extend_from_slice(&facts.chain_id.to_be_bytes());
        for address in [&facts.escrow, &account, &spending_key] {
            bytes.extend_from_slice(address.as_bytes());
        }
        bytes.extend_from_slice(key.as_bytes());
        Self { account, spending_key, amount, salt: Hash::of(&bytes) }
    }

    /// The nonce under which the token remembers it.
    pub(crate) fn nonce(&self) -> Hash {
        deposit::nonce(&self.account, &self.spending_key, &self.salt)
    }

    /// Signs it.
    pub(crate) fn sign(&self, facts: &ChainFacts, token: &TokenDomain, valid_before: UnixSeconds, key: &MoneyKey) -> DepositPaper {
        let signature = self.authorization(facts, valid_before).sign(token, key);
        DepositPaper {
            kind: KIND.to_owned(),
            chain_id: facts.chain_id,
            escrow: facts.escrow.to_string(),
            token: facts.token.to_string(),
            account: self.account.to_string(),
            spending_key: self.spending_key.to_string(),
            amount: self.amount.to_string(),
            salt: format!("0x{}", self.salt),
            valid_before: valid_before.0,
            signature: format!("0x{}", hex::encode(signature.to_bytes())),
        }
    }

    fn authorization(&self, facts: &ChainFacts, valid_before: UnixSeconds) -> Authorization {
        Authorization {
            account: self.account,
            escrow: facts.escrow,
            amount: self.amount,
            spending_key: self.spending_key,
            salt: self.salt,
            valid_after: UnixSeconds(0),
            valid_before,
        }
    }
}

impl DepositPaper {
    /// Reads a document that somebody gave us, for this escrow.
    pub(crate) fn parse(text: &str, facts: &ChainFacts) -> anyhow::Result<Self> {
        let paper: Self = serde_json::from_str(text).context("this is not a deposit that `orien wallet deposit --offline` printed")?;
        ensure!(paper.kind == KIND, "this is a document of another kind: {}", crate::show::harmless(&paper.kind));
        let here = (facts.chain_id, facts.escrow, facts.token);
        if (paper.chain_id, paper.escrow.parse()?, paper.token.parse()?) != here {
            let text = format!(
                "this deposit is for escrow {} on chain {}, not for this network's {} on {}",
                paper.escrow, paper.chain_id, facts.escrow, facts.chain_id
            );
            return Err(Told::coded(Failure::Other, "other_escrow", crate::show::harmless(&text)));
        }
        Ok(paper)
    }

    /// What it deposits.
    pub(crate) fn deposit(&self) -> anyhow::Result<Deposit> {
        Ok(Deposit {
            account: self.account.parse().context("account")?,
            spending_key: self.spending_key.parse().context("spendingKey")?,
            amount: self.amount.parse().context("amount")?,
            salt: self.salt.strip_prefix("0x").unwrap_or(&self.salt).parse().context("salt")?,
        })
    }

    /// Whether its time is over.
    pub(crate) const fn is_over(&self, now: UnixSeconds) -> bool {
        now.0 >= self.valid_before
    }

    /// What the escrow is called with.
    pub(crate) fn call(&self, facts: &ChainFacts) -> anyhow::Result<Vec<u8>> {
        let mut signature = [0; 65];
        let digits = self.signature.strip_prefix("0x").unwrap_or(&self.signature);
        hex::decode_to_slice(digits, &mut signature).context("the signature of the deposit is not 65 bytes in hexadecimal")?;
        let authorization = self.deposit()?.authorization(facts, UnixSeconds(self.valid_before));
        Ok(call::deposit_with_authorization(&authorization, &MoneySignature::from_bytes(&signature)))
    }
}

/// The wall's clock, as a block counts.
pub(crate) fn now() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
