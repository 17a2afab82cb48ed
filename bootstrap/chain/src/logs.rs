//! What the escrow logged, in its order.
//!
//! Always true: a node that has not come as far as the last block asked for gives an error and not fewer logs; every log is the escrow's own and inside
//! the range; ranges that are too long for a node are split here, and a block that is too much for it is read from its receipts.

use alloy_primitives::{B256, Log, U256};
use alloy_sol_types::{SolEvent, SolEventInterface};
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::abi::Escrow::{EscrowEvents as Events, Redeemed};
use crate::chain::{Chain, head, hex_number};
use crate::error::ChainError;
use crate::facts::ChainLimits;
use crate::receipts;
use crate::rpc::node::Node;
use crate::rpc::wire::{RawLog, hash, ours, theirs};
use crate::types::TxHash;

const METHOD: &str = "eth_getLogs";

/// How often a range is halved because nothing was answered: down to an eighth.
const UNANSWERED_LIMIT: u32 = 3;

/// Why the escrow passed a claim over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the contract's and say it")]
pub enum Refusal {
    ChannelClosed,
    SignerUnknown,
    KeyUnknown,
    BadVoucher,
    NoAllowance,
    BadAllowance,
    TooLate,
    BadClose,
    /// A number that this version does not know.
    Other(u8),
}

impl Refusal {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::ChannelClosed,
            2 => Self::SignerUnknown,
            3 => Self::KeyUnknown,
            4 => Self::BadVoucher,
            5 => Self::NoAllowance,
            6 => Self::BadAllowance,
            7 => Self::TooLate,
            8 => Self::BadClose,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ChannelClosed => "the channel is closed",
            Self::SignerUnknown => "the settlement signer is not one of the escrow's, or no longer",
            Self::KeyUnknown => "the spending key is not one of the account's, or no longer",
            Self::BadVoucher => "the voucher's signature does not match",
            Self::NoAllowance => "there is no allowance for the channel",
            Self::BadAllowance => "the allowance's signature does not match",
            Self::TooLate => "the time to redeem is over",
            Self::BadClose => "the close does not match the channel",
            Self::Other(number) => return write!(f, "refused for reason {number}"),
        })
    }
}

/// Something that happened at the escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are named as in the contract, where they are explained")]
pub enum EscrowEvent {
    /// Money came in. A key that was not known before has its own [`EscrowEvent::KeyAuthorized`].
    Deposited { account: Address, spending_key: Address, amount: Usdc },
    /// A key may promise an account's money.
    KeyAuthorized { account: Address, key: Address },
    /// What a key promises counts until then.
    KeyRevoked { account: Address, key: Address, until: UnixSeconds },
    /// The most that may be reserved of an account in a day; zero for no cap.
    DailyCapSet { account: Address, cap: Usdc },
    /// Money was asked back; an earlier request is replaced.
    ExitRequested { account: Address, amount: Usdc, due: UnixSeconds },
    /// The request was taken back.
    ExitCancelled { account: Address },
    /// The request was carried out, as far as money was free; it is over.
    Withdrawn { account: Address, amount: Usdc },
    /// A claim was paid; `redeemed` is the channel's total after it.
    Redeemed { channel: ChannelId, account: Address, payout: Address, paid: Usdc, redeemed: Usdc, closed: bool },
    /// A claim was passed over.
    ClaimRefused { channel: ChannelId, reason: Refusal },
    /// Money was set aside for a channel.
    Locked { channel: ChannelId, account: Address, amount: Usdc, until: UnixSeconds },
    /// What was left of it is the account's again.
    Unlocked { channel: ChannelId, account: Address, amount: Usdc },
    /// Another settlement signer. The first one's `from` is the zero address.
    SignerChanged { from: Address, to: Address, old_until: UnixSeconds },
    /// Another operator was proposed.
    OperatorProposed { next: Address },
    /// Another operator.
    OperatorChanged { operator: Address },
    /// Other recipients of fees were proposed.
    RecipientsProposed { platform: Address, reserve: Address, due: UnixSeconds },
    /// Other recipients of fees.
    RecipientsChanged { platform: Address, reserve: Address },
    /// Fees were sent to their recipient.
    FeesCollected { recipient: Address, amount: Usdc },
    /// A payment could not be delivered and waits.
    Credited { payee: Address, amount: Usdc },
    /// It was delivered after all.
    CreditPaid { payee: Address, amount: Usdc },
}

/// Something that happened, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscrowLog {
    /// The height of its block.
    pub block: u64,
    /// The hash of its block.
    pub block_hash: Hash,
    /// The transaction that did it.
    pub transaction: TxHash,
    /// Its number among all logs of the block.
    pub index: u64,
    /// What happened.
    pub event: EscrowEvent,
}

impl Chain {
    /// Everything that the escrow logged from one block to another, both included.
    pub async fn logs(&self, from: u64, to: u64) -> Result<Vec<EscrowLog>, ChainError> {
        self.wanted(Wanted { escrow: self.facts().escrow, topics: Vec::new() }, from, to).await
    }

