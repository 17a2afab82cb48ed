//! What a peer reads of the escrow about money that it is promised, and whether that is enough.
//!
//! Always true: everything of one [`EscrowReading`] is of one final block; the judgement is made of it, the terms and the network's times alone, so that agent and provider come to the same. Money on
//! its way out does not count, and neither does money that an exit not shown yet could take before redemption ends (M12).
//!
//! It does not know settlement: what it says about the escrow is not asked for here (M13).

use orien_chain::{Block, Chain, ChainError, EscrowAccount, EscrowChannel, Expected, FOREVER, Preflight};
use orien_protocol::channel::Channel;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::terms::{EXIT_MARGIN, Terms};
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use thiserror::Error;

/// How much longer than finality takes the newest final block may be old before nothing is promised on it: half of the hour that M12 adds. What is older could hide an exit for too long, and nodes that
/// give nothing newer stand still.
pub const STANDSTILL: Millis = Millis::from_secs(1_800);

/// What the nodes of a chain that stands still have, for people.
pub async fn standstill(chain: &Chain, now: Timestamp) -> String {
    let stands = |(name, block): &(String, Result<Block, ChainError>)| match block {
        Ok(block) => {
            let seconds = now.since(block.time.timestamp()).0 / 1000;
            format!("{name} stands at block {} of {seconds} s ago (second {} since 1970)", block.number, block.time.0)
        }
        Err(error) => error.to_string(),
    };
    chain.heads().await.iter().map(stands).collect::<Vec<_>>().join("; ")
}

/// What the escrow said at one final block about a channel, its account, its spending key and its settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscrowReading {
    /// The block.
    pub at: Block,
    /// The account that funds the channel.
    pub account: EscrowAccount,
    /// Until when vouchers of the spending key count for the account; zero for a key that was never named.
    pub key_until: UnixSeconds,
    /// Until when allowances of the settlement signer count; zero for one that was never named.
    pub signer_until: UnixSeconds,
    /// The channel; all zero for one that was not asked about.
    pub channel: EscrowChannel,
}

impl EscrowReading {
    /// Reads all about a channel at the newest final block.
    pub async fn take(chain: &Chain, channel: &Channel) -> Result<Self, ChainError> {
        let at = chain.final_block().await?;
        let ids = [channel.id()];
        let parties = Self::of_parties(chain, at, &channel.account, &channel.spending_key, &channel.settlement_signer);
        let (parties, channels) = tokio::try_join!(parties, chain.channels(&ids, &at))?;
        Ok(Self { channel: channels.first().copied().unwrap_or_default(), ..parties })
    }

    /// Reads all about an account, its key and its settlement at a final block.
    pub async fn of_parties(
        chain: &Chain,
        at: Block,
        account: &Address,
        spending_key: &Address,
        signer: &Address,
    ) -> Result<Self, ChainError> {
        let (account, key_until, signer_until) =
            tokio::try_join!(chain.account(account, &at), chain.key_until(account, spending_key, &at), chain.signer_until(signer, &at))?;
        Ok(Self { at, account, key_until, signer_until, channel: EscrowChannel::default() })
    }

    /// What the account has that is neither locked nor on its way out.
    pub fn free(&self) -> Usdc {
        free(&self.account)
    }
}

/// Whether it is the chain that a network means, and what stands there is the escrow that this program knows. Nothing is done with a chain before.
pub async fn preflight(chain: &Chain, signer: Address, exit_delay: Millis) -> Result<Preflight, ChainError> {
    chain.preflight(&Expected { signer, exit_delay: UnixSeconds(exit_delay.0 / 1000) }).await
}

