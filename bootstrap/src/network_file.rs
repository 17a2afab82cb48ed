//! Which network a peer belongs to: `network.toml`, the one file that all peers of a network share.
//!
//! The network id is derived from what defines the network (its name, settlement and chain), so two networks never share one by accident and an edited
//! file is another network, not a confused one. Bootstrap peers and addresses are hints and not part of it.
//!
//! It does not know how peers are reached or how money moves.

mod chain;

use std::path::{Path, PathBuf};

use orien_chain::{ChainFacts, RpcUrl};
use orien_protocol::network::{NETWORK_ID_LIMIT, NetworkId};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::money_key::LEDGER_CHAIN_ID;
use orien_protocol::signing::{Address, MoneyDomain};
use orien_protocol::time::Millis;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::chain::NetworkChain;
use self::chain::{ChainText, Rail};
use crate::files::{self, FileError};

/// Largest network file; a full one with every address has about 10 KiB.
const FILE_LIMIT: u64 = 64 * 1024;

/// Most bootstrap peers, and most addresses of settlement; more are never tried.
const ADDRESSES_LIMIT: usize = 32;

/// Longest address text; a DNS name has at most 253 characters.
const ADDRESS_LIMIT: usize = 512;

/// Longest name: the derived id adds a dash and 16 digits.
const NAME_LIMIT: usize = NETWORK_ID_LIMIT - 17;

/// Usual time between asking for an exit and getting it.
const EXIT_DELAY_SECONDS: u64 = 86_400;

/// Longest such time, a year: whoever has to wait longer for funds has lost them.
const EXIT_DELAY_MAX_SECONDS: u64 = 366 * 86_400;

/// Why a text or file does not describe a network.
#[derive(Debug, Error)]
pub enum NetworkFileError {
    /// It is not there.
    #[error("there is no network file {}; copy the network.toml of the network to join to that place", path.display())]
    Absent {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not the TOML that was expected; the message names the line.
    #[error("{} is not a network file: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        reason: String,
    },
    /// A field makes no sense.
    #[error("{field} of the network: {reason}")]
    Field {
        /// Which field, as it is written in the file.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkText {
    name: String,
    #[serde(default)]
    bootstrap: Vec<String>,
    settlement: SettlementText,
    chain: ChainText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettlementText {
    peer: String,
    signer: String,
    #[serde(default)]
    addresses: Vec<String>,
}

/// The peer that reserves and settles in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Its network identity.
    pub peer: PeerId,
    /// The address of the key that signs its allowances.
    pub signer: Address,
    /// Where to dial it; may be empty when bootstrap peers know it.
    pub addresses: Vec<String>,
}

/// A network, as all its peers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    name: String,
    id: NetworkId,
    settlement: Settlement,
    rail: Rail,
    exit_delay: Millis,
    finality_lag: Millis,
    bootstrap: Vec<String>,
    introducers: Vec<PeerId>,
}

impl Network {
    /// A network on the ledger rail, with the usual exit delay and no finality lag.
    pub fn new_ledger(name: &str, settlement: Settlement, bootstrap: Vec<String>) -> Result<Self, NetworkFileError> {
        Self::build(name, settlement, Rail::Ledger, Millis::from_secs(EXIT_DELAY_SECONDS), Millis(0), bootstrap)
    }

    /// A network whose money is on a chain. The exit delay is the escrow's own; the finality lag says how far the block that stays is behind at most.
    pub fn new_evm(
        name: &str,
        settlement: Settlement,
        chain: NetworkChain,
        exit_delay: Millis,
        finality_lag: Millis,
        bootstrap: Vec<String>,
    ) -> Result<Self, NetworkFileError> {
        Self::build(name, settlement, Rail::Evm(chain), exit_delay, finality_lag, bootstrap)
    }

