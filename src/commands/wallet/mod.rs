//! `orien wallet`: a funding wallet beside a gateway, and what it does with the escrow.

mod act;
mod deposit;
mod exit;
mod look;

pub(crate) use self::deposit::{Wish, put_in};
use serde_json::json;

use crate::cli::{WalletAt, WalletCommand};
use crate::output;
use crate::wallet::{folder, key};

pub(crate) fn run(command: WalletCommand) -> anyhow::Result<()> {
    match command {
        WalletCommand::New { wallet, json } => new(&wallet, json),
        WalletCommand::Import { from, from_password_file, wallet, json } => {
            key::refuse_existing(&folder::keystore_in(&folder::place(wallet.wallet.as_deref())?))?;
            let secret = key::secret_of(&from, from_password_file.as_deref(), "the keystore that is imported")?;
            made(&wallet, &secret, json)
        }
        WalletCommand::Address { wallet, json } => {
            let address = key::address(&wallet)?;
            if json {
                return output::json(&json!({ "address": address.to_string() }));
            }
            output::line(address);
            Ok(())
        }
        other => super::runtime()?.block_on(at_the_chain(other)),
    }
}

async fn at_the_chain(command: WalletCommand) -> anyhow::Result<()> {
    match command {
        WalletCommand::New { .. } | WalletCommand::Import { .. } | WalletCommand::Address { .. } => Ok(()),
        WalletCommand::Balance { account, spending_key, escrow, wallet, json } => {
            look::balance(account.as_deref(), &spending_key, &escrow, &wallet, json).await
        }
        WalletCommand::Deposit { amount, spending_key, offline, valid_for, acting } => {
            let wish = deposit::Wish { amount, spending_key, valid_for };
            if offline { deposit::offline(&wish, &acting).await } else { deposit::online(&wish, &acting).await }
        }
        WalletCommand::Relay { document, acting } => deposit::relay(&document, &acting).await,
        WalletCommand::RequestExit { amount, acting } => exit::request(&amount, &acting).await,
        WalletCommand::CancelExit { acting } => exit::cancel(&acting).await,
        WalletCommand::Withdraw { amount, acting } => exit::withdraw(amount.as_deref(), &acting).await,
        WalletCommand::Authorize { spending_key, acting } => exit::authorize(spending_key.as_deref(), &acting).await,
        WalletCommand::Revoke { spending_key, acting } => exit::revoke(&spending_key, &acting).await,
        WalletCommand::Cap { amount, acting } => exit::cap(&amount, &acting).await,
    }
}

fn new(wallet: &WalletAt, as_json: bool) -> anyhow::Result<()> {
    key::refuse_existing(&folder::keystore_in(&folder::place(wallet.wallet.as_deref())?))?;
    made(wallet, &*orien_bootstrap::secrets::new_money_secret()?, as_json)
}

fn made(wallet: &WalletAt, secret: &[u8; 32], as_json: bool) -> anyhow::Result<()> {
    let (address, path) = key::put_away(wallet, secret)?;
    if as_json {
        return output::json(&json!({ "address": address.to_string(), "keystore": path }));
    }
    output::line(format!("address   {address}"));
    output::line(format!("keystore  {}", path.display()));
    output::line(
        "next      keep a copy of the keystore and its password apart from this machine; send USDC and a little for gas to the address; then: orien wallet deposit AMOUNT",
    );
    Ok(())
}
