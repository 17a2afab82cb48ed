//! What the driver needs of a chain and of the desk: the questions, without who answers them.

use std::future::Future;

use orien_chain::{
    At, Block, Chain, ChainError, EscrowAccount, EscrowChannel, EscrowFees, EscrowLog, Expected, FeeQuote, Receipt, Revert, Sent, TxHash,
    Wei,
};
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::Timestamp;

use crate::clerk::Clerk;
use crate::desk::{Desk, DeskError};

/// A chain: see [`Chain`], whose methods of the same names these are.
#[expect(missing_docs, reason = "each is the method of the same name of `Chain`")]
pub trait ChainPort: Send + Sync {
    fn preflight(&self, expected: &Expected) -> impl Future<Output = Result<(), ChainError>> + Send;
    fn final_block(&self) -> impl Future<Output = Result<Block, ChainError>> + Send;
    fn latest_block(&self) -> impl Future<Output = Result<Block, ChainError>> + Send;
    /// Which node stands at which block, for people.
    fn standstill(&self, now: Timestamp) -> impl Future<Output = String> + Send;
    fn block(&self, number: u64) -> impl Future<Output = Result<Option<Block>, ChainError>> + Send;
    fn confirm(&self, kept: &Block) -> impl Future<Output = Result<(), ChainError>> + Send;
    fn logs(&self, from: u64, to: u64) -> impl Future<Output = Result<Vec<EscrowLog>, ChainError>> + Send;
    fn nonce(&self, of: &Address, at: At) -> impl Future<Output = Result<u64, ChainError>> + Send;
    fn fees_now(&self) -> impl Future<Output = Result<FeeQuote, ChainError>> + Send;
    fn simulate(
        &self,
        from: &Address,
        to: &Address,
        data: &[u8],
    ) -> impl Future<Output = Result<Result<Vec<u8>, Revert>, ChainError>> + Send;
    fn data_gas(&self, to: &Address, data: &[u8]) -> impl Future<Output = Result<u64, ChainError>> + Send;
    fn send_raw(&self, raw: &[u8]) -> impl Future<Output = Result<Sent, ChainError>> + Send;
    fn receipt(&self, of: &TxHash) -> impl Future<Output = Result<Option<Receipt>, ChainError>> + Send;
    fn native_balance(&self, owner: &Address) -> impl Future<Output = Result<Wei, ChainError>> + Send;
    fn accounts(&self, owners: &[Address], at: &Block) -> impl Future<Output = Result<Vec<EscrowAccount>, ChainError>> + Send;
    fn channels(&self, ids: &[ChannelId], at: &Block) -> impl Future<Output = Result<Vec<EscrowChannel>, ChainError>> + Send;
    fn credits(&self, payees: &[Address], at: &Block) -> impl Future<Output = Result<Vec<Usdc>, ChainError>> + Send;
    fn fees(&self, at: &Block) -> impl Future<Output = Result<EscrowFees, ChainError>> + Send;
    fn token_balance(&self, owner: &Address, at: &Block) -> impl Future<Output = Result<Usdc, ChainError>> + Send;
}

impl ChainPort for Chain {
    async fn preflight(&self, expected: &Expected) -> Result<(), ChainError> {
        Chain::preflight(self, expected).await.map(drop)
    }

    async fn final_block(&self) -> Result<Block, ChainError> {
        Chain::final_block(self).await
    }

    async fn latest_block(&self) -> Result<Block, ChainError> {
        Chain::latest_block(self).await
    }

    async fn standstill(&self, now: Timestamp) -> String {
        orien_bootstrap::escrow::standstill(self, now).await
    }

    async fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        Chain::block(self, number).await
    }

    async fn confirm(&self, kept: &Block) -> Result<(), ChainError> {
        Chain::confirm(self, kept).await
    }

    async fn logs(&self, from: u64, to: u64) -> Result<Vec<EscrowLog>, ChainError> {
        Chain::logs(self, from, to).await
    }

    async fn nonce(&self, of: &Address, at: At) -> Result<u64, ChainError> {
        Chain::nonce(self, of, at).await
    }

    async fn fees_now(&self) -> Result<FeeQuote, ChainError> {
        Chain::fees_now(self).await
    }

    async fn simulate(&self, from: &Address, to: &Address, data: &[u8]) -> Result<Result<Vec<u8>, Revert>, ChainError> {
        Chain::simulate(self, from, to, data).await
    }

    async fn data_gas(&self, to: &Address, data: &[u8]) -> Result<u64, ChainError> {
        Chain::data_gas(self, Some(to), data).await
    }

    async fn send_raw(&self, raw: &[u8]) -> Result<Sent, ChainError> {
        Chain::send_raw(self, raw).await
    }

    async fn receipt(&self, of: &TxHash) -> Result<Option<Receipt>, ChainError> {
        Chain::receipt(self, of).await
    }

    async fn native_balance(&self, owner: &Address) -> Result<Wei, ChainError> {
        Chain::native_balance(self, owner).await
    }

    async fn accounts(&self, owners: &[Address], at: &Block) -> Result<Vec<EscrowAccount>, ChainError> {
        Chain::accounts(self, owners, at).await
    }

    async fn channels(&self, ids: &[ChannelId], at: &Block) -> Result<Vec<EscrowChannel>, ChainError> {
        Chain::channels(self, ids, at).await
    }

    async fn credits(&self, payees: &[Address], at: &Block) -> Result<Vec<Usdc>, ChainError> {
        Chain::credits(self, payees, at).await
    }

    async fn fees(&self, at: &Block) -> Result<EscrowFees, ChainError> {
        Chain::fees(self, at).await
    }

    async fn token_balance(&self, owner: &Address, at: &Block) -> Result<Usdc, ChainError> {
        Chain::token_balance(self, owner, at).await
    }
}

/// A way to the desk.
pub trait Counter: Send + Sync {
    /// Makes one call at the desk.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static,
    ) -> impl Future<Output = Result<T, DeskError>> + Send;
}

impl Counter for Clerk {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static) -> Result<T, DeskError> {
        Clerk::call(self, move |desk, _| call(desk)).await
    }
}
