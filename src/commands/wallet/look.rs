//! `orien wallet balance`: what an account has, in the token and in the escrow, and who may spend it.

use orien_chain::FOREVER;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;
use serde_json::{Value, json};

use crate::cli::{AtEscrow, WalletAt};
use crate::wallet::key;
use crate::wallet::reach::{self, reach};
use crate::{output, roles, show};

pub(super) async fn balance(
    account: Option<&str>,
    spending_keys: &[String],
    escrow: &AtEscrow,
    wallet: &WalletAt,
    as_json: bool,
) -> anyhow::Result<()> {
    let account = match account {
        Some(text) => roles::address("--account", text)?,
        None => key::address(wallet)?,
    };
    let keys = keys(spending_keys, escrow)?;
    let at = reach(escrow).await?;
    // One block for all of it, so that the numbers belong together.
    let last = at.chain.final_block().await?;
    let held = at.chain.account(&account, &last).await?;
    let tokens = at.chain.token_balance(&account, &last).await?;
    let coins = at.chain.native_balance(&account).await?;
    let mut named = Vec::new();
    for key in &keys {
        named.push((key, at.chain.key_until(&account, key, &last).await?));
    }
    let blocked = at.chain.is_blocklisted(&account, &last).await?;
    if as_json {
        let keys: Vec<Value> = named.iter().map(|(key, until)| json!({ "spendingKey": key.to_string(), "state": word(*until) })).collect();
        return output::json(&json!({
            "account": account.to_string(), "chainId": at.facts.chain_id, "block": last.number, "finality": at.facts.finality.tag(),
            "usdc": tokens.to_string(), "gasCoin": at.coin, "gasBalance": coins.to_string(), "blocklisted": blocked,
            "escrow": {
                "address": at.facts.escrow.to_string(), "balance": held.balance.to_string(), "locked": held.locked.to_string(),
                "exiting": held.exiting.to_string(), "exitAt": (held.exiting > Usdc::ZERO).then_some(held.exit_at.0),
                "dailyCap": (held.daily_cap > Usdc::ZERO).then(|| held.daily_cap.to_string()),
            },
            "keys": keys,
        }));
    }
    output::line(format!("account      {account}"));
    output::line(format!("chain        {}, as of block {} ({})", at.facts.chain_id, last.number, at.facts.finality.tag()));
    output::line(format!("wallet       {tokens} USDC, and {coins} {} for gas", at.coin));
    output::line(format!("escrow       {} USDC at {}", held.balance, at.facts.escrow));
    if held.locked > Usdc::ZERO {
        output::line(format!("locked       {} USDC, for providers who had it locked", held.locked));
    }
    if held.exiting > Usdc::ZERO {
        let now = last.time;
        let when = if held.exit_at <= now {
            "can be withdrawn now".to_owned()
        } else {
            format!("can be withdrawn in {}", show::seconds(held.exit_at.0 - now.0))
        };
        output::line(format!("asked back   {} USDC, {when}", held.exiting));
    }
    if held.daily_cap > Usdc::ZERO {
        output::line(format!("daily cap    {} USDC", held.daily_cap));
    }
    for (key, until) in named {
        output::line(format!("key          {key} {}", word(until)));
    }
    if blocked == Some(true) {
        output::line("blocked      the token's issuer has blocked this account; it can move no USDC");
    }
    Ok(())
}

fn keys(given: &[String], escrow: &AtEscrow) -> anyhow::Result<Vec<Address>> {
    if given.is_empty() {
        return Ok(reach::gateway(escrow).and_then(|folder| reach::gateway_key(&folder)).into_iter().collect());
    }
    given.iter().map(|text| roles::address("--spending-key", text)).collect()
}

fn word(until: UnixSeconds) -> &'static str {
    match until {
        UnixSeconds(0) => "not named",
        FOREVER => "may spend",
        _ => "revoked",
    }
}
