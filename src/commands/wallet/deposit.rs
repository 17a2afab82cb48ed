//! `orien wallet deposit` and `relay`: USDC into the escrow, by an authorisation (EIP-3009) that names the spending key and that nobody can change.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use orien_chain::{Block, FOREVER};
use orien_protocol::money::Usdc;
use orien_protocol::time::UnixSeconds;
use serde_json::{Value, json};

use crate::cli::Acting;
use crate::failure::{Failure, Told};
use crate::wallet::key;
use crate::wallet::paper::{self, Deposit, DepositPaper};
use crate::wallet::reach::{self, reach};
use crate::wallet::record::{Order, Record};
use crate::wallet::sending::Done;
use crate::{output, roles};

use super::act::{Act, Stage};

/// Gas of a deposit by authorisation: about 180,000 are used with USDC the first time.
const DEPOSIT_GAS: u64 = 350_000;
/// How long a deposit that this command sends itself is good for. Within it the transaction is in a block or is signed anew.
const OWN_VALIDITY_SECONDS: u64 = 86_400;
/// Longest document.
const PAPER_LIMIT: u64 = 16 * 1024;

/// What is asked for.
pub(crate) struct Wish {
    pub(crate) amount: String,
    pub(crate) spending_key: Option<String>,
    pub(crate) valid_for: u64,
}

fn amount(text: &str) -> anyhow::Result<Usdc> {
    let amount = roles::amount("amount", text)?;
    if amount == Usdc::ZERO {
        return Err(Told::coded(Failure::Other, "zero_amount", "a deposit of nothing does nothing"));
    }
    Ok(amount)
}

fn facts_of(deposit: &Deposit) -> Value {
    json!({ "amount": deposit.amount.to_string(), "spendingKey": deposit.spending_key.to_string() })
}

/// Signs a deposit, sends it and shows what came of it.
pub(super) async fn online(wish: &Wish, acting: &Acting) -> anyhow::Result<()> {
    let (stage, act, done) = put(wish, acting).await?;
    let next = format!("orien gateway --account {}", stage.account());
    stage.show(&act, done.as_ref(), Some(&next))
}

/// Signs a deposit and sends it.
pub(crate) async fn put_in(wish: &Wish, acting: &Acting) -> anyhow::Result<()> {
    put(wish, acting).await.map(drop)
}

async fn put<'a>(wish: &Wish, acting: &'a Acting) -> anyhow::Result<(Stage<'a>, Act, Option<Done>)> {
    let amount = amount(&wish.amount)?;
    let spending_key = reach::spending_key(wish.spending_key.as_deref(), &acting.escrow)?;
    let stage = Stage::open(acting).await?;
    let deposit = Deposit::new(&stage.at.facts, stage.account(), spending_key, amount, &stage.once);
    let record = stage.record("deposit", &facts_of(&deposit))?;
    let valid_before = UnixSeconds(paper::now().0.saturating_add(OWN_VALIDITY_SECONDS.min(wish.valid_for)));
    let paper = deposit.sign(&stage.at.facts, &stage.at.found.token, valid_before, &stage.key);
    let (act, done) = carry_out(&stage, record, &deposit, &paper).await?;
    Ok((stage, act, done))
}

/// Sends a deposit that somebody signed.
pub(super) async fn relay(document: &Path, acting: &Acting) -> anyhow::Result<()> {
    let text = read(document)?;
    let (_, facts) = reach::network(&acting.escrow)?;
    let paper = DepositPaper::parse(&text, &facts)?;
    let deposit = paper.deposit()?;
    let stage = Stage::open(acting).await?;
    let mut of = facts_of(&deposit);
    of["depositOf"] = json!(deposit.account.to_string());
    let record = stage.record("relay", &of)?;
    let (act, done) = carry_out(&stage, record, &deposit, &paper).await?;
    stage.show(&act, done.as_ref(), None)
}

