//! One transaction from the wish to the final block.
//!
//! Always true: nonce, gas and fees are set here and the signed bytes are on the disk before they are sent; all transactions of one thing have one nonce, so at most one of
//! them is ever carried out; what is reported as final is in a block that the chain's final block has as an ancestor. An RPC that does not answer is waited for, never
//! taken for a no.

use std::time::{Duration, Instant};

use anyhow::Context;
use orien_chain::fees::{FEE_CAP, FORMS_MAX, RAISE_AFTER, RESEND_AFTER};
use orien_chain::{At, Chain, ChainError, FeeQuote, Fees, Receipt, Revert, Sent, Transaction, TxHash, Wei, gas};
use orien_protocol::signing::{Address, MoneyKey};

use crate::cli::Sending;
use crate::failure::{Failure, Told};
use crate::output;
use crate::show::progress::Progress;

use super::folder::WalletFolder;
use super::record::{Attempt, Order, Outcome, Record};

/// How often the chain is asked how far a transaction is.
const LOOK: Duration = Duration::from_millis(700);
/// After so many looks at a used nonce without a receipt, another transaction used it.
const LOOKS_AT_NOTHING: u32 = 8;
/// The least tip, as a share of the base fee: a twentieth.
const TIP_SHARE: u128 = 20;
/// One gwei.
const GWEI: u128 = 1_000_000_000;

/// How far a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// In a block that may still be replaced.
    Included(Outcome),
    /// For good.
    Final(Outcome),
}

impl Done {
    pub(crate) fn outcome(&self) -> &Outcome {
        match self {
            Self::Included(outcome) | Self::Final(outcome) => outcome,
        }
    }

    pub(crate) const fn state(&self) -> &'static str {
        match self {
            Self::Included(_) => "included",
            Self::Final(_) => "final",
        }
    }
}

/// What one look at the chain shows of a record's transactions.
enum Seen {
    Waiting,
    Included(TxHash, Receipt),
    Final(TxHash, Receipt),
    /// The nonce is used, and by none of them.
    Lost,
}

/// A wallet that sends.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) key: &'a MoneyKey,
    pub(crate) folder: &'a WalletFolder,
    pub(crate) sending: &'a Sending,
    /// What gas is paid in.
    pub(crate) coin: &'static str,
}

