//! The part of a network file that says where money is: credit of the operator, or a token in an escrow on a chain.
//!
//! Always true: what a preset says is not said differently beside it; a field of the other rail is an error and not ignored.

use orien_chain::{ChainFacts, Finality, Preset, RpcUrl};
use orien_protocol::signing::money_key::LEDGER_CHAIN_ID;
use orien_protocol::signing::{Address, ParseAddressError};
use orien_protocol::time::Millis;
use serde::{Deserialize, Serialize};

use super::{EXIT_DELAY_SECONDS, NetworkFileError, field};

/// Most nodes that a file may name; more are never asked.
const RPC_LIMIT: usize = 8;

/// Shortest and longest exit delay that the escrow can be deployed with.
const EVM_EXIT_DELAY_SECONDS: std::ops::RangeInclusive<u64> = 3_600..=30 * 86_400;

/// How far the block that stays is behind, where neither file nor preset says it: what Ethereum and the chains on it need, with some to spare.
const FINALIZED_LAG_SECONDS: u64 = 1_800;
const SAFE_LAG_SECONDS: u64 = 900;
const LATEST_LAG_SECONDS: u64 = 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChainText {
    rail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow_block: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rpc: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finality: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_delay_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finality_lag_seconds: Option<u64>,
}

/// Where a network's money is, and how its chain is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkChain {
    /// Chain, escrow and token.
    pub facts: ChainFacts,
    /// The preset that the file names.
    pub preset: Option<&'static Preset>,
    /// Nodes, as hints.
    pub rpc: Vec<RpcUrl>,
}

/// The two ways for money to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rail {
    /// Credit that the operator grants.
    Ledger,
    /// A token in an escrow.
    Evm(NetworkChain),
}

impl Rail {
    pub(super) const fn chain(&self) -> Option<&NetworkChain> {
        match self {
            Self::Ledger => None,
            Self::Evm(chain) => Some(chain),
        }
    }

    /// Refuses what cannot be, whether it was read or made.
    pub(super) fn check(&self, exit_delay: Millis) -> Result<(), NetworkFileError> {
        let Some(NetworkChain { facts, preset, rpc }) = self.chain() else { return Ok(()) };
        if facts.chain_id == 0 || facts.chain_id == LEDGER_CHAIN_ID {
            return Err(field("chain.id", format_args!("{} is not the id of a chain", facts.chain_id)));
        }
        if facts.escrow == Address::default() {
            return Err(field("chain.escrow", "the zero address is no contract"));
        }
        if facts.token == Address::default() || facts.token == facts.escrow {
            return Err(field("chain.token", "expected the address of USDC on the chain"));
        }
        if let Some(preset) = preset {
            if facts.chain_id != preset.chain_id {
                return Err(field(
                    "chain.id",
                    format_args!("{} is not {}, the chain of the preset `{}`", facts.chain_id, preset.chain_id, preset.name),
                ));
            }
            if facts.token != preset.token {
                return Err(field(
                    "chain.token",
                    format_args!("{} is not {}, USDC of the preset `{}`", facts.token, preset.token, preset.name),
                ));
            }
        }
        if rpc.len() > RPC_LIMIT {
            return Err(field("chain.rpc", format_args!("more than {RPC_LIMIT} nodes")));
        }
        let (min, max) = (EVM_EXIT_DELAY_SECONDS.start(), EVM_EXIT_DELAY_SECONDS.end());
        if !EVM_EXIT_DELAY_SECONDS.contains(&(exit_delay.0 / 1000)) {
            return Err(field("chain.exit_delay_seconds", format_args!("an escrow has {min} to {max}")));
        }
        Ok(())
    }
}

impl ChainText {
    pub(super) fn of(rail: &Rail, exit_delay: Millis, finality_lag: Millis) -> Self {
        let chain = rail.chain();
        // What a preset says is left to it.
        let own = chain.filter(|chain| chain.preset.is_none());
        let finality = chain.filter(|chain| chain.preset.is_none_or(|preset| preset.finality != chain.facts.finality));
        Self {
            rail: if chain.is_some() { "evm" } else { "ledger" }.to_owned(),
            preset: chain.and_then(|chain| chain.preset).map(|preset| preset.name.to_owned()),
            id: own.map(|chain| chain.facts.chain_id),
            escrow: chain.map(|chain| chain.facts.escrow.to_string()),
            token: own.map(|chain| chain.facts.token.to_string()),
            escrow_block: chain.map(|chain| chain.facts.escrow_block),
            rpc: chain.map(|chain| chain.rpc.iter().map(|url| url.as_str().to_owned()).collect()),
            finality: finality.map(|chain| chain.facts.finality.to_string()),
            exit_delay_seconds: Some(exit_delay.0 / 1000),
            finality_lag_seconds: Some(finality_lag.0 / 1000),
        }
    }

