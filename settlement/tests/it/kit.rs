//! Makes what a network would: parties with real keys, terms that both signed, receipts, vouchers, claims.

use std::sync::Arc;

use orien_protocol::binding::SignedBinding;
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, RequestId, SessionId};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::Receipt;
use orien_protocol::signing::{Address, MoneyDomain, MoneyKey, PeerKey, Verified};
use orien_protocol::terms::{ProposedTerms, Terms, ToolPrice, VerifiedTerms};
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{Close, MoneyVerified, SignedAllowance, SignedClose, Voucher};
use orien_settlement::books::{Books, Change, Grant};
use orien_settlement::desk::Desk;
use orien_settlement::house::House;
use orien_settlement::rail::LedgerRail;

/// When every test begins.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
/// How long terms of the kit allow work.
pub(crate) const WORK: Millis = Millis::from_secs(3600);
/// How long vouchers under them are redeemable.
pub(crate) const REDEEM: Millis = Millis::from_secs(2 * 3600);

/// One side of a session.
pub(crate) struct Party {
    pub(crate) peer: PeerKey,
    pub(crate) money: MoneyKey,
    pub(crate) principal: Address,
}

/// One network with its settlement.
pub(crate) struct Kit {
    pub(crate) house: Arc<House>,
    pub(crate) network: NetworkId,
    pub(crate) domain: MoneyDomain,
}

pub(crate) fn usdc(text: &str) -> Usdc {
    text.parse().unwrap()
}

pub(crate) fn micros(micros: u64) -> Usdc {
    Usdc::from_micros(micros)
}

pub(crate) fn after(span: Millis) -> Timestamp {
    START.plus(span)
}

pub(crate) fn request(n: u128) -> RequestId {
    RequestId::from_parts(START.0, n)
}

pub(crate) fn batch_id(n: u128) -> BatchId {
    BatchId::from_parts(START.0, n)
}

pub(crate) fn address(n: u8) -> Address {
    Address::from_bytes([n; 20])
}

impl Party {
    /// A party whose keys follow from a number, and whose account or payout address is another address.
    pub(crate) fn new(n: u8) -> Self {
        let money = MoneyKey::from_bytes(&[n; 32]).unwrap();
        Self { peer: PeerKey::from_seed(&[n; 32]), principal: address(n), money }
    }

    /// A grant to this party's account, to be spent by its key.
    pub(crate) fn grant(&self, amount: Usdc) -> Grant {
        Grant { spending_key: Some(self.money.address()), ..Grant::of(self.principal, amount) }
    }
}

impl Kit {
    pub(crate) fn new() -> Self {
        Self::named("test-net", 200)
    }

    pub(crate) fn named(network: &str, key: u8) -> Self {
        let network: NetworkId = network.parse().unwrap();
        let signer = Arc::new(MoneyKey::from_bytes(&[key; 32]).unwrap());
        let domain = MoneyDomain::ledger(network.as_str(), &signer.address());
        let peer = Arc::new(PeerKey::from_seed(&[key; 32]));
        let house = House::new(network.clone(), domain, signer, peer, Millis(0), Millis::from_secs(86_400));
        Self { house: Arc::new(house), network, domain }
    }

    pub(crate) fn books(&self) -> Books {
        Books::new(Arc::clone(&self.house), Arc::new(LedgerRail))
    }

    pub(crate) fn desk(&self, folder: &tempfile::TempDir) -> Desk {
        Desk::open(&folder.path().join("settlement.redb"), Arc::clone(&self.house), Arc::new(LedgerRail)).unwrap()
    }

    /// Terms as the agent would write them at [`START`].
    pub(crate) fn draft(&self, agent: &Party, provider: &Party, session: u128) -> Terms {
        let bind = |party: &Party| SignedBinding::make(&party.peer, &party.money, party.principal, &self.network, &self.domain);
        Terms {
            session: SessionId::from_parts(START.0, session),
            agent: bind(agent),
            provider: bind(provider),
            domain: self.domain,
            settlement_signer: self.house.facts().signer,
            offer: Hash::of(b"offer"),
            prices: vec![ToolPrice { tool: "run_build".to_owned(), price: Price { per_minute: usdc("0.6"), call_fee: usdc("0.01") } }],
            minimum_charge: usdc("0.05"),
            metering_interval: Millis::from_secs(5),
            time_tolerance: Millis(2_000),
            runs_at_once: 2,
            confinement: Confinement::S0,
            issued_at: START,
            work_until: after(WORK).seconds(),
            redeem_until: after(REDEEM).seconds(),
        }
    }

    pub(crate) fn sign(&self, terms: Terms, agent: &Party, provider: &Party) -> VerifiedTerms {
        ProposedTerms::make(terms, &self.network, &agent.peer).unwrap().countersign(&self.network, &provider.peer).unwrap()
    }

    pub(crate) fn terms(&self, agent: &Party, provider: &Party, session: u128) -> VerifiedTerms {
        self.sign(self.draft(agent, provider, session), agent, provider)
    }

    pub(crate) fn receipt(&self, terms: &VerifiedTerms, provider: &Party, number: u64, total: Usdc) -> Verified<Receipt> {
        let receipt = Receipt {
            session: terms.session,
            terms: terms.hash(),
            number,
            previous: Hash::ZERO,
            at: START,
            confinement: Confinement::S0,
            work: None,
            charged: total,
        };
        Verified::sign(receipt, &self.network, &provider.peer)
    }

    /// A claim of `total` on receipt `number`, without a close.
    pub(crate) fn claim(
        &self,
        terms: &VerifiedTerms,
        allowance: SignedAllowance,
        (agent, provider): (&Party, &Party),
        number: u64,
        total: Usdc,
    ) -> Claim {
        let receipt = self.receipt(terms, provider, number, total);
        let voucher = Voucher { channel: terms.channel(), total, receipt_number: number, receipt_hash: receipt.hash() };
        let voucher = *MoneyVerified::sign(voucher, &self.domain, &agent.money).signed();
        Claim { terms: terms.to_signed(), allowance, voucher, receipt: receipt.into_signed(), close: None }
    }

    /// The payee's close of the terms' channel at `total`.
    pub(crate) fn close_of(&self, terms: &VerifiedTerms, provider: &Party, total: Usdc) -> SignedClose {
        *MoneyVerified::sign(Close { channel: terms.channel(), total }, &self.domain, &provider.money).signed()
    }

    /// The same claim with the payee's close at `total`.
    pub(crate) fn closed(&self, mut claim: Claim, provider: &Party, total: Usdc) -> Claim {
        let close = Close { channel: claim.voucher.unverified().channel, total };
        claim.close = Some(*MoneyVerified::sign(close, &self.domain, &provider.money).signed());
        claim
    }
}

/// Applies a planned change, and checks that the books add up after it.
pub(crate) fn apply(books: &mut Books, change: &Change) {
    books.apply(change).unwrap();
    books.check_sums().unwrap();
}