    /// What was redeemed of an account from one block to another, both included. What others have the escrow log does not make it longer.
    pub async fn redemptions(&self, account: &Address, from: u64, to: u64) -> Result<Vec<EscrowLog>, ChainError> {
        let topics = vec![Some(Redeemed::SIGNATURE_HASH), None, Some(theirs(account).into_word())];
        self.wanted(Wanted { escrow: self.facts().escrow, topics }, from, to).await
    }

    async fn wanted(&self, wanted: Wanted, from: u64, to: u64) -> Result<Vec<EscrowLog>, ChainError> {
        let limits = self.limits;
        self.nodes.agreed("the escrow's logs", |node| logs_of(node, wanted.clone(), limits, from, to)).await
    }
}

/// Which logs are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) escrow: Address,
    /// As nodes take them: what each topic has to be, if it matters.
    topics: Vec<Option<B256>>,
}

impl Wanted {
    /// Whether a log of the escrow is one of them.
    pub(crate) fn takes(&self, log: &RawLog) -> bool {
        let takes = |(at, wanted): (usize, &Option<B256>)| wanted.is_none_or(|wanted| log.topics.get(at) == Some(&wanted));
        self.topics.iter().enumerate().all(takes)
    }

    fn filter(&self, from: u64, to: u64) -> Value {
        let mut filter = json!({ "address": theirs(&self.escrow), "fromBlock": hex_number(from), "toBlock": hex_number(to) });
        if !self.topics.is_empty() {
            filter["topics"] = json!(self.topics);
        }
        json!([filter])
    }
}