    /// The rail, the exit delay and the finality lag.
    pub(super) fn read(self) -> Result<(Rail, Millis, Millis), NetworkFileError> {
        let exit = Millis::from_secs(self.exit_delay_seconds.unwrap_or(EXIT_DELAY_SECONDS));
        match self.rail.as_str() {
            "ledger" => {
                if let Some(stray) = self.stray() {
                    return Err(field(stray, "belongs to `rail = \"evm\"`, and this is the ledger"));
                }
                Ok((Rail::Ledger, exit, Millis::from_secs(self.finality_lag_seconds.unwrap_or(0))))
            }
            "evm" => {
                let (chain, lag) = self.evm()?;
                Ok((Rail::Evm(chain), exit, lag))
            }
            _ => Err(field("chain.rail", "expected `ledger` or `evm`")),
        }
    }

    /// A field that only means something on a chain.
    fn stray(&self) -> Option<&'static str> {
        let fields = [
            ("chain.preset", self.preset.is_some()),
            ("chain.id", self.id.is_some()),
            ("chain.escrow", self.escrow.is_some()),
            ("chain.token", self.token.is_some()),
            ("chain.escrow_block", self.escrow_block.is_some()),
            ("chain.rpc", self.rpc.is_some()),
            ("chain.finality", self.finality.is_some()),
        ];
        fields.iter().find(|(_, present)| *present).map(|(name, _)| *name)
    }

    fn evm(self) -> Result<(NetworkChain, Millis), NetworkFileError> {
        let preset = match &self.preset {
            None => None,
            Some(name) => {
                let unknown = || {
                    field(
                        "chain.preset",
                        format_args!("expected one of {}; for another chain give id, token and finality instead", Preset::names()),
                    )
                };
                Some(Preset::named(name).ok_or_else(unknown)?)
            }
        };
        let without = |what: &'static str| move || field(what, "is missing; it is required without a preset");
        let chain_id = self.id.or_else(|| preset.map(|preset| preset.chain_id)).ok_or_else(without("chain.id"))?;
        let token = match (&self.token, preset) {
            (Some(text), _) => address("chain.token", text)?,
            (None, Some(preset)) => preset.token,
            (None, None) => return Err(without("chain.token")()),
        };
        let finality = match (&self.finality, preset) {
            (Some(text), _) => text.parse().map_err(|error| field("chain.finality", error))?,
            (None, Some(preset)) => preset.finality,
            (None, None) => return Err(without("chain.finality")()),
        };
        let escrow = self.escrow.ok_or_else(|| field("chain.escrow", "is missing; the operator of the network knows it"))?;
        let escrow = address("chain.escrow", &escrow)?;
        let escrow_block =
            self.escrow_block.ok_or_else(|| field("chain.escrow_block", "is missing; it is the block that the escrow was deployed in"))?;
        let urls = self.rpc.unwrap_or_default();
        let rpc = urls.iter().map(|url| url.parse().map_err(|error| field("chain.rpc", error))).collect::<Result<Vec<_>, _>>()?;
        let usual =
            preset.filter(|preset| preset.finality == finality).map_or_else(|| usual_lag(finality), |preset| preset.finality_lag_seconds);
        let lag = Millis::from_secs(self.finality_lag_seconds.unwrap_or(usual));
        Ok((NetworkChain { facts: ChainFacts { chain_id, escrow, token, escrow_block, finality }, preset, rpc }, lag))
    }
}

const fn usual_lag(finality: Finality) -> u64 {
    match finality {
        Finality::Finalized => FINALIZED_LAG_SECONDS,
        Finality::Safe => SAFE_LAG_SECONDS,
        Finality::Latest => LATEST_LAG_SECONDS,
    }
}

