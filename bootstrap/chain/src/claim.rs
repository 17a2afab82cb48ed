//! A claim as the escrow takes it, made of the documents that peers signed for each other.

use alloy_primitives::{B256, FixedBytes};
use orien_protocol::channel::Channel;
use orien_protocol::money::Usdc;
use orien_protocol::signing::MoneySignature;
use orien_protocol::voucher::{SignedAllowance, SignedClose, SignedVoucher};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::abi;
use crate::rpc::wire::{theirs, word};

/// Documents that belong to different channels cannot be one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the {document} is for another channel than the claim")]
pub struct OtherChannel {
    /// Which of them.
    pub document: &'static str,
}

/// Everything that the escrow needs to pay what is new in one channel. The signatures are checked by the escrow, and before by whoever kept them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnChainClaim {
    channel: Channel,
    voucher: SignedVoucher,
    allowance: Option<SignedAllowance>,
    close: Option<SignedClose>,
}

impl OnChainClaim {
    /// A claim of a channel. Without an allowance it counts up to the ceiling that the escrow has seen; without a close more may follow.
    pub fn new(
        channel: Channel,
        voucher: SignedVoucher,
        allowance: Option<SignedAllowance>,
        close: Option<SignedClose>,
    ) -> Result<Self, OtherChannel> {
        let id = channel.id();
        let same = |document, channel| if channel == id { Ok(()) } else { Err(OtherChannel { document }) };
        same("voucher", voucher.unverified().channel)?;
        allowance.map_or(Ok(()), |allowance| same("allowance", allowance.unverified().channel))?;
        close.map_or(Ok(()), |close| same("close", close.unverified().channel))?;
        Ok(Self { channel, voucher, allowance, close })
    }

    /// Whose money goes where.
    pub const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The total that it brings the channel to, as far as the documents go.
    pub fn total(&self) -> Usdc {
        let voucher = self.voucher.unverified().total;
        let ceiling = self.allowance.map_or(voucher, |allowance| allowance.unverified().ceiling.min(voucher));
        self.close.map_or(ceiling, |close| close.unverified().total.min(ceiling))
    }

    pub(crate) fn typed(&self) -> abi::Claim {
        let (channel, voucher) = (&self.channel, self.voucher.unverified());
        let (voucher_r, voucher_vs) = compact(self.voucher.signature());
        let (allowance_r, allowance_vs) = self.allowance.map_or_else(nothing, |allowance| compact(allowance.signature()));
        let (close_r, close_vs) = self.close.map_or_else(nothing, |close| compact(close.signature()));
        let allowance = self.allowance.map(|allowance| *allowance.unverified());
        abi::Claim {
            account: theirs(&channel.account),
            spendingKey: theirs(&channel.spending_key),
            payout: theirs(&channel.payout),
            provider: B256::new(*channel.provider.as_bytes()),
            signer: theirs(&channel.settlement_signer),
            lane: FixedBytes::new(*channel.lane.as_bytes()),
            total: voucher.total.micros(),
            receiptNumber: voucher.receipt_number,
            receiptHash: word(&voucher.receipt_hash),
            voucherR: voucher_r,
            voucherVS: voucher_vs,
            ceiling: allowance.map_or(0, |allowance| allowance.ceiling.micros()),
            workUntil: allowance.map_or(0, |allowance| allowance.work_until.0),
            redeemUntil: allowance.map_or(0, |allowance| allowance.redeem_until.0),
            termsHash: allowance.map_or(B256::ZERO, |allowance| word(&allowance.terms)),
            claimKey: allowance.map_or_else(Default::default, |allowance| theirs(&allowance.claim_key)),
            allowanceR: allowance_r,
            allowanceVS: allowance_vs,
            closeTotal: self.close.map_or(0, |close| close.unverified().total.micros()),
            closeR: close_r,
            closeVS: close_vs,
        }
    }
}

/// A signature of 64 bytes (EIP-2098): the parity is the top bit of s, which a low s leaves free.
pub(crate) fn compact(signature: &MoneySignature) -> (B256, B256) {
    let bytes = signature.to_bytes();
    let (r, mut vs) = (B256::from_slice(&bytes[..32]), B256::from_slice(&bytes[32..64]));
    if bytes[64] == 28 {
        vs.0[0] |= 0x80;
    }
    (r, vs)
}

const fn nothing() -> (B256, B256) {
    (B256::ZERO, B256::ZERO)
}