    /// Reads a network file.
    pub fn load(path: &Path) -> Result<Self, NetworkFileError> {
        match files::read(path, FILE_LIMIT) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.is_absent() => Err(NetworkFileError::Absent { path: path.to_owned() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the text of a network file; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, NetworkFileError> {
        let text: NetworkText = toml::from_str(text)
            .map_err(|error| NetworkFileError::Malformed { path: path.to_owned(), reason: error.to_string().trim_end().to_owned() })?;
        let (rail, exit, lag) = text.chain.read()?;
        let settlement = Settlement {
            peer: text.settlement.peer.parse().map_err(|error| field("settlement.peer", error))?,
            signer: text.settlement.signer.parse().map_err(|error| field("settlement.signer", error))?,
            addresses: text.settlement.addresses,
        };
        Self::build(&text.name, settlement, rail, exit, lag, text.bootstrap)
    }

    fn build(
        name: &str,
        settlement: Settlement,
        rail: Rail,
        exit_delay: Millis,
        finality_lag: Millis,
        bootstrap: Vec<String>,
    ) -> Result<Self, NetworkFileError> {
        if name.len() > NAME_LIMIT {
            return Err(field("name", format_args!("longer than {NAME_LIMIT} characters")));
        }
        if exit_delay <= finality_lag {
            return Err(field("chain.exit_delay_seconds", "must be longer than finality_lag_seconds"));
        }
        if exit_delay > Millis::from_secs(EXIT_DELAY_MAX_SECONDS) {
            return Err(field("chain.exit_delay_seconds", format_args!("more than {EXIT_DELAY_MAX_SECONDS}")));
        }
        rail.check(exit_delay)?;
        check_addresses("settlement.addresses", &settlement.addresses)?;
        check_addresses("bootstrap", &bootstrap)?;
        let introducers = introducers(&bootstrap)?;
        // The ledger's escrow address is itself derived from this id, so the zero address stands for it here.
        let (chain_id, escrow) =
            rail.chain().map_or((LEDGER_CHAIN_ID, Address::default()), |chain| (chain.facts.chain_id, chain.facts.escrow));
        let mut parameters = settlement.peer.as_bytes().to_vec();
        parameters.extend_from_slice(settlement.signer.as_bytes());
        parameters.extend_from_slice(&chain_id.to_be_bytes());
        parameters.extend_from_slice(escrow.as_bytes());
        let id = NetworkId::derive(name, &parameters).map_err(|error| field("name", error))?;
        Ok(Self { name: name.to_owned(), id, settlement, rail, exit_delay, finality_lag, bootstrap, introducers })
    }

    /// The same network with more peers to introduce us; addresses already there are not repeated.
    pub fn with_bootstrap(self, more: &[String]) -> Result<Self, NetworkFileError> {
        let mut bootstrap = self.bootstrap;
        bootstrap.extend(more.iter().filter(|address| !bootstrap.contains(address)).cloned().collect::<Vec<_>>());
        Self::build(&self.name, self.settlement, self.rail, self.exit_delay, self.finality_lag, bootstrap)
    }

    /// Writes the network file (0600), replacing one that is there.
    pub fn save(&self, path: &Path) -> Result<(), NetworkFileError> {
        Ok(files::replace(path, self.to_text()?.as_bytes())?)
    }

    /// The text of the network file.
    pub fn to_text(&self) -> Result<String, NetworkFileError> {
        let text = NetworkText {
            name: self.name.clone(),
            bootstrap: self.bootstrap.clone(),
            settlement: SettlementText {
                peer: self.settlement.peer.to_string(),
                signer: self.settlement.signer.to_string(),
                addresses: self.settlement.addresses.clone(),
            },
            chain: ChainText::of(&self.rail, self.exit_delay, self.finality_lag),
        };
        toml::to_string(&text).map_err(|error| field("the text", error))
    }

    /// The id: in every protocol name and every signature.
    pub fn id(&self) -> &NetworkId {
        &self.id
    }

    /// The name for people; the id starts with it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The domain of money statements.
    pub fn domain(&self) -> MoneyDomain {
        match self.chain() {
            Some(facts) => facts.domain(),
            None => MoneyDomain::ledger(self.id.as_str(), &self.settlement.signer),
        }
    }

    /// Where the money is; nothing when it is the operator's credit.
    pub fn chain(&self) -> Option<&ChainFacts> {
        self.rail.chain().map(|chain| &chain.facts)
    }

    /// Nodes of the chain that the file names, for those who have none of their own.
    pub fn rpc(&self) -> &[RpcUrl] {
        self.rail.chain().map_or(&[], |chain| &chain.rpc)
    }

    /// Who settles.
    pub fn settlement(&self) -> &Settlement {
        &self.settlement
    }

    /// Time between asking for an exit of funds and getting it.
    pub fn exit_delay(&self) -> Millis {
        self.exit_delay
    }

    /// How far the final chain state lags behind.
    pub fn finality_lag(&self) -> Millis {
        self.finality_lag
    }

    /// Addresses of peers that introduce us, each ending in `/p2p/<peer id>`.
    pub fn bootstrap(&self) -> &[String] {
        &self.bootstrap
    }

    /// Who the bootstrap peers are.
    pub fn introducers(&self) -> &[PeerId] {
        &self.introducers
    }
}

fn field(field: &'static str, reason: impl std::fmt::Display) -> NetworkFileError {
    NetworkFileError::Field { field, reason: reason.to_string() }
}

fn check_addresses(name: &'static str, addresses: &[String]) -> Result<(), NetworkFileError> {
    if addresses.len() > ADDRESSES_LIMIT {
        return Err(field(name, format_args!("more than {ADDRESSES_LIMIT} addresses")));
    }
    for address in addresses {
        let plain = address.len() <= ADDRESS_LIMIT && address.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || !address.starts_with('/') {
            let shown: String = address.chars().take(80).flat_map(char::escape_debug).collect();
            return Err(field(name, format_args!("`{shown}` is not an address such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...")));
        }
    }
    Ok(())
}

/// The peer at the end of each bootstrap address, each once.
fn introducers(bootstrap: &[String]) -> Result<Vec<PeerId>, NetworkFileError> {
    let mut peers = Vec::new();
    for address in bootstrap {
        let Some((_, id)) = address.rsplit_once("/p2p/") else {
            return Err(field("bootstrap", format_args!("`{address}` does not end in /p2p/ and the id of the peer")));
        };
        let peer = id.parse().map_err(|error| field("bootstrap", error))?;
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settlement() -> Settlement {
        Settlement {
            peer: PeerId::from_bytes([3; 32]),
            signer: Address::from_bytes([4; 20]),
            addresses: vec!["/ip4/127.0.0.1/tcp/9".to_owned()],
        }
    }

    fn address(byte: u8) -> String {
        format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", PeerId::from_bytes([byte; 32]))
    }

    fn network() -> Network {
        Network::new_ledger("dev", settlement(), vec![address(5)]).unwrap()
    }

    fn refused(text: &str) -> String {
        Network::parse(text, Path::new("network.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_network_comes_back_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.toml");
        network().save(&path).unwrap();
        let read = Network::load(&path).unwrap();
        assert_eq!(read, network());
        assert_eq!(read.introducers(), [PeerId::from_bytes([5; 32])]);
        assert!(read.id().as_str().starts_with("dev-") && read.domain().is_ledger());
        assert_eq!(read.exit_delay(), Millis::from_secs(86_400));
    }

    #[test]
    fn the_id_follows_settlement_and_name_and_nothing_else() {
        let other_peer = Settlement { peer: PeerId::from_bytes([9; 32]), ..settlement() };
        let other_signer = Settlement { signer: Address::from_bytes([9; 20]), ..settlement() };
        let elsewhere = Settlement { addresses: vec![], ..settlement() };
        let id = |name, settlement| Network::new_ledger(name, settlement, vec![]).unwrap().id().clone();
        assert_eq!(id("dev", elsewhere), *network().id());
        for other in [id("dev", other_peer), id("dev", other_signer), id("test", settlement())] {
            assert_ne!(other, *network().id());
        }
    }

    #[test]
    fn added_bootstrap_peers_keep_the_network_and_are_not_repeated() {
        let more = network().with_bootstrap(&[address(5), address(6)]).unwrap();
        assert_eq!(more.id(), network().id());
        assert_eq!(more.bootstrap(), [address(5), address(6)]);
    }

    #[test]
    fn unknown_fields_wrong_types_and_bad_syntax_name_their_line() {
        let good = network().to_text().unwrap();
        let unknown = refused(&format!("{good}rial = \"ledger\"\n"));
        assert!(unknown.contains("unknown field `rial`") && unknown.contains("line 13"), "{unknown}");
        let wrong = refused(&good.replace("exit_delay_seconds = 86400", "exit_delay_seconds = \"a day\""));
        assert!(wrong.contains("line 11") && wrong.contains("invalid type"), "{wrong}");
        assert!(refused("name = ").contains("line 1"));
        assert!(refused("name = \"dev\"").contains("settlement"));
    }

    #[test]
    fn each_senseless_field_is_named() {
        let good = network().to_text().unwrap();
        let cases = [
            (good.replace("\"ledger\"", "\"evm\""), "chain.id"),
            (good.replace("\"ledger\"", "\"paper\""), "chain.rail"),
            (good.replace("\"dev\"", "\"Dev!\""), "name of the network"),
            (good.replace("\"dev\"", &format!("\"{}\"", "d".repeat(40))), "longer than"),
            (good.replace("12D3", "12D4"), "peer id"),
            (good.replace("0x", "0y"), "settlement.signer"),
            (good.replace("/ip4/127.0.0.1/tcp/9", "127.0.0.1:9"), "settlement.addresses"),
            (good.replace("/p2p/", "/p3p/"), "bootstrap"),
            (good.replace("exit_delay_seconds = 86400", "exit_delay_seconds = 0"), "exit_delay_seconds"),
            (good.replace("exit_delay_seconds = 86400", "exit_delay_seconds = 9223372036854775807"), "exit_delay_seconds"),
        ];
        for (text, expected) in cases {
            assert!(refused(&text).contains(expected), "{expected}: {}", refused(&text));
        }
    }

    #[test]
    fn an_absent_or_endless_file_is_a_clear_error() {
        assert!(Network::load(Path::new("/nowhere/network.toml")).unwrap_err().to_string().contains("/nowhere/network.toml"));
        assert!(matches!(Network::load(Path::new("/dev/zero")), Err(NetworkFileError::File(FileError::NotAFile { .. }))));
    }
}
