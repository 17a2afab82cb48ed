//! `orien keys`: the public side of a data directory's keys. Works while the role runs and never shows a secret.

use std::path::Path;

use anyhow::Context;
use orien_bootstrap::secrets;
use orien_chain::keystore;
use orien_protocol::signing::{Address, MoneyKey, PeerKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::KeysArgs;
use crate::output;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublicKeys {
    /// The network identity.
    pub(crate) peer_id: String,
    /// The address of the money key: spending key, claim key or settlement signer.
    pub(crate) money_address: String,
}

/// Reads both keys of a data directory and forgets the secrets.
pub(crate) fn public_keys(data_dir: &Path) -> anyhow::Result<PublicKeys> {
    let seed = secret(&data_dir.join("peer.key"))?;
    Ok(PublicKeys {
        peer_id: PeerKey::from_seed(&seed).id().to_string(),
        money_address: money_address(&data_dir.join("money.key"))?.to_string(),
    })
}

/// The address of a money key; of a locked one as its file says it.
fn money_address(path: &Path) -> anyhow::Result<Address> {
    let text = text(path)?;
    if keystore::is_keystore(&text) {
        return match keystore::address(&text) {
            Some(address) => Ok(address),
            None => Ok(secrets::read_money_key(path)?.address()),
        };
    }
    Ok(MoneyKey::from_bytes(&secret(path)?)?.address())
}

fn text(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let read = std::fs::read_to_string(path).with_context(|| format!("no key at {}; make one with `orien init`", path.display()));
    read.map(Zeroizing::new)
}

fn secret(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = text(path)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).with_context(|| format!("{} is not 64 hexadecimal digits", path.display()))?;
    Ok(bytes)
}

pub(crate) fn run(args: &KeysArgs) -> anyhow::Result<()> {
    let keys = public_keys(&args.data_dir)?;
    if args.json {
        return output::json(&keys);
    }
    output::line(format!("peer id        {}", keys.peer_id));
    output::line(format!("money address  {}", keys.money_address));
    Ok(())
}
