//! What the escrow and the token hold, at a block named by its hash.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::SolCall;
use futures::stream::iter;
use futures::{StreamExt, TryStreamExt};
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;
use serde_json::json;

use crate::abi::{Escrow, Token};
use crate::chain::Chain;
use crate::error::ChainError;
use crate::rpc::node::Node;
use crate::rpc::wire::{theirs, word};
use crate::types::{At, Block, EscrowAccount, EscrowChannel, EscrowFees, Wei};

/// Channels that are read by one call: its answer has some sixty kilobytes, and it uses a tenth of the gas that nodes give a call.
const CHANNELS_AT_ONCE: usize = 200;

const CALL: &str = "eth_call";

impl Chain {
    /// What the escrow holds of an account.
    pub async fn account(&self, owner: &Address, at: &Block) -> Result<EscrowAccount, ChainError> {
        let found = self.escrow(Escrow::accountsCall { owner: theirs(owner) }, at).await?;
        Ok(EscrowAccount {
            balance: Usdc::from_micros(found.balance),
            locked: Usdc::from_micros(found.locked),
            exiting: Usdc::from_micros(found.exiting),
            exit_at: UnixSeconds(found.exitAt),
            daily_cap: Usdc::from_micros(found.dailyCap),
        })
    }

    /// What the escrow holds of some accounts, in their order.
    pub async fn accounts(&self, owners: &[Address], at: &Block) -> Result<Vec<EscrowAccount>, ChainError> {
        let ask = |owner: Address| {
            let (chain, at) = (self.clone(), *at);
            async move { chain.account(&owner, &at).await }
        };
        iter(owners.to_vec()).map(ask).buffered(self.limits.in_flight.max(1)).try_collect().await
    }

    /// Until when a key's vouchers count for an account: zero if it was never named, [`crate::FOREVER`] if nobody ended it.
    pub async fn key_until(&self, owner: &Address, key: &Address, at: &Block) -> Result<UnixSeconds, ChainError> {
        Ok(UnixSeconds(self.escrow(Escrow::keysCall { owner: theirs(owner), key: theirs(key) }, at).await?))
    }

    /// Until when a settlement signer's allowances count, in the same way.
    pub async fn signer_until(&self, signer: &Address, at: &Block) -> Result<UnixSeconds, ChainError> {
        Ok(UnixSeconds(self.escrow(Escrow::signersCall { signer: theirs(signer) }, at).await?))
    }

    /// What the escrow knows of some channels, in their order.
    pub async fn channels(&self, ids: &[ChannelId], at: &Block) -> Result<Vec<EscrowChannel>, ChainError> {
        let mut channels = Vec::with_capacity(ids.len());
        for some in ids.chunks(CHANNELS_AT_ONCE) {
            let call = Escrow::channelsOfCall { ids: some.iter().map(|id| word(id.hash())).collect() };
            let found = self.escrow(call, at).await?;
            if found.len() != some.len() {
                return Err(self.cannot_be("channelsOf", format_args!("{} channels for {}", found.len(), some.len())));
            }
            channels.extend(found.into_iter().map(|channel| EscrowChannel {
                redeemed: Usdc::from_micros(channel.redeemed),
                ceiling: Usdc::from_micros(channel.ceiling),
                redeem_until: UnixSeconds(channel.redeemUntil),
                locked: Usdc::from_micros(channel.locked.to()),
                closed: channel.closed,
            }));
        }
        Ok(channels)
    }

    /// Payments that could not be delivered to an address and wait for it.
    pub async fn credit(&self, payee: &Address, at: &Block) -> Result<Usdc, ChainError> {
        let found = self.escrow(Escrow::creditCall { payee: theirs(payee) }, at).await?;
        amount(found, "credit")
    }

    /// The same of some addresses, in their order.
    pub async fn credits(&self, payees: &[Address], at: &Block) -> Result<Vec<Usdc>, ChainError> {
        let ask = |payee: Address| {
            let (chain, at) = (self.clone(), *at);
            async move { chain.credit(&payee, &at).await }
        };
        iter(payees.to_vec()).map(ask).buffered(self.limits.in_flight.max(1)).try_collect().await
    }