fn address(name: &'static str, text: &str) -> Result<Address, NetworkFileError> {
    text.parse().map_err(|error: ParseAddressError| field(name, error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use orien_protocol::peer::PeerId;
    use orien_protocol::signing::MoneyDomain;

    use super::super::{Network, Settlement};
    use super::*;

    const ESCROW: &str = "0x1111111111111111111111111111111111111111";
    const TOKEN: &str = "0x2222222222222222222222222222222222222222";

    /// A network file with these lines about its chain.
    fn text(chain: &str) -> String {
        let settlement = Settlement { peer: PeerId::from_bytes([3; 32]), signer: Address::from_bytes([4; 20]), addresses: vec![] };
        let ledger = Network::new_ledger("dev", settlement, vec![]).unwrap().to_text().unwrap();
        format!("{}[chain]\n{chain}", ledger.split("[chain]").next().unwrap())
    }

    fn read(chain: &str) -> Result<Network, String> {
        Network::parse(&text(chain), Path::new("network.toml")).map_err(|error| error.to_string())
    }

    fn plain() -> String {
        format!(
            "rail = \"evm\"\nid = 31337\nescrow = \"{ESCROW}\"\ntoken = \"{TOKEN}\"\nescrow_block = 12\nfinality = \"safe\"\nrpc = [\"http://127.0.0.1:8545\"]\n"
        )
    }

    #[test]
    fn a_network_on_a_chain_comes_back_from_its_file() {
        let network = read(&plain()).unwrap();
        let facts = network.chain().unwrap();
        assert_eq!((facts.chain_id, facts.escrow_block, facts.finality), (31_337, 12, Finality::Safe));
        assert_eq!(network.domain(), MoneyDomain { chain_id: 31_337, escrow: ESCROW.parse().unwrap() });
        assert!(!network.domain().is_ledger());
        assert_eq!(network.rpc().len(), 1);
        assert_eq!((network.exit_delay(), network.finality_lag()), (Millis::from_secs(86_400), Millis::from_secs(900)));
        let again = Network::parse(&network.to_text().unwrap(), Path::new("network.toml")).unwrap();
        assert_eq!(again, network);
    }

    #[test]
    fn a_preset_says_chain_token_and_finality_and_what_it_says_is_not_repeated_in_the_file() {
        let network = read(&format!("rail = \"evm\"\npreset = \"base-sepolia\"\nescrow = \"{ESCROW}\"\nescrow_block = 7\n")).unwrap();
        let facts = network.chain().unwrap();
        assert_eq!((facts.chain_id, facts.finality), (84_532, Finality::Finalized));
        assert_eq!(facts.token.to_string(), "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
        let written = network.to_text().unwrap();
        assert!(written.contains("preset") && !written.contains("token") && !written.contains("finality ="), "{written}");
        assert_eq!(Network::parse(&written, Path::new("network.toml")).unwrap(), network);
        let safe =
            read(&format!("rail = \"evm\"\npreset = \"base\"\nescrow = \"{ESCROW}\"\nescrow_block = 7\nfinality = \"safe\"\n")).unwrap();
        assert_eq!((safe.chain().unwrap().finality, safe.finality_lag()), (Finality::Safe, Millis::from_secs(900)));
        assert_eq!(Network::parse(&safe.to_text().unwrap(), Path::new("network.toml")).unwrap(), safe);
    }

    #[test]
    fn the_id_follows_chain_and_escrow_and_not_the_nodes() {
        let id = |text: &str| read(text).unwrap().id().clone();
        let here = id(&plain());
        assert_eq!(id(&plain().replace("8545", "9999")), here);
        assert_eq!(id(&plain().replace("\"safe\"", "\"latest\"")), here);
        assert_ne!(id(&plain().replace("31337", "31338")), here);
        assert_ne!(id(&plain().replace("0x1111", "0x1211")), here);
        assert_ne!(id("rail = \"ledger\"\n"), here);
    }

    #[test]
    fn each_senseless_or_missing_field_is_named() {
        let preset = format!("rail = \"evm\"\npreset = \"base\"\nescrow = \"{ESCROW}\"\nescrow_block = 7\n");
        let without = |name: &str| plain().lines().filter(|line| !line.starts_with(&format!("{name} ="))).collect::<Vec<_>>().join("\n");
        let cases = [
            (without("id"), "chain.id"),
            (without("escrow"), "chain.escrow"),
            (without("token"), "chain.token"),
            (without("escrow_block"), "chain.escrow_block"),
            (without("finality"), "chain.finality"),
            (plain().replace("31337", "0"), "chain.id"),
            (plain().replace("31337", &LEDGER_CHAIN_ID.to_string()), "chain.id"),
            (plain().replace("31337", "\"31337\""), "line"),
            (plain().replace("\"safe\"", "\"soon\""), "chain.finality"),
            (plain().replace("http://127", "wss://127"), "chain.rpc"),
            (plain().replace("0x1111", "0x11"), "chain.escrow"),
            (plain().replace(ESCROW, &Address::default().to_string()), "chain.escrow"),
            (plain().replace(TOKEN, ESCROW), "chain.token"),
            (plain() + "gas = 1\n", "unknown field `gas`"),
            (plain() + "exit_delay_seconds = 60\n", "chain.exit_delay_seconds"),
            (plain() + "exit_delay_seconds = 2600000\n", "chain.exit_delay_seconds"),
            (plain() + "exit_delay_seconds = 3600\nfinality_lag_seconds = 3600\n", "chain.exit_delay_seconds"),
            (preset.clone() + "id = 1\n", "chain of the preset `base`"),
            (preset.clone() + &format!("token = \"{TOKEN}\"\n"), "USDC of the preset `base`"),
            (preset.replace("\"base\"", "\"mainnet\""), "arc, arc-testnet, base"),
            (format!("rail = \"ledger\"\nescrow = \"{ESCROW}\"\n"), "chain.escrow"),
            ("rail = \"ledger\"\nrpc = []\n".to_owned(), "chain.rpc"),
        ];
        for (chain, expected) in cases {
            let refused = read(&chain).unwrap_err();
            assert!(refused.contains(expected), "{chain}\nexpected {expected}: {refused}");
        }
        let many = format!("rpc = [{}]", (0..9).map(|n| format!("\"http://127.0.0.1:{n}\"")).collect::<Vec<_>>().join(", "));
        assert!(read(&plain().replace("rpc = [\"http://127.0.0.1:8545\"]", &many)).unwrap_err().contains("more than 8"));
    }
}
