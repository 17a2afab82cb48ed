//! Sessions that close with their last claim, some of them while the escrow of their account does not reach: every close that was handed in happens once, and frees the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use orien_chain::EscrowEvent;
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, keccak};
use orien_settlement::paying::{Flight, Stage};
use serde_json::{Value, json};

use super::Storm;
use crate::kit::micros;
use crate::onchain::paying::Here;
use crate::onchain::site::{Session, Site};

/// Blocks after which what was done in one is final here, with one to spare.
const FINAL_AFTER: u64 = 5;
/// Places in the contract's storage among which the accounts are looked for.
const SLOTS: u64 = 32;
/// What is told of it.
pub(super) const TOO_SHORT: &str = "closes that an escrow was too short for";
/// What an agent deposits on the way.
const DEPOSIT: Usdc = Usdc::from_micros(1_000_000);

impl Storm {
    /// Makes a block in which the account of a close that is on its way has next to nothing. It is final before anybody looks again, and so is one in which the rest is there once more.
    pub(super) async fn fall_short(&mut self, flight: &Flight) {
        let waits = matches!(flight.stage, Stage::Submitted | Stage::Signed);
        let Some(claim) = flight.claims.iter().find(|claim| waits && claim.closes) else { return };
        let Some(session) = self.sessions.iter().find(|session| session.terms.channel() == claim.channel) else { return };
        let (account, site) = (session.terms.account(), &self.sky.site);
        let slot = account_slot(site, &account).await;
        let whole = word(site, &slot).await;
        let little = 1 + self.sky.dice.below(200);
        set(site, &slot, little, &whole).await;
        site.anvil().mine(1).await.unwrap();
        let left = balance(&word(site, &slot).await);
        set(site, &slot, balance(&whole) - (little - left), &whole).await;
        site.anvil().mine(FINAL_AFTER).await.unwrap();
        if left < little {
            self.sky.note(TOO_SHORT);
        }
    }

    /// An agent adds to its escrow: what waited for that is tried again.
    pub(super) async fn deposit(&mut self, agent: usize) {
        let money = &self.sky.site.agents[agent].money;
        let spending = money.address();
        let deposit = self.sky.site.chain.deposit(money, DEPOSIT, &spending);
        with_blocks(&self.sky.site, deposit).await.unwrap();
        self.sky.note("deposits");
    }
}

/// Does something that waits for blocks.
async fn with_blocks<T>(site: &Site, act: impl Future<Output = T>) -> T {
    let blocks = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            site.anvil().mine(1).await.unwrap();
        }
    };
    tokio::select! {
        done = act => done,
        () = blocks => unreachable!(),
    }
}

/// Where the contract keeps an account: balance, lock and exit in one word.
async fn account_slot(site: &Site, account: &Address) -> String {
    let chain = site.chain.chain();
    let held = chain.account(account, &chain.latest_block().await.unwrap()).await.unwrap();
    for slot in 0..SLOTS {
        let mut key = [0; 64];
        key[12..32].copy_from_slice(account.as_bytes());
        key[56..].copy_from_slice(&slot.to_be_bytes());
        let place = format!("0x{}", keccak(&key));
        if balance(&word(site, &place).await) == held.balance.micros() && held.balance > Usdc::ZERO {
            return place;
        }
    }
    panic!("the escrow keeps its accounts elsewhere");
}

/// A word of the contract's storage, without its prefix.
async fn word(site: &Site, place: &str) -> String {
    let params = json!([site.chain.facts().escrow.to_string(), place, "latest"]);
    let found: Value = site.anvil().ask("eth_getStorageAt", params).await.unwrap();
    format!("{:0>64}", found.as_str().unwrap().trim_start_matches("0x"))
}

fn balance(word: &str) -> u64 {
    u64::from_str_radix(&word[48..], 16).unwrap()
}

/// Stores a word with another balance.
async fn set(site: &Site, place: &str, balance: u64, word: &str) {
    let word = format!("0x{}{balance:016x}", &word[..48]);
    site.anvil().ask("anvil_setStorageAt", json!([site.chain.facts().escrow.to_string(), place, word])).await.unwrap();
}

/// By the chain's own logs: every channel whose close was handed in was closed once, with nothing after it, and no other; by the books: what its session did not use is its account's again.
pub(super) async fn closed_once(here: &Here, sessions: &[Session], closing: &[bool]) -> usize {
    let chain = here.site.chain.chain();
    let last = chain.latest_block().await.unwrap().number;
    let mut closed: BTreeSet<ChannelId> = BTreeSet::new();
    // A deposit may have been in a block that was taken back.
    let mut came: BTreeMap<Address, u64> = BTreeMap::new();
    for log in chain.logs(chain.facts().escrow_block, last).await.unwrap() {
        match log.event {
            EscrowEvent::Redeemed { channel, closed: closes, .. } => {
                assert!(!closed.contains(&channel), "channel {channel} goes on after it was closed");
                if closes {
                    closed.insert(channel);
                }
            }
            EscrowEvent::Deposited { account, amount, .. } => *came.entry(account).or_default() += amount.micros(),
            _ => {}
        }
    }
    let mut held: BTreeMap<usize, u64> = BTreeMap::new();
    for (session, closes) in sessions.iter().zip(closing) {
        let channel = session.terms.channel();
        assert_eq!(closed.contains(&channel), *closes, "session {} on chain", session.terms.session);
        assert_eq!(here.desk.channel_state(&channel).unwrap().closed, *closes, "session {} in the books", session.terms.session);
        let holds = if *closes { session.total } else { session.allowance.unverified().ceiling };
        *held.entry(session.agent).or_default() += holds.micros();
    }
    for (at, agent) in here.site.agents.iter().enumerate() {
        let free = micros(came[&agent.principal] - held.get(&at).copied().unwrap_or(0));
        assert_eq!(here.desk.funds(&agent.principal).unwrap().available, free, "what is free of {}", agent.principal);
    }
    closed.len()
}