    /// Fees that wait for their recipients.
    pub async fn fees(&self, at: &Block) -> Result<EscrowFees, ChainError> {
        let platform = amount(U256::from(self.escrow(Escrow::platformFeesCall {}, at).await?), "platformFees")?;
        let reserve = amount(U256::from(self.escrow(Escrow::reserveFeesCall {}, at).await?), "reserveFees")?;
        Ok(EscrowFees { platform, reserve })
    }

    /// The token's balance of an address.
    pub async fn token_balance(&self, owner: &Address, at: &Block) -> Result<Usdc, ChainError> {
        amount(self.token(Token::balanceOfCall { owner: theirs(owner) }, at).await?, "balanceOf")
    }

    /// How much of an address's token another may take; more than an amount can say is the largest amount.
    pub async fn token_allowance(&self, owner: &Address, spender: &Address, at: &Block) -> Result<Usdc, ChainError> {
        let found = self.token(Token::allowanceCall { owner: theirs(owner), spender: theirs(spender) }, at).await?;
        Ok(Usdc::from_micros(u64::try_from(found).unwrap_or(u64::MAX)))
    }

    /// The nonce that an address's next permit of the token must carry.
    pub async fn permit_nonce(&self, owner: &Address, at: &Block) -> Result<u64, ChainError> {
        let found = self.token(Token::noncesCall { owner: theirs(owner) }, at).await?;
        u64::try_from(found).map_err(|_| self.cannot_be("nonces", found))
    }

    /// Whether an EIP-3009 authorisation was used or cancelled.
    pub async fn authorization_used(&self, authorizer: &Address, nonce: &Hash, at: &Block) -> Result<bool, ChainError> {
        self.token(Token::authorizationStateCall { authorizer: theirs(authorizer), nonce: word(nonce) }, at).await
    }

