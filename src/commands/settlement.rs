//! `orien settlement grant` and its siblings: what an operator asks of a settlement, through its door while it runs, and in its data directory while it does not.

use std::path::Path;

use anyhow::{Context, bail};
use orien_bootstrap::{DoorFile, RoleName};
use orien_protocol::money::Usdc;
use orien_settlement::books::Grant;
use orien_settlement::offline::OfflineDesk;
use serde_json::{Value, json};

use crate::cli::{AtSettlement, SettlementCommand};
use crate::client::{Client, fresh_key};
use crate::show::settlement as show;
use crate::{output, roles};

pub(crate) fn run(command: SettlementCommand) -> anyhow::Result<()> {
    match command {
        SettlementCommand::Grant { account, amount, spending_key, daily_cap, key, at } => {
            let grant = Grant {
                account: roles::address("account", &account)?,
                amount: usdc("amount", &amount)?,
                spending_key: spending_key.map(|text| roles::address("--spending-key", &text)).transpose()?,
                daily_cap: daily_cap.map(|text| usdc("--daily-cap", &text)).transpose()?,
            };
            make_grant(&grant, key, &at)
        }
        // Scripts can tell its failures apart, so it is carried out elsewhere.
        SettlementCommand::Deploy(args) => super::deploy::run(&args),
        SettlementCommand::Account { account, at } => show_account(&account, &at),
        SettlementCommand::Ledger { at } => print(&running(&at)?.get("/api/ledger")?, &at),
        SettlementCommand::Status { at } => status(&at),
        SettlementCommand::Reconcile { clear, at } => reconcile(clear, &at),
        SettlementCommand::Transactions { at } => transactions(&at),
        SettlementCommand::Batch { at } => make_batch(&at),
        SettlementCommand::Batches { id: None, at } => list(&running(&at)?.get("/api/batches")?, "batches", show::batches, &at),
        SettlementCommand::Batches { id: Some(id), at } => output::json(&running(&at)?.get(&format!("/api/batches/{id}"))?),
        SettlementCommand::Payouts { csv, export: false, at, .. } => payouts(csv, &at),
        SettlementCommand::Payouts { csv, export: true, key, at } => export(csv, key, &at),
    }
}

/// Rows asked for at once.
const PAGE: usize = 100;

/// The door of the settlement, or why there is none.
fn running(at: &AtSettlement) -> anyhow::Result<Client> {
    let folder = roles::home_of(RoleName::Settlement, at.data_dir.as_deref())?;
    match door(&folder)? {
        Some(client) => Ok(client),
        None => bail!("settlement does not run in {}; start it with: orien settlement --data-dir {}", folder.display(), folder.display()),
    }
}

fn door(folder: &Path) -> anyhow::Result<Option<Client>> {
    let Ok(file) = DoorFile::read(folder) else { return Ok(None) };
    let client = Client::open(file.address, &file.token_file)?;
    // A door file can outlive its process.
    Ok(client.get("/health").is_ok().then_some(client))
}

fn offline(at: &AtSettlement) -> anyhow::Result<OfflineDesk> {
    Ok(OfflineDesk::open(&roles::home_of(RoleName::Settlement, at.data_dir.as_deref())?)?)
}

fn usdc(what: &str, text: &str) -> anyhow::Result<Usdc> {
    text.parse().with_context(|| format!("{what} `{text}`"))
}

fn make_grant(grant: &Grant, key: Option<String>, at: &AtSettlement) -> anyhow::Result<()> {
    let key = key.map_or_else(fresh_key, Ok)?;
    let folder = roles::home_of(RoleName::Settlement, at.data_dir.as_deref())?;
    let account = grant.account.to_string();
    let answer = match door(&folder)? {
        Some(client) => {
            let mut body = json!({ "account": account, "amount": grant.amount.to_string() });
            if let Some(spending) = grant.spending_key {
                body["spendingKey"] = json!(spending.to_string());
            }
            if let Some(cap) = grant.daily_cap {
                body["dailyCap"] = json!(cap.to_string());
            }
            client.post("/api/grants", &body, Some(&key))?
        }
        None => funds(&account, &offline(at)?.grant(&key, grant)?),
    };
    print(&answer, at)
}

fn show_account(account: &str, at: &AtSettlement) -> anyhow::Result<()> {
    let address = roles::address("account", account)?;
    let folder = roles::home_of(RoleName::Settlement, at.data_dir.as_deref())?;
    let answer = match door(&folder)? {
        Some(client) => client.get(&format!("/api/accounts/{address}"))?,
        None => funds(&address.to_string(), &offline(at)?.balance(&address)?),
    };
    print(&answer, at)
}