async fn carry_out(stage: &Stage<'_>, record: Record, deposit: &Deposit, paper: &DepositPaper) -> anyhow::Result<(Act, Option<Done>)> {
    let mut facts = facts_of(deposit);
    let relays = record.name == "relay";
    if relays {
        facts["depositOf"] = json!(deposit.account.to_string());
    }
    let act = Act {
        name: if relays { "relay" } else { "deposit" },
        facts,
        says: format!("depositing {} USDC of {} for the spending key {}", deposit.amount, deposit.account, deposit.spending_key),
        order: Order::new(Some(stage.at.facts.escrow), &paper.call(&stage.at.facts)?, DEPOSIT_GAS),
    };
    if record.is_fresh() {
        if let Some(done) = done_already(stage, &record, deposit).await? {
            return Ok((act, Some(done)));
        }
        if paper.is_over(paper::now()) {
            return Err(Told::coded(Failure::Other, "deposit_expired", "the time of this signed deposit is over; ask for a new one"));
        }
        affordable(stage, deposit).await?;
    }
    let again = record.clone();
    match stage.act(record, &act).await {
        Ok(done) => Ok((act, done)),
        // Somebody else may have carried the same deposit out first: then it is done, and only once.
        Err(error) => match done_already(stage, &again, deposit).await {
            Ok(Some(done)) => Ok((act, Some(done))),
            _ => Err(error),
        },
    }
}

/// Whether the token remembers this very deposit as carried out; waits until that is final.
async fn done_already(stage: &Stage<'_>, record: &Record, deposit: &Deposit) -> anyhow::Result<Option<Done>> {
    let used = async |at: &Block| stage.at.chain.authorization_used(&deposit.account, &deposit.nonce(), at).await;
    if !used(&stage.latest().await?).await? {
        return Ok(None);
    }
    output::note("this deposit was carried out already; waiting until that is final");
    loop {
        let last = stage.at.chain.final_block().await?;
        if used(&last).await? {
            return stage.done_by_others(record.clone(), last.number).map(Some);
        }
        // It may vanish again before it is final.
        if !used(&stage.latest().await?).await? {
            return Ok(None);
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

async fn affordable(stage: &Stage<'_>, deposit: &Deposit) -> anyhow::Result<()> {
    let latest = stage.latest().await?;
    let chain = &stage.at.chain;
    let has = chain.token_balance(&deposit.account, &latest).await?;
    if has < deposit.amount {
        let missing = deposit.amount.excess_over(has);
        let text = format!("{} has {has} USDC and {} are to be deposited: {missing} are missing", deposit.account, deposit.amount);
        return Err(Told::coded(Failure::Money, "insufficient_tokens", text));
    }
    if chain.is_blocklisted(&deposit.account, &latest).await? == Some(true) {
        let text = format!("the token's issuer has blocked {}; it can move no USDC", deposit.account);
        return Err(Told::coded(Failure::Other, "blocklisted", text));
    }
    let until = chain.key_until(&deposit.account, &deposit.spending_key, &latest).await?;
    if until != UnixSeconds(0) && until != FOREVER {
        let text = format!(
            "the key {} was revoked by {}; a deposit does not bring it back, so use another",
            deposit.spending_key, deposit.account
        );
        return Err(Told::coded(Failure::Other, "key_revoked", text));
    }
    Ok(())
}

/// Signs a deposit and prints it.
pub(super) async fn offline(wish: &Wish, acting: &Acting) -> anyhow::Result<()> {
    let amount = amount(&wish.amount)?;
    let spending_key = reach::spending_key(wish.spending_key.as_deref(), &acting.escrow)?;
    let at = reach(&acting.escrow).await?;
    let key = key::open(&acting.wallet)?;
    let once = acting.sending.key.clone().map_or_else(crate::client::fresh_key, Ok)?;
    let deposit = Deposit::new(&at.facts, key.address(), spending_key, amount, &once);
    let valid_before = UnixSeconds(paper::now().0.saturating_add(wish.valid_for));
    let paper = deposit.sign(&at.facts, &at.found.token, valid_before, &key);
    output::note(format!(
        "{amount} USDC of {} for the spending key {spending_key}; carried out by: orien wallet relay FILE",
        key.address()
    ));
    output::note(format!("whoever has this document can carry it out, once, until {}; key {once}", valid_before.0));
    output::json(&paper)
}

fn read(document: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limited = |from: Box<dyn Read>| from.take(PAPER_LIMIT);
    if document.as_os_str() == "-" {
        limited(Box::new(std::io::stdin())).read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(document).with_context(|| format!("cannot read {}", document.display()))?;
        limited(Box::new(file)).read_to_string(&mut text).with_context(|| format!("cannot read {}", document.display()))?;
    }
    Ok(text)
}
