//! What is fixed about a network's chain, how a node of it is named, and how much is asked of it at once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use orien_protocol::signing::{Address, MoneyDomain};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::ChainError;

/// Which block of a chain counts as one that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finality {
    /// The newest that the chain's consensus has made final.
    Finalized,
    /// The newest that only a failure of many validators could take back.
    Safe,
    /// The newest: for chains on which every block is final, such as Arc.
    Latest,
}

impl Finality {
    /// The word that nodes and network files use.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Finalized => "finalized",
            Self::Safe => "safe",
            Self::Latest => "latest",
        }
    }
}

impl fmt::Display for Finality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

impl FromStr for Finality {
    type Err = ChainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Finalized, Self::Safe, Self::Latest]
            .into_iter()
            .find(|known| known.tag() == text)
            .ok_or_else(|| ChainError::Config("expected `finalized`, `safe` or `latest`".to_owned()))
    }
}

/// Where a network's money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFacts {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The escrow contract.
    pub escrow: Address,
    /// The token that it holds: USDC.
    pub token: Address,
    /// The block that the escrow was deployed in: nothing happened before it.
    pub escrow_block: u64,
    /// Which block counts as one that stays.
    pub finality: Finality,
}

impl ChainFacts {
    /// The domain of money statements of this network.
    pub const fn domain(&self) -> MoneyDomain {
        MoneyDomain { chain_id: self.chain_id, escrow: self.escrow }
    }
}

/// Longest address of a node; keys in it have up to some hundred characters.
const URL_LIMIT: usize = 2048;

/// The address of a node. It may hold a key, so only its host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl(Url);

impl RpcUrl {
    /// The address itself, for whoever connects or writes a configuration.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Host and port: what errors and pages show.
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or("?");
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Whether it is a node on this machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for RpcUrl {
    type Err = ChainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > URL_LIMIT {
            return Err(ChainError::Config(format!("the address of a node has more than {URL_LIMIT} characters")));
        }
        let url = Url::parse(text)
            .map_err(|error| ChainError::Config(format!("not the address of a node, such as https://host/key: {error}")))?;
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(Self(url)),
            "ws" | "wss" => Err(ChainError::Config("nodes are spoken to by http:// or https://, not by web sockets".to_owned())),
            _ => Err(ChainError::Config("expected the address of a node to begin with http:// or https://".to_owned())),
        }
    }
}

impl fmt::Display for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}

/// How much is asked of nodes at once, and how long they are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLimits {
    /// Longest wait for one answer. A public node under load needs a few seconds for logs.
    pub answer_within: Duration,
    /// Largest answer. Ten thousand logs have about six megabytes.
    pub answer_bytes: usize,
    /// Largest answer about all of one block or one transaction, which nobody can ask for in parts: a transaction of Arbitrum's may use 32 million gas, and that makes ten megabytes of logs.
    pub block_bytes: usize,
    /// Times that one question is put to one node before another is asked.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each.
    pub pause: Duration,
    /// Longest such wait, whatever a node asks for.
    pub pause_max: Duration,
    /// Most questions under way at one node.
    pub in_flight: usize,
    /// How many nodes must agree about what decides; two if there are two, whatever this says, unless it is one.
    pub agree: usize,
    /// Most blocks whose logs are asked for at once; halved when a node wants fewer.
    pub log_blocks: u64,
    /// Most logs that one reading of several blocks may give.
    pub logs: usize,
    /// Most logs that one block may give. The cheapest costs whoever makes it some 2,500 gas, so that a block would need 600 million for more.
    pub block_logs: usize,
    /// Most transactions of a block whose receipts are asked for one by one: the cheapest uses 21,000 gas.
    pub block_transactions: usize,
}

impl Default for ChainLimits {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(10),
            answer_bytes: 8 * 1024 * 1024,
            block_bytes: 32 * 1024 * 1024,
            attempts: 4,
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(8),
            in_flight: 8,
            agree: 2,
            log_blocks: 2_000,
            logs: 100_000,
            block_logs: 250_000,
            block_transactions: 30_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_node_shows_its_host_and_never_its_key() {
        let url: RpcUrl = "https://user:secret@rpc.example/v2/secret?key=secret".parse().unwrap();
        assert_eq!((url.to_string(), format!("{url:?}")), ("rpc.example".to_owned(), "rpc.example".to_owned()));
        assert!(url.as_str().contains("secret"));
        let local: RpcUrl = "http://127.0.0.1:8545".parse().unwrap();
        assert_eq!(local.to_string(), "127.0.0.1:8545");
        assert!(local.is_loopback() && !url.is_loopback());
    }

    #[test]
    fn what_is_no_address_of_a_node_is_refused_with_the_reason() {
        for (text, expected) in
            [("wss://rpc.example", "web sockets"), ("rpc.example", "address of a node"), ("file:///x", "http://"), ("", "address")]
        {
            let error = text.parse::<RpcUrl>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(format!("http://{}", "x".repeat(4000)).parse::<RpcUrl>().is_err());
    }

    #[test]
    fn finality_is_one_of_three_words() {
        for word in ["finalized", "safe", "latest"] {
            assert_eq!(word.parse::<Finality>().unwrap().to_string(), word);
        }
        assert!("pending".parse::<Finality>().is_err());
    }
}
