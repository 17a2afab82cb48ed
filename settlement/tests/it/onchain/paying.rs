//! The driver on a real local chain: paid to the micro-USDC, once, whatever nodes say.

use std::collections::BTreeMap;
use std::sync::Arc;

use orien_bootstrap::clock;
use orien_chain::anvil::{Fault, FaultyRpc};
use orien_chain::{At, Chain, EscrowEvent, TxHash, call};
use orien_protocol::id::BatchId;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::Address;
use orien_protocol::time::{Millis, Timestamp};
use orien_settlement::desk::{Desk, DeskError};
use orien_settlement::onchain::{Counter, Follower};

use super::site::{Session, Site};
use crate::kit::{micros, usdc};

/// The desk, asked directly.
#[derive(Clone)]
pub(crate) struct AtDesk(pub(crate) Arc<Desk>);

impl Counter for AtDesk {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static) -> Result<T, DeskError> {
        call(&self.0)
    }
}

/// A site, its desk and its driver, in this process.
pub(crate) struct Here {
    pub(crate) site: Site,
    pub(crate) desk: Arc<Desk>,
    pub(crate) follower: Follower<Chain, AtDesk>,
}

impl Here {
    pub(crate) async fn start(agents: u8, providers: u8) -> Option<Self> {
        let site = Site::start(agents, providers).await?;
        let chain = site.chain.chain().clone();
        Some(Self::over(site, chain).await)
    }

    pub(crate) async fn over(site: Site, chain: Chain) -> Self {
        let desk = Arc::new(site.desk());
        let mut follower = site.follower(AtDesk(Arc::clone(&desk)), chain);
        follower.preflight(site.chain.expected()).await.unwrap();
        let mut here = Self { site, desk, follower };
        here.step().await;
        here
    }

    /// Now, by whichever clock is ahead: blocks made by hand are a second apart.
    pub(crate) async fn now(&self) -> Timestamp {
        clock::wall().max(self.site.chain.now().await.unwrap().timestamp())
    }

    pub(crate) async fn step(&mut self) {
        let now = self.now().await;
        let made = self.follower.step(now, &mut || clock::random_id(BatchId::from_parts).ok()).await;
        if let Err(error) = made {
            assert!(error.to_string().contains("did not answer"), "{error}");
        }
    }

    /// Steps and blocks until nothing waits.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..200 {
            self.step().await;
            let status = self.desk.chain_status().unwrap();
            assert!(status.halts.is_empty(), "{:?}", status.halts);
            if status.flight.is_none() && status.waiting == 0 {
                return;
            }
            self.site.anvil().mine(1).await.unwrap();
        }
        panic!("not settled: {:?}", self.desk.chain_status().unwrap());
    }

    pub(crate) async fn open(&self, agent: usize, provider: usize, ceiling: &str) -> Session {
        let now = self.now().await;
        self.site.open(&self.desk, agent, provider, usdc(ceiling), now)
    }

    pub(crate) async fn claim(&self, session: &mut Session, more: Usdc, closes: bool) {
        let (claim, now) = (self.site.claim(session, more, closes), self.now().await);
        self.desk.claim(claim, now).unwrap();
    }

    pub(crate) async fn token(&self, owner: &Address) -> Usdc {
        let chain = self.site.chain.chain();
        chain.token_balance(owner, &chain.latest_block().await.unwrap()).await.unwrap()
    }

    /// Books and chain say the same, and every payee has its share of what `sessions` promised.
    pub(crate) async fn audit(&mut self, sessions: &[Session]) {
        let now = self.now().await;
        let found = self.follower.reconcile(now).await.unwrap().unwrap();
        assert!(found.differences.is_empty(), "{found:?}");
        let mut owed: BTreeMap<Address, u64> = BTreeMap::new();
        for session in sessions {
            let known = self.desk.channel_state(&session.terms.channel()).unwrap();
            assert_eq!(known.redeemed, session.total, "{}", session.terms.session);
            *owed.entry(session.terms.payout()).or_default() += Split::of(session.total).provider.micros();
        }
        for (payee, owed) in owed {
            assert_eq!(self.token(&payee).await, micros(owed), "{payee}");
        }
        let next = self.desk.standing().unwrap().sender.next_nonce;
        let sender = self.site.keys.money().address();
        assert_eq!(next, Some(self.site.chain.chain().nonce(&sender, At::Latest).await.unwrap()), "a nonce is stuck");
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn claims_of_fifty_payees_are_paid_to_the_micro_usdc_in_one_transaction_with_gas_that_is_not_estimated() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(2, 50).await else { return };
        let mut sessions = Vec::new();
        for n in 0..50 {
            let mut session = here.open(n % 2, n, "1").await;
            here.claim(&mut session, micros(100_001 + n as u64 * 7), false).await;
            sessions.push(session);
        }
        here.settle().await;
        here.audit(&sessions).await;
        let flights = here.desk.flights(None, 10).unwrap();
        assert_eq!((flights.len(), flights[0].claims.len()), (1, 50));
        let receipt = here.site.chain.chain().receipt(&TxHash::from_hash(flights[0].transaction().unwrap())).await.unwrap().unwrap();
        let credited = receipt.logs.iter().any(|log| matches!(log.event, EscrowEvent::Credited { .. }));
        assert!(!credited, "a delivery had too little gas");
        assert!(receipt.gas_used * 10 < flights[0].gas_limit * 9, "{} of {}", receipt.gas_used, flights[0].gas_limit);
        let payouts = here.desk.payouts(None, 100).unwrap();
        assert_eq!(payouts.len(), 50);
        assert!(payouts.iter().all(|payout| payout.state.transaction() == flights[0].transaction()));
    });
}

