//! Real keys, terms and allowances for the tests.

use std::sync::Arc;

use orien_protocol::binding::SignedBinding;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::{Price, Usdc};
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Confinement;
use orien_protocol::session::agent::AgentKeys;
use orien_protocol::session::provider::ProviderKeys;
use orien_protocol::signing::{MoneyDomain, MoneyKey, PeerKey};
use orien_protocol::terms::{SignedTerms, Terms, ToolPrice};
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use orien_protocol::voucher::{Allowance, MoneyVerified, SignedAllowance};

/// The wall clock at which every test starts.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
/// 0.06 USDC per minute: 1 micro-USDC per millisecond.
pub(crate) const PER_MINUTE: u64 = 60_000;

pub(crate) fn usdc(micros: u64) -> Usdc {
    Usdc::from_micros(micros)
}

/// Three parties of one network.
pub(crate) struct Kit {
    pub(crate) network: NetworkId,
    pub(crate) domain: MoneyDomain,
    pub(crate) agent: AgentKeys,
    pub(crate) provider: ProviderKeys,
    pub(crate) settlement: MoneyKey,
}

impl Kit {
    pub(crate) fn new() -> Self {
        let peer = |seed| Arc::new(PeerKey::from_seed(&[seed; 32]));
        let money = |seed| Arc::new(MoneyKey::from_bytes(&[seed; 32]).unwrap());
        let settlement = MoneyKey::from_bytes(&[9; 32]).unwrap();
        let network: NetworkId = "test-0011223344556677".parse().unwrap();
        let domain = MoneyDomain::ledger(network.as_str(), &settlement.address());
        Self {
            network,
            domain,
            agent: AgentKeys { peer: peer(1), spending: money(2) },
            provider: ProviderKeys { peer: peer(3), claim: money(4) },
            settlement,
        }
    }

    /// Tool `work` at 1 micro-USDC per millisecond, tool `call` with a fee of 500 on top; interval 5 s; minimum 5000.
    pub(crate) fn terms(&self) -> Terms {
        let payout = MoneyKey::from_bytes(&[5; 32]).unwrap().address();
        let account = self.agent.spending.address();
        let price =
            |tool: &str, fee| ToolPrice { tool: tool.to_owned(), price: Price { per_minute: usdc(PER_MINUTE), call_fee: usdc(fee) } };
        Terms {
            session: SessionId::from_parts(START.0, 77),
            agent: SignedBinding::make(&self.agent.peer, &self.agent.spending, account, &self.network, &self.domain),
            provider: SignedBinding::make(&self.provider.peer, &self.provider.claim, payout, &self.network, &self.domain),
            domain: self.domain,
            settlement_signer: self.settlement.address(),
            offer: Hash::of(b"offer"),
            prices: vec![price("work", 0), price("call", 500)],
            minimum_charge: usdc(5_000),
            metering_interval: Millis(5_000),
            time_tolerance: Millis(100),
            runs_at_once: 2,
            confinement: Confinement::S0,
            issued_at: START,
            work_until: UnixSeconds(START.0 / 1000 + 3600),
            redeem_until: UnixSeconds(START.0 / 1000 + 7200),
        }
    }

    pub(crate) fn allowance(&self, terms: &SignedTerms, ceiling: Usdc) -> SignedAllowance {
        let body = terms.by_agent.unverified();
        let verified = terms.clone().verify(&self.network).unwrap();
        let allowance = Allowance {
            channel: verified.channel(),
            ceiling,
            work_until: body.work_until,
            redeem_until: body.redeem_until,
            terms: verified.hash(),
            claim_key: verified.claim_key(),
        };
        *MoneyVerified::sign(allowance, &self.domain, &self.settlement).signed()
    }
}
