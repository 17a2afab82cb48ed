//! What an account's owner does in the escrow besides depositing: take money back, name and end spending keys, cap a day.

use orien_chain::{EscrowAccount, call};
use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::cli::Acting;
use crate::failure::{Failure, Told};
use crate::roles;
use crate::show;
use crate::wallet::reach;
use crate::wallet::record::Order;

use super::act::{Act, Stage};

/// Gas of a call that writes a few words: about 50,000 are used.
const SMALL_GAS: u64 = 120_000;
/// Gas of a call that also moves the token: about 80,000 are used.
const TRANSFER_GAS: u64 = 250_000;

/// A call that writes a few words.
fn small(stage: &Stage<'_>, name: &'static str, facts: Value, says: String, data: &[u8]) -> Act {
    Act { name, facts, says, order: Order::new(Some(stage.at.facts.escrow), data, SMALL_GAS) }
}

async fn account(stage: &Stage<'_>) -> anyhow::Result<EscrowAccount> {
    Ok(stage.at.chain.account(&stage.account(), &stage.latest().await?).await?)
}

/// Asks for money back.
pub(super) async fn request(amount: &str, acting: &Acting) -> anyhow::Result<()> {
    sum_of(amount)?;
    ask(amount, Stage::open(acting).await?, "orien wallet withdraw").await
}

/// An amount, or none for all there is.
fn sum_of(amount: &str) -> anyhow::Result<Option<Usdc>> {
    if amount == "all" { Ok(None) } else { roles::amount("amount", amount).map(Some) }
}

async fn ask(amount: &str, stage: Stage<'_>, then: &str) -> anyhow::Result<()> {
    let wanted = sum_of(amount)?;
    // What `all` came to is in the record, not in what makes it this act: the balance differs when it is repeated.
    let facts = json!({ "amount": wanted.map_or_else(|| "all".to_owned(), |wanted| wanted.to_string()) });
    let record = stage.record("request-exit", &facts)?;
    let has = account(&stage).await?;
    let sum = wanted.unwrap_or(has.balance);
    if record.is_fresh() {
        if sum == Usdc::ZERO {
            return Err(Told::coded(Failure::Money, "insufficient_escrow", format!("{} has nothing in the escrow", stage.account())));
        }
        if sum > has.balance {
            let missing = sum.excess_over(has.balance);
            let text = format!("{} has {} USDC in the escrow and {sum} are asked for: {missing} are missing", stage.account(), has.balance);
            return Err(Told::coded(Failure::Money, "insufficient_escrow", text));
        }
    }
    let delay = stage.at.network.exit_delay().0 / 1000;
    let replaced = if has.exiting > Usdc::ZERO {
        format!("; this replaces the request for {} USDC and begins anew", has.exiting)
    } else {
        String::new()
    };
    let says = format!(
        "asking for {sum} USDC back; they can be withdrawn {} later, less what older sessions still redeem{replaced}",
        show::seconds(delay)
    );
    let act = small(&stage, "request-exit", facts, says, &call::request_exit(sum));
    let done = stage.act(record, &act).await?;
    stage.show(&act, done.as_ref(), Some(&format!("{then}, in {}", show::seconds(delay))))
}

/// Takes the request back.
pub(super) async fn cancel(acting: &Acting) -> anyhow::Result<()> {
    let stage = Stage::open(acting).await?;
    let facts = json!({});
    let record = stage.record("cancel-exit", &facts)?;
    let says = "taking the request for an exit back".to_owned();
    let act = small(&stage, "cancel-exit", facts, says, &call::cancel_exit());
    let done = stage.act(record, &act).await?;
    stage.show(&act, done.as_ref(), None)
}