#[test]
fn what_somebody_else_redeems_first_is_redeemed_and_costs_only_gas() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 1).await else { return };
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.4"), true).await;
        here.site.anvil().set_automine(false).await.unwrap();
        here.step().await;
        let flight = here.desk.standing().unwrap().flight.unwrap();
        let data = here.desk.raw(flight.nonce, orien_settlement::paying::CALLDATA).unwrap().unwrap();
        here.site.anvil().drop_all_transactions().await.unwrap();
        here.site.anvil().set_automine(true).await.unwrap();
        let rival = here.site.chain.operator();
        let escrow = here.site.chain.facts().escrow;
        here.site.chain.send(rival, &escrow, data).await.unwrap();
        here.settle().await;
        here.audit(std::slice::from_ref(&session)).await;
        assert!(here.desk.channel_state(&session.terms.channel()).unwrap().closed);
        let payout = here.desk.payouts(None, 10).unwrap()[0];
        assert_ne!(payout.state.transaction(), flight.transaction(), "the rival's transaction paid it");
    });
}

#[test]
fn a_blocklisted_payee_has_credit_and_holds_up_nobody() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 3).await else { return };
        let mut sessions = Vec::new();
        for n in 0..3 {
            let mut session = here.open(0, n, "1").await;
            here.claim(&mut session, usdc("0.3"), false).await;
            sessions.push(session);
        }
        let listed = sessions[1].terms.payout();
        here.site.chain.set_blocklisted(&listed, true).await.unwrap();
        here.settle().await;
        let states: BTreeMap<Address, &str> =
            here.desk.payouts(None, 10).unwrap().iter().map(|payout| (payout.payee, payout.state.name())).collect();
        assert_eq!(states[&listed], "credited");
        assert_eq!(states.values().filter(|state| **state == "final").count(), 2);
        here.site.chain.set_blocklisted(&listed, false).await.unwrap();
        let escrow = here.site.chain.facts().escrow;
        here.site.chain.send(here.site.chain.operator(), &escrow, call::pay_credit(&listed)).await.unwrap();
        here.site.chain.settle().await.unwrap();
        here.settle().await;
        here.audit(&sessions).await;
    });
}

#[test]
fn an_answer_that_is_lost_after_a_node_did_it_pays_once() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
        let chain = site.chain_of(&[proxy.rpc().clone()]);
        let mut here = Here::over(site, chain).await;
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.4"), false).await;
        proxy.fail_next(Some("eth_sendRawTransaction"), Fault::DropAfter, 4);
        here.settle().await;
        here.audit(&[session]).await;
        assert!(proxy.faults() > 0);
    });
}

#[test]
fn a_node_that_takes_a_final_block_back_halts_and_nothing_is_promised_any_more() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
        let chain = site.chain_of(&[proxy.rpc().clone()]);
        let here = Here::over(site, chain).await;
        let cursor = here.desk.standing().unwrap().cursor.unwrap();
        // A driver that starts anew, so that only what is on disk can find it out.
        let (site, desk) = (here.site, here.desk);
        let mut follower = site.follower(AtDesk(Arc::clone(&desk)), site.chain_of(&[proxy.rpc().clone()]));
        proxy.claim_other_hash(Some(cursor.number));
        let now = clock::wall().plus(Millis(1));
        follower.step(now, &mut || None).await.unwrap_err();
        assert_eq!(desk.chain_status().unwrap().halts[0].code, "reorganised");
    });
}

#[test]
fn somebody_elses_transaction_with_our_key_halts() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 1).await else { return };
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.2"), false).await;
        here.settle().await;
        let escrow = here.site.chain.facts().escrow;
        here.site.chain.send(here.site.keys.money(), &escrow, call::set_daily_cap(Usdc::ZERO)).await.unwrap();
        here.claim(&mut session, usdc("0.2"), false).await;
        here.step().await;
        assert_eq!(here.desk.chain_status().unwrap().halts[0].code, "strangers_nonce");
        assert_eq!(here.desk.standing().unwrap().flight, None);
    });
}
