//! The desk for the operator's own commands while the service is not running: grant, balance, batch, export.
//!
//! It holds the data directory's lock, so it never runs beside the service or another command.

use std::path::Path;
use std::sync::Arc;

use orien_bootstrap::clock::{self, NoRandomness};
use orien_bootstrap::{DataDir, Keys, KeysError, Network, NetworkFileError, OpenDataDirError, RoleName};
use orien_protocol::frame::Funds;
use orien_protocol::id::BatchId;
use orien_protocol::signing::{Address, MoneyKey, PeerKey};
use thiserror::Error;

use crate::batch::Payout;
use crate::books::Grant;
use crate::desk::{Desk, DeskError, OpenDeskError};
use crate::house::House;
use crate::rail::{EvmRail, LedgerRail, Rail};

/// Name of the store in the data directory.
pub(crate) const STORE: &str = "settlement";

/// The desk cannot be opened for a command.
#[derive(Debug, Error)]
pub enum OpenOfflineError {
    /// There is no data directory to open.
    #[error("{0} is not a data directory of settlement: start `orien settlement` there once, or name another")]
    NoDirectory(String),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] OpenDataDirError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkFileError),
    /// Network and keys.
    #[error(transparent)]
    NotSettlement(#[from] NotSettlement),
    /// The store.
    #[error(transparent)]
    Desk(#[from] OpenDeskError),
}

/// The network names another settlement than these keys are.
#[derive(Debug, Error)]
#[error(
    "network {network} is settled by peer {named}, whose signer is {named_signer}; the keys here are peer {own} with signer {own_signer}: use the data directory that the network was made with"
)]
pub struct NotSettlement {
    network: String,
    named: String,
    named_signer: Address,
    own: String,
    own_signer: Address,
}

/// The house of a network, if these keys are its settlement's.
pub fn house(network: &Network, peer: &Arc<PeerKey>, money: &Arc<MoneyKey>) -> Result<House, NotSettlement> {
    let named = network.settlement();
    if named.peer != peer.id() || named.signer != money.address() {
        return Err(NotSettlement {
            network: network.id().to_string(),
            named: named.peer.to_string(),
            named_signer: named.signer,
            own: peer.id().to_string(),
            own_signer: money.address(),
        });
    }
    let (lag, delay) = (network.finality_lag(), network.exit_delay());
    Ok(House::new(network.id().clone(), network.domain(), Arc::clone(money), Arc::clone(peer), lag, delay))
}

/// Opens the desk whose store is the file at `store`.
pub(crate) fn open_desk(store: &Path, house: House, rail: Arc<dyn Rail>) -> Result<Desk, OpenDeskError> {
    Desk::open(store, Arc::new(house), rail)
}

/// How money comes and goes in a network.
pub(crate) fn rail_of(network: &Network) -> Arc<dyn Rail> {
    if network.chain().is_some() { Arc::new(EvmRail) } else { Arc::new(LedgerRail) }
}

/// The desk, with the data directory held for as long as this lives.
#[derive(Debug)]
pub struct OfflineDesk {
    desk: Desk,
    _data: DataDir,
}

impl OfflineDesk {
    /// Opens the desk of the data directory at `path`, in the network of its `network.toml`.
    pub fn open(path: &Path) -> Result<Self, OpenOfflineError> {
        if !path.join("network.toml").is_file() {
            return Err(OpenOfflineError::NoDirectory(path.display().to_string()));
        }
        let data = DataDir::open(path, RoleName::Settlement)?;
        let (network, keys) = (Network::load(&data.network_file())?, Keys::load_or_create(&data)?);
        let desk = open_desk(&data.store(STORE), house(&network, keys.peer(), keys.money())?, rail_of(&network))?;
        Ok(Self { desk, _data: data })
    }

    /// Everything else the desk can do.
    pub const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Grants credit, once per `key`.
    pub fn grant(&self, key: &str, grant: &Grant) -> Result<Funds, DeskError> {
        self.desk.grant(key, grant, clock::wall())
    }

    /// What an account is worth.
    pub fn balance(&self, account: &Address) -> Result<Funds, DeskError> {
        self.desk.funds(account)
    }

    /// Settles what was redeemed; none when there is nothing.
    pub fn batch(&self) -> Result<Option<BatchId>, OfflineBatchError> {
        let id = clock::random_id(BatchId::from_parts)?;
        Ok(self.desk.batch(id, None, clock::wall())?)
    }

    /// Exports what is payable, once per `key`.
    pub fn export(&self, key: &str) -> Result<Vec<Payout>, DeskError> {
        self.desk.export(key, clock::wall())
    }
}

/// A batch was not made.
#[derive(Debug, Error)]
pub enum OfflineBatchError {
    /// It has no name.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The desk refused.
    #[error(transparent)]
    Desk(#[from] DeskError),
}