/// Takes what was asked for; with an amount, asks for it first if nothing was asked for yet.
pub(super) async fn withdraw(amount: Option<&str>, acting: &Acting) -> anyhow::Result<()> {
    let wanted = amount.map(sum_of).transpose()?.flatten();
    let stage = Stage::open(acting).await?;
    let facts = amount.map_or_else(|| json!({}), |amount| json!({ "amount": amount }));
    let record = stage.record("withdraw", &facts)?;
    let has = account(&stage).await?;
    if record.is_fresh() {
        if let Some(amount) = amount.filter(|_| has.exiting == Usdc::ZERO) {
            return ask(amount, stage.step("/request"), "orien wallet withdraw with the same amount and --key").await;
        }
        if has.exiting == Usdc::ZERO {
            return Err(Told::coded(Failure::Other, "no_exit", "nothing was asked for; begin with: orien wallet request-exit AMOUNT"));
        }
        if wanted.is_some_and(|wanted| wanted != has.exiting) {
            let text = format!(
                "{} USDC were asked for; `orien wallet withdraw` takes those, and `request-exit` replaces the request and begins anew",
                has.exiting
            );
            return Err(Told::coded(Failure::Other, "other_exit", text));
        }
        // The contract's clock is the block's.
        let now = stage.latest().await?.time;
        if has.exit_at > now {
            let text = format!("the {} USDC can be withdrawn in {}, not now", has.exiting, show::seconds(has.exit_at.0 - now.0));
            return Err(Told::coded(Failure::Other, "exit_not_due", text));
        }
    }
    let free = has.balance.excess_over(has.locked);
    let says = format!("withdrawing {} USDC to {}", has.exiting.min(free), stage.account());
    let order = Order::new(Some(stage.at.facts.escrow), &call::withdraw(), TRANSFER_GAS);
    let act = Act { name: "withdraw", facts, says, order };
    let done = stage.act(record, &act).await?;
    stage.show(&act, done.as_ref(), None)
}

/// Lets a key spend.
pub(super) async fn authorize(spending_key: Option<&str>, acting: &Acting) -> anyhow::Result<()> {
    let spending = reach::spending_key(spending_key, &acting.escrow)?;
    let stage = Stage::open(acting).await?;
    let facts = json!({ "spendingKey": spending.to_string() });
    let record = stage.record("authorize", &facts)?;
    let says = format!("letting the key {spending} promise what {} has in the escrow", stage.account());
    let act = small(&stage, "authorize", facts, says, &call::authorize_key(&spending));
    let done = stage.act(record, &act).await?;
    stage.show(&act, done.as_ref(), None)
}

/// Ends a key.
pub(super) async fn revoke(spending_key: &str, acting: &Acting) -> anyhow::Result<()> {
    let spending = roles::address("the spending key", spending_key)?;
    let stage = Stage::open(acting).await?;
    let facts = json!({ "spendingKey": spending.to_string() });
    let record = stage.record("revoke", &facts)?;
    let delay = show::seconds(stage.at.network.exit_delay().0 / 1000);
    let says = format!("ending the key {spending} for good: it can promise nothing new, and what it promised counts for {delay} more");
    let act = small(&stage, "revoke", facts, says, &call::revoke_key(&spending));
    let done = stage.act(record, &act).await?;
    stage.show(&act, done.as_ref(), None)
}

/// Caps a day.
pub(super) async fn cap(amount: &str, acting: &Acting) -> anyhow::Result<()> {
    let cap = if amount == "none" { Usdc::ZERO } else { roles::amount("amount", amount)? };
    if amount != "none" && cap == Usdc::ZERO {
        return Err(Told::coded(
            Failure::Other,
            "zero_amount",
            "a cap of nothing lifts the cap; say `none` for that, or revoke the key to stop it",
        ));
    }
    let stage = Stage::open(acting).await?;
    let facts = json!({ "dailyCap": amount });
    let record = stage.record("cap", &facts)?;
    let says = match amount {
        "none" => format!("lifting the daily cap of {}", stage.account()),
        _ => format!("capping what may be reserved of {} at {cap} USDC a day", stage.account()),
    };
    let act = small(&stage, "cap", facts, says, &call::set_daily_cap(cap));
    let done = stage.act(record, &act).await?;
    stage.show(&act, done.as_ref(), None)
}