fn funds(account: &str, funds: &orien_protocol::frame::Funds) -> Value {
    json!({
        "account": account, "rail": "ledger", "funded": funds.funded.to_string(), "reserved": funds.reserved.to_string(),
        "redeemed": funds.redeemed.to_string(), "available": funds.available.to_string(),
    })
}

fn make_batch(at: &AtSettlement) -> anyhow::Result<()> {
    let folder = roles::home_of(RoleName::Settlement, at.data_dir.as_deref())?;
    let answer = match door(&folder)? {
        Some(client) => client.post("/api/batches", &json!({}), None)?,
        None => json!({ "id": offline(at)?.batch()?.map(|id| id.to_string()) }),
    };
    print(&answer, at)
}

/// How it is: the chain's part where there is one, else the sums of the ledger.
fn status(at: &AtSettlement) -> anyhow::Result<()> {
    let client = running(at)?;
    if !client.get("/health")?["chain"].is_string() {
        return print(&client.get("/api/ledger")?, at);
    }
    let status = client.get("/api/chain")?;
    if at.json {
        return output::json(&status);
    }
    show::chain(&status);
    Ok(())
}

fn reconcile(clear: bool, at: &AtSettlement) -> anyhow::Result<()> {
    let found = running(at)?.post("/api/reconcile", &json!({ "clearHalts": clear }), Some(&fresh_key()?))?;
    if at.json {
        output::json(&found)?;
    } else {
        show::comparison(&found);
    }
    if found["same"] == json!(true) { Ok(()) } else { bail!("books and chain differ: settlement is halted until you have looked") }
}

/// All transactions, page by page.
fn transactions(at: &AtSettlement) -> anyhow::Result<()> {
    let client = running(at)?;
    let (mut all, mut before): (Vec<Value>, String) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/api/transactions?limit={PAGE}{before}"))?;
        all.extend(page["transactions"].as_array().cloned().unwrap_or_default());
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    list(&json!({ "transactions": all }), "transactions", show::transactions, at)
}

/// All payouts, page by page.
fn payouts(csv: bool, at: &AtSettlement) -> anyhow::Result<()> {
    let client = running(at)?;
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().and_then(|payout| payout["id"].as_str()).map(|id| format!("&after={id}")).unwrap_or_default();
        let page = client.get(&format!("/api/payouts?limit={PAGE}{after}"))?;
        if csv {
            let text = client.text(&format!("/api/payouts?format=csv&limit={PAGE}{after}"))?;
            // One heading for all pages.
            text.lines().skip(usize::from(!all.is_empty())).for_each(output::line);
        }
        let rows = page["payouts"].as_array().cloned().unwrap_or_default();
        let last = rows.len() < PAGE;
        all.extend(rows);
        if last {
            break;
        }
    }
    if csv {
        return Ok(());
    }
    list(&json!({ "payouts": all }), "payouts", show::payouts, at)?;
    // On a chain, what will not become a payout by itself belongs beside those that did.
    match client.get("/api/chain") {
        Ok(status) if !at.json => show::parked(&status),
        _ => {}
    }
    Ok(())
}

fn export(csv: bool, key: Option<String>, at: &AtSettlement) -> anyhow::Result<()> {
    let (client, key) = (running(at)?, key.map_or_else(fresh_key, Ok)?);
    let exported = client.post("/api/payouts/export", &json!({}), Some(&key))?;
    output::note(format!("marked as exported; the same payouts again: --export --key {key}"));
    if !csv {
        return list(&exported, "payouts", show::payouts, at);
    }
    output::line(client.post_text("/api/payouts/export?format=csv", &json!({}), &key)?.trim_end());
    Ok(())
}

/// A list below a name: JSON when asked for, otherwise a table.
fn list(value: &Value, name: &str, table: impl FnOnce(&Value), at: &AtSettlement) -> anyhow::Result<()> {
    if at.json {
        return output::json(value);
    }
    table(&value[name]);
    Ok(())
}

/// JSON when asked for; otherwise a line per value, and a line per item of a list.
fn print(value: &Value, at: &AtSettlement) -> anyhow::Result<()> {
    if at.json {
        return output::json(value);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Object(facts) => {
            for (name, value) in facts {
                match value {
                    Value::Array(items) => {
                        output::line(format!("{name}: {}", items.len()));
                        items.iter().for_each(|item| output::line(format!("  {}", row(item))));
                    }
                    other => output::line(format!("{name:<16} {}", text(other))),
                }
            }
        }
        other => output::line(text(other)),
    }
    Ok(())
}

fn row(item: &Value) -> String {
    let Some(facts) = item.as_object() else { return item.to_string() };
    let cells = facts.iter().filter(|(_, value)| !value.is_null() && !value.is_object());
    cells
        .map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect::<Vec<_>>()
        .join("  ")
}
