//! The three money statements of a channel: the agent's [`Voucher`], settlement's [`Allowance`], the payee's [`Close`].
//!
//! Each is cumulative for its channel: a newer one replaces the older ones and adds nothing, so loss, reordering and repetition are harmless. They carry no network id
//! of their own because the channel id already depends on chain, escrow and every party.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::channel::ChannelId;
use crate::hash::Hash;
use crate::money::Usdc;
use crate::signing::money_key::{account, digest_of, typed, word};
use crate::signing::{Address, MoneyDomain, MoneyKey, MoneySignature, MoneyStatement, SignatureError};
use crate::time::UnixSeconds;

/// The agent promises a cumulative total, for work up to and including one receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// The channel it can be redeemed from.
    pub channel: ChannelId,
    /// All that was ever promised in this channel.
    pub total: Usdc,
    /// The newest receipt it answers.
    pub receipt_number: u64,
    /// That receipt's content id.
    pub receipt_hash: Hash,
}

impl Voucher {
    /// Newest is the highest total, then the highest receipt number.
    pub const fn rank(&self) -> (u64, u64) {
        (self.total.micros(), self.receipt_number)
    }
}

/// Settlement reserves up to a ceiling for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The channel it is for.
    pub channel: ChannelId,
    /// Most that may ever be redeemed from the channel; a newer allowance replaces it.
    pub ceiling: Usdc,
    /// Work after this time is not covered.
    pub work_until: UnixSeconds,
    /// Redemption after this time is refused, and the reservation ends.
    pub redeem_until: UnixSeconds,
    /// Content id of the session's terms.
    pub terms: Hash,
    /// Whose `Close` frees the reservation early: the provider's claim key.
    pub claim_key: Address,
}

/// The payee says that no more than a total will ever be redeemed, which frees the rest of the reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The channel that ends.
    pub channel: ChannelId,
    /// The final total.
    pub total: Usdc,
}

impl MoneyStatement for Voucher {
    const NAME: &'static str = "voucher";

    fn digest(&self, domain: &MoneyDomain) -> Hash {
        let data = typed::Voucher {
            channelId: word(self.channel.hash()),
            total: self.total.micros(),
            receiptNumber: self.receipt_number,
            receiptHash: word(&self.receipt_hash),
        };
        digest_of(&data, domain)
    }
}

impl MoneyStatement for Allowance {
    const NAME: &'static str = "allowance";

    fn digest(&self, domain: &MoneyDomain) -> Hash {
        let data = typed::Allowance {
            channelId: word(self.channel.hash()),
            ceiling: self.ceiling.micros(),
            workUntil: self.work_until.0,
            redeemUntil: self.redeem_until.0,
            termsHash: word(&self.terms),
            claimKey: account(&self.claim_key),
        };
        digest_of(&data, domain)
    }
}

impl MoneyStatement for Close {
    const NAME: &'static str = "close";

    fn digest(&self, domain: &MoneyDomain) -> Hash {
        digest_of(&typed::Close { channelId: word(self.channel.hash()), total: self.total.micros() }, domain)
    }
}

/// A money statement with a signature that nobody has checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneySigned<T> {
    body: T,
    signature: MoneySignature,
}

impl<T: MoneyStatement> MoneySigned<T> {
    /// What is claimed.
    pub const fn unverified(&self) -> &T {
        &self.body
    }

    /// The signature, as it came.
    pub const fn signature(&self) -> &MoneySignature {
        &self.signature
    }

    /// Checks the signature.
    pub fn verify(self, domain: &MoneyDomain, signer: &Address) -> Result<MoneyVerified<T>, SignatureError> {
        self.body.check(domain, &self.signature, signer)?;
        Ok(MoneyVerified(self))
    }
}

/// A money statement whose signature was checked here, or made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoneyVerified<T>(MoneySigned<T>);

impl<T: MoneyStatement> MoneyVerified<T> {
    /// Signs a statement of our own.
    pub fn sign(body: T, domain: &MoneyDomain, key: &MoneyKey) -> Self {
        let signature = key.sign(&body, domain);
        Self(MoneySigned { body, signature })
    }

    /// The form that travels and is stored.
    pub const fn signed(&self) -> &MoneySigned<T> {
        &self.0
    }
}

impl<T> Deref for MoneyVerified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.body
    }
}

/// A voucher as it travels.
pub type SignedVoucher = MoneySigned<Voucher>;
/// An allowance as it travels.
pub type SignedAllowance = MoneySigned<Allowance>;
/// A close as it travels.
pub type SignedClose = MoneySigned<Close>;