/// All of a range that one node gives.
async fn logs_of(node: Node, wanted: Wanted, limits: ChainLimits, from: u64, to: u64) -> Result<Vec<EscrowLog>, ChainError> {
    head(node.clone(), json!(hex_number(to))).await?;
    let mut found: Vec<EscrowLog> = Vec::new();
    let mut next = from;
    let (mut span, mut unanswered) = (node.log_blocks(), 0);
    while next <= to {
        let end = next.saturating_add(span - 1).min(to);
        let answer = match node.ask::<_, Vec<RawLog>>(METHOD, wanted.filter(next, end)).await {
            Ok(logs) => understood(&node, &wanted, &logs, next, end)?,
            // A block cannot be halved.
            Err(error @ (ChainError::Refused { .. } | ChainError::AnswerTooLong { .. } | ChainError::Unanswered { .. })) if end == next => {
                from_receipts(&node, &wanted, &limits, next, error).await?
            }
            // Nodes say in many words that a range is too long; half as much is always worth a try.
            Err(ChainError::Refused { .. } | ChainError::AnswerTooLong { .. }) => {
                span = (end - next).div_ceil(2).max(1);
                node.shorten_logs(span);
                continue;
            }
            // It may have taken too long; a node that is gone is not asked for ever.
            Err(ChainError::Unanswered { .. }) if unanswered < UNANSWERED_LIMIT => {
                span = (end - next).div_ceil(2).max(1);
                unanswered += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        found.extend(answer);
        check_number(&found, &limits, from, to)?;
        node.lengthen_logs();
        if unanswered == 0 {
            span = node.log_blocks();
        }
        let Some(after) = end.checked_add(1) else { break };
        next = after;
    }
    Ok(found)
}

/// All logs of one answer.
fn understood(node: &Node, wanted: &Wanted, logs: &[RawLog], from: u64, to: u64) -> Result<Vec<EscrowLog>, ChainError> {
    let mut found: Vec<EscrowLog> = Vec::with_capacity(logs.len());
    for raw in logs {
        let log = escrow_log(node, &wanted.escrow, raw)?;
        in_place(node, &log, found.last(), from, to)?;
        if !wanted.takes(raw) {
            return Err(node.malformed(METHOD, "a log that was not asked for"));
        }
        found.push(log);
    }
    Ok(found)
}

/// The logs of one block, of which a node does not give them by themselves. If it does not know receipts either, its first word stands.
async fn from_receipts(
    node: &Node,
    wanted: &Wanted,
    limits: &ChainLimits,
    block: u64,
    error: ChainError,
) -> Result<Vec<EscrowLog>, ChainError> {
    match receipts::logs_of_block(node, wanted, limits, block).await {
        Err(ChainError::Refused { .. } | ChainError::Unanswered { .. }) => Err(error),
        found => found,
    }
}

/// Refuses more logs than are kept at once. Whoever asked for several blocks can ask for fewer.
fn check_number(found: &[EscrowLog], limits: &ChainLimits, from: u64, to: u64) -> Result<(), ChainError> {
    let (what, number) = ("logs of the escrow", found.len());
    if from == to && number > limits.block_logs {
        return Err(ChainError::BlockTooLarge { block: from, what, found: number, limit: limits.block_logs });
    }
    if from < to && number > limits.logs {
        return Err(ChainError::TooMany { what: "the escrow's log", limit: limits.logs });
    }
    Ok(())
}

/// Refuses a log that is not where it can be.
pub(crate) fn in_place(node: &Node, log: &EscrowLog, before: Option<&EscrowLog>, from: u64, to: u64) -> Result<(), ChainError> {
    if log.block < from || log.block > to {
        return Err(node.malformed(METHOD, format!("a log of block {} for blocks {from} to {to}", log.block)));
    }
    if before.is_some_and(|before| (before.block, before.index) >= (log.block, log.index)) {
        return Err(node.malformed(METHOD, "logs that are out of order or repeated"));
    }
    Ok(())
}

/// A log of the escrow, understood.
pub(crate) fn escrow_log(node: &Node, escrow: &Address, raw: &RawLog) -> Result<EscrowLog, ChainError> {
    let bad = |reason: &str| node.malformed(METHOD, reason);
    if ours(raw.address) != *escrow {
        return Err(bad("a log of another contract"));
    }
    let (Some(block), Some(block_hash), Some(transaction), Some(index), false) =
        (raw.block_number, raw.block_hash, raw.transaction_hash, raw.log_index, raw.removed)
    else {
        return Err(bad("a log that is in no block"));
    };
    let data = Log::new(raw.address, raw.topics.clone(), raw.data.clone()).ok_or_else(|| bad("a log with more than four topics"))?;
    let event = Events::decode_log(&data).map_err(|error| node.malformed(METHOD, error))?;
    let event = event_of(event.data).ok_or_else(|| bad("an event that the escrow does not have, or an amount that cannot be"))?;
    let (block_hash, transaction) = (hash(block_hash), TxHash::from_hash(hash(transaction)));
    Ok(EscrowLog { block: block.to(), block_hash, transaction, index: index.to(), event })
}

fn event_of(event: Events) -> Option<EscrowEvent> {
    let usdc = Usdc::from_micros;
    let sum = |amount: U256| u64::try_from(amount).ok().map(Usdc::from_micros);
    let channel = |id: B256| ChannelId::from_hash(hash(id));
    let (until, account) = (UnixSeconds, ours);
    Some(match event {
        Events::Deposited(e) => {
            EscrowEvent::Deposited { account: account(e.account), spending_key: account(e.spendingKey), amount: usdc(e.amount) }
        }
        Events::KeyAuthorized(e) => EscrowEvent::KeyAuthorized { account: account(e.account), key: account(e.key) },
        Events::KeyRevoked(e) => EscrowEvent::KeyRevoked { account: account(e.account), key: account(e.key), until: until(e.until) },
        Events::DailyCapSet(e) => EscrowEvent::DailyCapSet { account: account(e.account), cap: usdc(e.cap) },
        Events::ExitRequested(e) => EscrowEvent::ExitRequested { account: account(e.account), amount: usdc(e.amount), due: until(e.due) },
        Events::ExitCancelled(e) => EscrowEvent::ExitCancelled { account: account(e.account) },
        Events::Withdrawn(e) => EscrowEvent::Withdrawn { account: account(e.account), amount: usdc(e.amount) },
        Events::Redeemed(e) => EscrowEvent::Redeemed {
            channel: channel(e.channelId),
            account: account(e.account),
            payout: account(e.payout),
            paid: usdc(e.paid),
            redeemed: usdc(e.redeemed),
            closed: e.closed,
        },
        Events::ClaimRefused(e) => EscrowEvent::ClaimRefused { channel: channel(e.channelId), reason: Refusal::of(e.reason) },
        Events::Locked(e) => EscrowEvent::Locked {
            channel: channel(e.channelId),
            account: account(e.account),
            amount: usdc(e.amount),
            until: until(e.until),
        },
        Events::Unlocked(e) => EscrowEvent::Unlocked { channel: channel(e.channelId), account: account(e.account), amount: usdc(e.amount) },
        Events::SignerChanged(e) => EscrowEvent::SignerChanged { from: account(e.from), to: account(e.to), old_until: until(e.oldUntil) },
        Events::OperatorProposed(e) => EscrowEvent::OperatorProposed { next: account(e.next) },
        Events::OperatorChanged(e) => EscrowEvent::OperatorChanged { operator: account(e.operator) },
        Events::RecipientsProposed(e) => {
            EscrowEvent::RecipientsProposed { platform: account(e.platform), reserve: account(e.reserve), due: until(e.due) }
        }
        Events::RecipientsChanged(e) => EscrowEvent::RecipientsChanged { platform: account(e.platform), reserve: account(e.reserve) },
        Events::FeesCollected(e) => EscrowEvent::FeesCollected { recipient: account(e.recipient), amount: sum(e.amount)? },
        Events::Credited(e) => EscrowEvent::Credited { payee: account(e.payee), amount: sum(e.amount)? },
        Events::CreditPaid(e) => EscrowEvent::CreditPaid { payee: account(e.payee), amount: sum(e.amount)? },
        Events::EIP712DomainChanged(_) => return None,
    })
}
