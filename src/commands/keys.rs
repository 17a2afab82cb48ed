//! `orien keys`: the public side of a data directory's keys. Works while the role runs and never shows a secret.

use std::path::Path;

use anyhow::Context;
use orien_protocol::signing::{MoneyKey, PeerKey};
use serde::Serialize;

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
    let money = MoneyKey::from_bytes(&secret(&data_dir.join("money.key"))?)?;
    Ok(PublicKeys { peer_id: PeerKey::from_seed(&seed).id().to_string(), money_address: money.address().to_string() })
}

fn secret(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("no key at {}; make one with `orien init`", path.display()))?;
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