/// The same when a role starts: a chain that is another one is an error, one that cannot be asked yet is asked again later.
pub async fn preflight_at_start(chain: &Chain, signer: Address, exit_delay: Millis) -> Result<(), ChainError> {
    match preflight(chain, signer, exit_delay).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_passing() => {
            tracing::warn!(%error, "the chain cannot be read yet; nothing is opened until it can");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What an account has that is neither locked nor on its way out.
pub fn free(account: &EscrowAccount) -> Usdc {
    account.balance.excess_over(account.locked).excess_over(account.exiting)
}

/// Why a promise is not carried by the escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// The channel has been closed.
    #[error("the channel is closed on the chain")]
    Closed,
    /// The escrow never knew this signer.
    #[error("the escrow does not know the settlement signer {signer}", signer = .0)]
    SignerUnknown(Address),
    /// Another signer has taken its place.
    #[error("the settlement signer was replaced; what it signed counts until {}", .until.0)]
    SignerReplaced {
        /// The second until which its allowances count.
        until: UnixSeconds,
    },
    /// The account never named this key.
    #[error("the account has not named the spending key {key}", key = .0)]
    KeyUnknown(Address),
    /// The account took it back.
    #[error("the account has revoked the spending key; what it signed counts until {}", .until.0)]
    KeyRevoked {
        /// The second until which its vouchers count.
        until: UnixSeconds,
    },
    /// Redemption would end after an exit that the final block does not show yet could be due.
    #[error("redemption would end {late_seconds} s too late for the escrow's exit delay, counted from the last final block, {at}", at = .at.0)]
    TooLate {
        /// By how much.
        late_seconds: u64,
        /// The block's time.
        at: UnixSeconds,
    },
    /// By the chain's clock there is no time left to redeem.
    #[error("by the chain's clock redemption is over since {} s", .seconds)]
    Over {
        /// For how long.
        seconds: u64,
    },
    /// The account may not have so much reserved in a day.
    #[error("the account's daily cap is {cap} USDC")]
    DailyCap {
        /// The cap.
        cap: Usdc,
        /// How much less it would have to be.
        missing: Usdc,
    },
    /// There is not enough.
    #[error(
        "the escrow has {free} USDC free for the account ({balance} less {locked} locked and {exiting} on the way out), and {needed} are needed"
    )]
    Short {
        /// What it has that is neither locked nor on its way out.
        free: Usdc,
        /// All it has.
        balance: Usdc,
        /// Locked for some channel.
        locked: Usdc,
        /// Asked back.
        exiting: Usdc,
        /// What this and the account's other promises take.
        needed: Usdc,
        /// How much is not there.
        missing: Usdc,
    },
}

impl Unfit {
    /// As it is said to a peer or caller.
    pub fn fault(&self) -> Fault {
        let (code, missing) = match self {
            Self::Closed => (FaultCode::SESSION_ENDED, None),
            Self::SignerUnknown(_) | Self::SignerReplaced { .. } => (FaultCode::SIGNER_NOT_CURRENT, None),
            Self::KeyUnknown(_) | Self::KeyRevoked { .. } => (FaultCode::KEY_NOT_AUTHORIZED, None),
            Self::TooLate { .. } | Self::Over { .. } => (FaultCode::TIMES, None),
            Self::DailyCap { missing, .. } => (FaultCode::DAILY_CAP, Some(*missing)),
            Self::Short { missing, .. } => (FaultCode::INSUFFICIENT_FUNDS, Some(*missing)),
        };
        Fault { missing, ..Fault::new(code, self) }
    }
}

/// Whether the account still lets the channel's key promise, given until when the escrow says that its vouchers count.
pub fn check_key(until: UnixSeconds, channel: &Channel) -> Result<(), Unfit> {
    match until {
        FOREVER => Ok(()),
        UnixSeconds(0) => Err(Unfit::KeyUnknown(channel.spending_key)),
        until => Err(Unfit::KeyRevoked { until }),
    }
}

/// Whether the escrow carries a promise of up to `ceiling` under `terms`, beside `others` that are promised of the same account elsewhere and not redeemed.
pub fn check_fit(reading: &EscrowReading, terms: &Terms, ceiling: Usdc, others: Usdc, exit_delay: Millis) -> Result<(), Unfit> {
    if reading.channel.closed {
        return Err(Unfit::Closed);
    }
    match reading.signer_until {
        FOREVER => {}
        UnixSeconds(0) => return Err(Unfit::SignerUnknown(terms.settlement_signer)),
        until => return Err(Unfit::SignerReplaced { until }),
    }
    check_key(reading.key_until, &terms.channel())?;
    check_times(reading, terms, exit_delay)?;
    let cap = reading.account.daily_cap;
    if cap > Usdc::ZERO && ceiling > cap {
        return Err(Unfit::DailyCap { cap, missing: ceiling.excess_over(cap) });
    }
    let own = ceiling.excess_over(reading.channel.redeemed).excess_over(reading.channel.locked);
    let needed = Usdc::from_micros(own.micros().saturating_add(others.micros()));
    let missing = needed.excess_over(reading.free());
    if missing > Usdc::ZERO {
        let EscrowAccount { balance, locked, exiting, .. } = reading.account;
        return Err(Unfit::Short { free: reading.free(), balance, locked, exiting, needed, missing });
    }
    Ok(())
}

/// An exit asked for right after the final block is due one exit delay after it, and so is the end of a key: redemption has to be over before.
fn check_times(reading: &EscrowReading, terms: &Terms, exit_delay: Millis) -> Result<(), Unfit> {
    let (at, end) = (reading.at.time, terms.redeem_until.0);
    if end <= at.0 {
        return Err(Unfit::Over { seconds: at.0.saturating_sub(end) });
    }
    let needed = end.saturating_add(EXIT_MARGIN.0 / 1000);
    let due = at.0.saturating_add(exit_delay.0 / 1000);
    match needed.saturating_sub(due) {
        0 => Ok(()),
        late_seconds => Err(Unfit::TooLate { late_seconds, at }),
    }
}