impl Sender<'_> {
    /// Who sends.
    pub(crate) fn address(&self) -> Address {
        self.key.address()
    }

    /// Finishes what was begun before under other keys: a nonce that was taken and never sent would hold up everything after it.
    pub(crate) async fn finish_earlier(&self, but: &str) -> anyhow::Result<()> {
        for mut record in Record::unfinished(self.folder, self.chain.facts().chain_id, &self.address())? {
            if record.key != but {
                output::note(format!("first what was begun before: {} (key {})", record.name, record.key));
                self.broadcast_again(&record).await?;
                match self.follow(&mut record, true).await? {
                    Some(done) => output::note(format!("  {} in block {}", done.state(), done.outcome().block)),
                    None => output::note(format!("  another transaction took its place; repeat it with --key {}", record.key)),
                }
            }
        }
        Ok(())
    }

    /// A gas limit that has room for what this chain counts for the data.
    pub(crate) async fn limit_for(&self, limit: u64, to: Option<&Address>, data: &[u8]) -> anyhow::Result<u64> {
        Ok(match self.sending.gas_limit {
            Some(given) => given,
            None => gas::with_data(limit, self.chain.data_gas(to, data).await?),
        })
    }

    /// What gas would cost at most, after checking that the chain would accept the call as things are now and that the sender can pay.
    pub(crate) async fn weigh(&self, order: &Order) -> anyhow::Result<Wei> {
        if let Some(to) = order.to()?
            && let Err(revert) = self.chain.simulate(&self.address(), &to, &order.data()?).await?
        {
            return Err(refused(&revert));
        }
        let fees = self.fees().await?;
        let most = fees.max_fee.times(order.gas_limit);
        let has = self.chain.native_balance(&self.address()).await?;
        if has < most {
            let missing = Wei(most.0 - has.0);
            let text = format!(
                "gas may cost up to {most} {coin}, and {} has {has}: {missing} {coin} are missing",
                self.address(),
                coin = self.coin
            );
            return Err(Told::coded(Failure::Money, "insufficient_gas", text));
        }
        Ok(most)
    }

    /// What gas costs now. Where nobody gave anything on top lately, a little is still wanted.
    async fn quote(&self) -> anyhow::Result<FeeQuote> {
        let quote = self.chain.fees_now().await?;
        Ok(FeeQuote { tip: quote.tip.max(Wei(quote.base_fee.0 / TIP_SHARE)), ..quote })
    }

    fn cap(&self) -> Wei {
        self.sending.max_fee.map_or(FEE_CAP, Wei::from_gwei)
    }

    async fn fees(&self) -> anyhow::Result<Fees> {
        let quote = self.quote().await?;
        Fees::first(quote, self.cap()).ok_or_else(|| {
            let (costs, most) = (quote.base_fee.0.div_ceil(GWEI), self.cap().0 / GWEI);
            let text = format!("gas costs {costs} gwei now, more than is offered; --max-fee is {most}");
            Told::coded(Failure::Money, "fee_too_high", text)
        })
    }

    /// Sends what a record is for, or goes on where it was left, until it is final; with `--no-wait` until it is in a block.
    pub(crate) async fn carry_out(&self, record: &mut Record, order: &Order) -> anyhow::Result<Done> {
        if let Some(outcome) = &record.outcome {
            return Ok(Done::Final(outcome.clone()));
        }
        if record.attempts.is_empty() {
            self.sign_first(record, order).await?;
        } else {
            output::note(format!("going on with {} (key {})", record.name, record.key));
        }
        self.broadcast_again(record).await?;
        match self.follow(record, self.sending.no_wait).await? {
            Some(done) => Ok(done),
            None => {
                let text = format!(
                    "another transaction of {} took the place of this one; repeat the command with --key {}",
                    self.address(),
                    record.key
                );
                Err(Told::coded(Failure::Other, "replaced", text))
            }
        }
    }

    async fn sign_first(&self, record: &mut Record, order: &Order) -> anyhow::Result<()> {
        let fees = self.fees().await?;
        let taken = Record::unfinished(self.folder, record.chain_id, &self.address())?;
        let after = taken.iter().filter_map(|other| other.attempts.last()).map(|attempt| attempt.nonce + 1).max().unwrap_or(0);
        let nonce = self.chain.nonce(&self.address(), At::Latest).await?.max(after);
        record.order = Some(order.clone());
        self.sign(record, nonce, fees)
    }

    /// Signs what a record is for and keeps the bytes.
    fn sign(&self, record: &mut Record, nonce: u64, Fees { max_fee, tip }: Fees) -> anyhow::Result<()> {
        let order = record.order.as_ref().context("the record does not say what is sent")?;
        let transaction = Transaction {
            chain_id: record.chain_id,
            nonce,
            to: order.to()?,
            gas_limit: order.gas_limit,
            max_fee,
            max_priority_fee: tip,
            value: Wei::ZERO,
            data: order.data()?,
        };
        let signed = transaction.sign(self.key);
        record.attempts.push(Attempt { nonce, hash: signed.hash, raw: hex::encode(&signed.raw), max_fee, tip });
        record.save(self.folder)
    }

    /// Hands the newest transaction of a record to the chain. What nodes say about it is only their opinion; receipts decide.
    async fn broadcast_again(&self, record: &Record) -> anyhow::Result<()> {
        let attempt = record.attempts.last().context("nothing was signed")?;
        let raw = hex::decode(&attempt.raw).context("the record is damaged")?;
        match self.chain.send_raw(&raw).await {
            Ok(Sent::Accepted) => output::note(format!("  sent {}", attempt.hash)),
            Ok(Sent::AlreadyKnown | Sent::NonceTooLow | Sent::ReplacementUnderpriced) => {}
            Ok(Sent::FeeTooLow) => output::note("  the fee is too low just now; it will be raised"),
            Ok(Sent::InsufficientFunds) => {
                let text = format!("{} has too little {} for the gas of {}", self.address(), self.coin, attempt.hash);
                return Err(Told::coded(Failure::Money, "insufficient_gas", text));
            }
            Ok(Sent::Rejected(reason)) => {
                let text = format!("the chain refuses the transaction {}: {reason}", attempt.hash);
                return Err(Told::coded(Failure::Other, "rejected", text));
            }
            Err(error) if error.is_passing() => output::note(format!("  {error}; trying again")),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Watches a record's transactions until one is final (or just in a block). None when another transaction used their nonce: the record is as before the first
    /// attempt then.
    async fn follow(&self, record: &mut Record, until_included: bool) -> anyhow::Result<Option<Done>> {
        let progress = Progress::spinner(false);
        let (mut nothing, mut told, mut sent, mut signed) = (0, None, Instant::now(), Instant::now());
        loop {
            let seen = match self.look(record).await {
                Ok(seen) => seen,
                Err(error) if error.is_passing() => {
                    progress.doing(format!("waiting for the chain: {error}"));
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match seen {
                Seen::Final(hash, receipt) => return self.ended(record, &hash, &receipt).map(Some),
                Seen::Included(hash, receipt) => {
                    nothing = 0;
                    if told != Some(receipt.block_hash) {
                        told = Some(receipt.block_hash);
                        let then = if until_included { "" } else { "; waiting until it is final" };
                        output::note(format!("  in block {}{then}", receipt.block));
                    }
                    if until_included {
                        reverted(&hash, &receipt)?;
                        return Ok(Some(Done::Included(outcome(&hash, &receipt))));
                    }
                    progress.doing(format!("in block {}, not final yet", receipt.block));
                    // If that block is taken back, the waiting begins anew.
                    (sent, signed) = (Instant::now(), Instant::now());
                }
                Seen::Lost if nothing < LOOKS_AT_NOTHING => nothing += 1,
                Seen::Lost => {
                    record.attempts.clear();
                    record.save(self.folder)?;
                    return Ok(None);
                }
                Seen::Waiting => {
                    nothing = 0;
                    progress.doing("waiting for a block");
                    let is_stalled = signed.elapsed() >= Duration::from_millis(RAISE_AFTER.0);
                    if is_stalled {
                        self.raise(record).await?;
                        signed = Instant::now();
                    }
                    if is_stalled || sent.elapsed() >= Duration::from_millis(RESEND_AFTER.0) {
                        self.broadcast_again(record).await?;
                        sent = Instant::now();
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Signs the same again at higher fees, as long as --max-fee allows it.
    async fn raise(&self, record: &mut Record) -> anyhow::Result<()> {
        let last = record.attempts.last().context("nothing was signed")?;
        let (nonce, before) = (last.nonce, Fees { max_fee: last.max_fee, tip: last.tip });
        let quote = match self.quote().await {
            Ok(quote) => quote,
            // It is raised later then.
            Err(error) => {
                output::note(format!("  {error:#}; the fee stays as it is"));
                return Ok(());
            }
        };
        let Some(fees) = before.raised(quote, self.cap()).filter(|_| record.attempts.len() < FORMS_MAX) else {
            output::note(format!("  the fee stays at {} gwei", before.max_fee.0 / GWEI));
            return Ok(());
        };
        output::note(format!("  not in a block yet: up to {} gwei per gas now", fees.max_fee.0.div_ceil(GWEI)));
        self.sign(record, nonce, fees)
    }

    async fn look(&self, record: &Record) -> Result<Seen, ChainError> {
        for attempt in record.attempts.iter().rev() {
            let Some(receipt) = self.chain.receipt(&attempt.hash).await? else { continue };
            let last = self.chain.final_block().await?;
            let is_final = receipt.block <= last.number
                && self.chain.block(receipt.block).await?.is_some_and(|block| block.hash == receipt.block_hash);
            return Ok(if is_final { Seen::Final(attempt.hash, receipt) } else { Seen::Included(attempt.hash, receipt) });
        }
        let nonce = record.attempts.last().map_or(0, |attempt| attempt.nonce);
        let used = self.chain.nonce(&self.address(), At::Final).await? > nonce;
        Ok(if used { Seen::Lost } else { Seen::Waiting })
    }

    fn ended(&self, record: &mut Record, hash: &TxHash, receipt: &Receipt) -> anyhow::Result<Done> {
        if !receipt.success {
            // The same key may try again.
            record.attempts.clear();
            record.save(self.folder)?;
            reverted(hash, receipt)?;
        }
        let outcome = outcome(hash, receipt);
        record.outcome = Some(outcome.clone());
        record.save(self.folder)?;
        Ok(Done::Final(outcome))
    }
}

fn outcome(hash: &TxHash, receipt: &Receipt) -> Outcome {
    Outcome {
        transaction: Some(hash.to_string()),
        block: receipt.block,
        gas_used: receipt.gas_used,
        fee: receipt.effective_gas_price.times(receipt.gas_used),
        contract: receipt.contract.map(|address| address.to_string()),
    }
}

fn reverted(hash: &TxHash, receipt: &Receipt) -> anyhow::Result<()> {
    if receipt.success {
        return Ok(());
    }
    let text = format!("the transaction {hash} in block {} was refused by the contract and changed nothing but its gas", receipt.block);
    Err(Told::coded(Failure::Other, "reverted", text))
}

/// A contract's refusal in words that say what to do.
pub(crate) fn refused(revert: &Revert) -> anyhow::Error {
    let name = revert.name.as_str();
    let word = name.split('(').next().unwrap_or_default();
    let (code, advice) = match word {
        "KeyKnown" => ("key_known", "this key was named before; one that was revoked stays so, so use another"),
        "NoExit" => ("no_exit", "nothing was asked for; begin with `orien wallet request-exit`"),
        "ExitNotDue" => ("exit_not_due", "the exit delay is not over; `orien wallet balance` says when it is"),
        "AmountTooLarge" => ("amount_too_large", "an account holds at most 72057594037.927935 USDC"),
        "DepositRepeated" => ("deposit_repeated", "this deposit was carried out already"),
        "BadSetup" => ("bad_setup", "the token has no code, an address is zero, or the exit delay is not between 1 hour and 30 days"),
        _ => ("would_revert", "nothing was sent"),
    };
    Told::coded(Failure::Other, code, format!("the contract refuses this ({}): {advice}", crate::show::harmless(name)))
}