    /// Whether the token refuses to serve an address; nothing if it has no such list.
    pub async fn is_blocklisted(&self, owner: &Address, at: &Block) -> Result<Option<bool>, ChainError> {
        match self.token(Token::isBlacklistedCall { account: theirs(owner) }, at).await {
            Ok(listed) => Ok(Some(listed)),
            Err(error) if is_revert(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The balance of the chain's own coin, with which gas is paid, at the newest block. It decides nothing.
    pub async fn native_balance(&self, owner: &Address) -> Result<Wei, ChainError> {
        const METHOD: &str = "eth_getBalance";
        let owner = theirs(owner);
        self.nodes
            .any(|node| async move {
                let found: U256 = node.ask(METHOD, (owner, "latest")).await?;
                // More coins than there are of any chain.
                u128::try_from(found).map(Wei).map_err(|_| node.malformed(METHOD, found))
            })
            .await
    }

    /// How many transactions of an address are in the chain: the nonce of its next one. Of nodes that differ about the newest block, the lower.
    pub async fn nonce(&self, of: &Address, at: At) -> Result<u64, ChainError> {
        const METHOD: &str = "eth_getTransactionCount";
        let of = theirs(of);
        let found = match at {
            At::Latest => {
                let told =
                    self.nodes.enough("a nonce", |node| async move { node.ask::<_, U256>(METHOD, (of, json!("latest"))).await }).await?;
                told.into_iter().min().unwrap_or_default()
            }
            At::Final => {
                let block = pinned(&self.final_block().await?);
                let ask = |node: Node| {
                    let block = block.clone();
                    async move { node.ask::<_, U256>(METHOD, (of, block)).await }
                };
                self.nodes.agreed("a nonce", ask).await?
            }
        };
        u64::try_from(found).map_err(|_| self.cannot_be("a nonce", found))
    }

    pub(crate) async fn escrow<C: SolCall>(&self, call: C, at: &Block) -> Result<C::Return, ChainError> {
        self.read(&self.facts().escrow, call, at).await
    }

    pub(crate) async fn token<C: SolCall>(&self, call: C, at: &Block) -> Result<C::Return, ChainError> {
        self.read(&self.facts().token, call, at).await
    }

    /// What a contract answers to a call.
    pub(crate) async fn read<C: SolCall>(&self, contract: &Address, call: C, at: &Block) -> Result<C::Return, ChainError> {
        let request = json!({ "to": theirs(contract), "data": Bytes::from(call.abi_encode()) });
        let ask = |node: Node| {
            let request = request.clone();
            async move {
                let answer: Result<Bytes, ChainError> = node.ask(CALL, (request, pinned(at))).await;
                answer.map_err(|error| without_state(error, at))
            }
        };
        let answer = self.nodes.agreed(C::SIGNATURE, ask).await?;
        C::abi_decode_returns(&answer).map_err(|error| {
            if answer.is_empty() {
                // What an address without code, or a contract without this function, answers.
                return ChainError::Refused {
                    rpc: "the chain".to_owned(),
                    method: C::SIGNATURE,
                    code: 3,
                    message: format!("execution reverted: {contract} has no such function"),
                    data: None,
                };
            }
            ChainError::Malformed { rpc: "the chain".to_owned(), method: C::SIGNATURE, reason: error.to_string() }
        })
    }

    /// The code at an address.
    pub(crate) async fn code(&self, of: &Address, at: &Block) -> Result<Vec<u8>, ChainError> {
        let of = theirs(of);
        let ask = |node: Node| async move {
            let code: Result<Bytes, ChainError> = node.ask("eth_getCode", (of, pinned(at))).await;
            code.map_err(|error| without_state(error, at))
        };
        Ok(self.nodes.agreed("the code of a contract", ask).await?.to_vec())
    }

    fn cannot_be(&self, method: &'static str, found: impl ToString) -> ChainError {
        ChainError::Malformed { rpc: "the chain".to_owned(), method, reason: found.to_string() }
    }
}

/// A block by its hash (EIP-1898): a node that has another block of that height, or has not come so far, says so instead of answering about another.
fn pinned(block: &Block) -> serde_json::Value {
    json!({ "blockHash": word(&block.hash), "requireCanonical": true })
}

/// Tells errors about the block from errors about the call.
fn without_state(error: ChainError, at: &Block) -> ChainError {
    match error {
        ChainError::Refused { rpc, code, message, data: None, .. } if code == RESOURCE_NOT_FOUND || lacks_state(&message) => {
            ChainError::NoState { rpc, block: at.number }
        }
        other => other,
    }
}

/// What EIP-1474 has for it; some nodes use it.
const RESOURCE_NOT_FOUND: i64 = -32_001;

/// How nodes say that they do not have a block or its state.
fn lacks_state(message: &str) -> bool {
    let text = message.to_ascii_lowercase();
    let words = [
        "header not found",
        "block not found",
        "blocknotfound",
        "unknown block",
        "header for hash not found",
        "cannot find block",
        "could not find block",
        "block is out of range",
        "not canonical",
        "is not currently canonical",
        "missing trie node",
        "state is not available",
        "state not available",
        "historical state",
        "state at block",
        "pruned",
        "no state available",
        "distance to target block exceeds",
    ];
    words.iter().any(|word| text.contains(word))
}

/// Whether a contract refused a call, and not a node.
pub(crate) fn is_revert(error: &ChainError) -> bool {
    match error {
        ChainError::Refused { code, message, data, .. } => *code == 3 || data.is_some() || message.to_ascii_lowercase().contains("revert"),
        _ => false,
    }
}

/// An amount of the token, if it can be one.
pub(crate) fn amount(found: U256, method: &'static str) -> Result<Usdc, ChainError> {
    u64::try_from(found).map(Usdc::from_micros).map_err(|_| ChainError::Malformed {
        rpc: "the chain".to_owned(),
        method,
        reason: format!("{found} is more than any amount of USDC"),
    })
}
