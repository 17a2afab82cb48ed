//! What every command that sends has in common: say what will be done and what it costs, do it once, and show what came of it.

use anyhow::Context;
use orien_chain::Wei;
use orien_protocol::signing::{Address, MoneyKey};
use serde_json::{Value, json};

use crate::cli::Acting;
use crate::client::fresh_key;
use crate::output;
use crate::wallet::folder::{self, WalletFolder};
use crate::wallet::key;
use crate::wallet::reach::{Reached, reach};
use crate::wallet::record::{Order, Outcome, Record};
use crate::wallet::sending::{Done, Sender};

/// A wallet in front of an escrow, about to do something.
pub(super) struct Stage<'a> {
    pub(super) at: Reached,
    pub(super) key: MoneyKey,
    folder: WalletFolder,
    acting: &'a Acting,
    /// The caller's key, or a new one.
    pub(super) once: String,
    /// Set for a step of a command whose key stands for a later step: the record of this one is kept apart.
    step: &'static str,
}

/// Something that is done by one call of a contract.
pub(super) struct Act {
    /// In one word.
    pub(super) name: &'static str,
    /// What makes it this act and no other.
    pub(super) facts: Value,
    /// What will be done, in a sentence.
    pub(super) says: String,
    pub(super) order: Order,
}

impl<'a> Stage<'a> {
    /// Reaches the escrow, opens the wallet and keeps other commands out of it.
    pub(super) async fn open(acting: &'a Acting) -> anyhow::Result<Self> {
        let at = reach(&acting.escrow).await?;
        let key = key::open(&acting.wallet)?;
        let folder = WalletFolder::open(&folder::place(acting.wallet.wallet.as_deref())?)?;
        let once = acting.sending.key.clone().map_or_else(fresh_key, Ok)?;
        Ok(Self { at, key, folder, acting, once, step: "" })
    }

    /// The same for a step of the command before its last one.
    pub(super) fn step(self, step: &'static str) -> Self {
        Self { step, ..self }
    }

    fn record_key(&self) -> String {
        format!("{}{}", self.once, self.step)
    }

    pub(super) fn account(&self) -> Address {
        self.key.address()
    }

    /// What there is of an act under this key.
    pub(super) fn record(&self, name: &str, facts: &Value) -> anyhow::Result<Record> {
        Record::find(&self.folder, &self.record_key(), (self.at.facts.chain_id, &self.account()), name, facts)
    }

    /// Remembers that something was done without a transaction of ours.
    pub(super) fn done_by_others(&self, mut record: Record, block: u64) -> anyhow::Result<Done> {
        let outcome = Outcome { transaction: None, block, gas_used: 0, fee: Wei::ZERO, contract: None };
        record.attempts.clear();
        record.outcome = Some(outcome.clone());
        record.save(&self.folder)?;
        Ok(Done::Final(outcome))
    }

    /// Says what will be done, and does it unless it was only to be said. None then.
    pub(super) async fn act(&self, mut record: Record, act: &Act) -> anyhow::Result<Option<Done>> {
        let sender =
            Sender { chain: &self.at.chain, key: &self.key, folder: &self.folder, sending: &self.acting.sending, coin: self.at.coin };
        let mut order = act.order.clone();
        if record.is_fresh() {
            order.gas_limit = sender.limit_for(order.gas_limit, order.to()?.as_ref(), &order.data()?).await?;
            sender.finish_earlier(&self.record_key()).await?;
            let most = sender.weigh(&order).await?;
            output::note(&act.says);
            output::note(format!("  chain {}, escrow {}, from {}", self.at.facts.chain_id, self.at.facts.escrow, self.account()));
            output::note(format!("  gas at most {} units, {most} {}", order.gas_limit, self.at.coin));
            if self.acting.sending.dry_run {
                output::note("  nothing was sent (--dry-run)");
                return Ok(None);
            }
            output::note(format!("  if this is interrupted, the same command with --key {} goes on", self.once));
        }
        sender.carry_out(&mut record, &order).await.map(Some)
    }

    /// Shows what was done.
    pub(super) fn show(&self, act: &Act, done: Option<&Done>, next: Option<&str>) -> anyhow::Result<()> {
        let Some(done) = done else {
            return if self.acting.json { output::json(&self.answer(act, "planned", None)) } else { Ok(()) };
        };
        let outcome = done.outcome();
        if self.acting.json {
            return output::json(&self.answer(act, done.state(), Some(outcome)));
        }
        output::line(format!("{:<12} {}", act.name, done.state()));
        for (name, value) in act.facts.as_object().into_iter().flatten() {
            output::line(format!("{name:<12} {}", value.as_str().unwrap_or_default()));
        }
        match &outcome.transaction {
            Some(transaction) => {
                output::line(format!("{:<12} {transaction}", "transaction"));
                output::line(format!("{:<12} {}", "block", outcome.block));
                output::line(format!("{:<12} {} units, {} {}", "gas", outcome.gas_used, outcome.fee, self.at.coin));
            }
            None => output::line(format!("{:<12} it was carried out by somebody else, and cost nothing here", "transaction")),
        }
        output::line(format!("{:<12} {}", "key", self.once));
        if let Some(next) = next {
            output::line(format!("{:<12} {next}", "next"));
        }
        Ok(())
    }

    fn answer(&self, act: &Act, state: &str, outcome: Option<&Outcome>) -> Value {
        let mut answer = json!({
            "action": act.name, "state": state, "account": self.account().to_string(), "chainId": self.at.facts.chain_id,
            "escrow": self.at.facts.escrow.to_string(), "key": self.once,
        });
        for (name, value) in act.facts.as_object().into_iter().flatten() {
            answer[name] = value.clone();
        }
        if let Some(outcome) = outcome {
            answer["transaction"] = json!(outcome.transaction);
            answer["block"] = json!(outcome.block);
            answer["gasUsed"] = json!(outcome.gas_used);
            answer["fee"] = json!(outcome.fee.to_string());
        }
        answer
    }

    /// The newest block, where things are looked at before they are done.
    pub(super) async fn latest(&self) -> anyhow::Result<orien_chain::Block> {
        self.at.chain.latest_block().await.context("the chain's newest block")
    }
}
