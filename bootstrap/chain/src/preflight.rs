//! Before anything is done with a chain: is it the one that the network file means, and is what stands there what this program knows?

use alloy_primitives::U64;
use orien_protocol::money::USDC_DECIMALS;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;

use crate::abi::{Escrow, Token};
use crate::chain::Chain;
use crate::code;
use crate::deposit::{TokenDomain, escrow_domain};
use crate::error::{ChainError, Mismatch};
use crate::rpc::wire::{hash, ours};
use crate::types::Block;

/// What a network says about its chain beyond its [`crate::ChainFacts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Settlement's signer.
    pub signer: Address,
    /// Seconds between asking for an exit and taking it.
    pub exit_delay: UnixSeconds,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The final block that everything was read at.
    pub block: Block,
    /// The token's EIP-712 domain, as it says and as its separator proves.
    pub token: TokenDomain,
    /// Until when the settlement signer's allowances count.
    pub signer_until: UnixSeconds,
    /// Receives seven tenths of the fees.
    pub platform: Address,
    /// Receives three tenths of the fees.
    pub reserve: Address,
    /// May change the settlement signer.
    pub operator: Address,
}

impl Chain {
    /// Compares the chain with the network file and with the contract that this program was built with.
    pub async fn preflight(&self, expected: &Expected) -> Result<Preflight, ChainError> {
        let facts = *self.facts();
        self.check_chain_id().await?;
        let block = self.final_block().await?;
        let escrow_code = self.code(&facts.escrow, &block).await?;
        if escrow_code.is_empty() {
            return Err(Mismatch::NoCode { what: "escrow", address: facts.escrow }.into());
        }
        if !code::is_escrow(&escrow_code)? {
            return Err(Mismatch::OtherCode { address: facts.escrow }.into());
        }
        if self.code(&facts.token, &block).await?.is_empty() {
            return Err(Mismatch::NoCode { what: "token", address: facts.token }.into());
        }
        // First whether it is the token at all: another contract may not even answer what a token is asked.
        same("the escrow's token", facts.token, ours(self.escrow(Escrow::tokenCall {}, &block).await?))?;
        let token = self.check_token(&block).await?;
        if self.is_blocklisted(&facts.escrow, &block).await? == Some(true) {
            return Err(Mismatch::Blocklisted { what: "escrow", address: facts.escrow }.into());
        }
        let delay = self.escrow(Escrow::exitDelayCall {}, &block).await?;
        same("the escrow's exit delay in seconds", expected.exit_delay.0, delay)?;
        let separator = escrow_domain(&facts.domain()).separator();
        same("the escrow's domain separator", separator, self.escrow(Escrow::domainSeparatorCall {}, &block).await?)?;
        let signer_until = self.signer_until(&expected.signer, &block).await?;
        if signer_until <= block.time {
            let found =
                if signer_until.0 == 0 { "unknown to the escrow".to_owned() } else { format!("valid until {} only", signer_until.0) };
            return Err(
                Mismatch::Value { what: "the settlement signer", expected: format!("{} to be valid", expected.signer), found }.into()
            );
        }
        let (platform, reserve) = (self.escrow(Escrow::platformCall {}, &block).await?, self.escrow(Escrow::reserveCall {}, &block).await?);
        let operator = self.escrow(Escrow::operatorCall {}, &block).await?;
        Ok(Preflight { block, token, signer_until, platform: ours(platform), reserve: ours(reserve), operator: ours(operator) })
    }

    /// Whether the nodes are on the chain that is meant. Each of them is asked: a stranger among them would otherwise be noticed later, as a liar.
    pub async fn check_chain_id(&self) -> Result<(), ChainError> {
        let expected = self.facts().chain_id;
        let found = self.nodes.each("the chain id", |node| async move { node.ask::<_, U64>("eth_chainId", ()).await }).await?;
        match found.into_iter().map(|id| id.to()).find(|id| *id != expected) {
            None => Ok(()),
            Some(found) => Err(Mismatch::ChainId { expected, found }.into()),
        }
    }

    /// Whether the token is one that an escrow can hold; its domain, then.
    pub async fn check_token(&self, at: &Block) -> Result<TokenDomain, ChainError> {
        let address = self.facts().token;
        if self.code(&address, at).await?.is_empty() {
            return Err(Mismatch::NoCode { what: "token", address }.into());
        }
        let decimals = self.token(Token::decimalsCall {}, at).await?;
        same("the token's number of decimals", USDC_DECIMALS, usize::from(decimals))?;
        self.token_domain(at).await
    }

    /// The token's EIP-712 domain: what it says of itself, compared with its separator.
    pub async fn token_domain(&self, at: &Block) -> Result<TokenDomain, ChainError> {
        let name = self.token(Token::nameCall {}, at).await?;
        let version = self.token(Token::versionCall {}, at).await?;
        let domain = TokenDomain { name, version, chain_id: self.facts().chain_id, token: self.facts().token };
        let separator = hash(self.token(Token::DOMAIN_SEPARATORCall {}, at).await?);
        same("the token's domain separator", domain.separator(), separator)?;
        Ok(domain)
    }
}

fn same<T: PartialEq + ToString>(what: &'static str, expected: T, found: T) -> Result<(), Mismatch> {
    if expected == found { Ok(()) } else { Err(Mismatch::Value { what, expected: expected.to_string(), found: found.to_string() }) }
}
