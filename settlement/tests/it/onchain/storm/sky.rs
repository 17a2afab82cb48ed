//! What happens to the chain while a process runs: whatever may, and what brings a transaction to the place that is aimed at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::place::Place;
use super::process::{Process, Seen};
use crate::onchain::sim::Dice;
use crate::onchain::site::Site;

/// Longest wait for the place that is aimed at; a second or two are usual. A kill that misses its aim is one all the same.
const AIMED_WITHIN: Duration = Duration::from_secs(15);
/// Steps after which a process that has nothing under way has nothing to pay. Nodes that fail cost some.
const IDLE_STEPS: u64 = 12;
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(12);
/// Blocks that can be taken back: one less than what makes a block final here.
const TAKEN_BACK: u64 = 3;
/// Where OpenZeppelin's `ReentrancyGuard` notes that a call is under way; the chain's contract refuses any other for as long.
const GUARD: &str = "0x9b779b17422d0df92223018b32b4d1fa46e071723d6817e2486d003becc55f00";

/// The chain's side of a storm.
pub(super) struct Sky {
    pub(super) site: Site,
    pub(super) dice: Dice,
    /// What was done how often.
    pub(super) done: BTreeMap<&'static str, u64>,
    /// Steps of the process when a block was last made for it.
    steps: u64,
    /// Whether the last thing that was done for it was to take blocks back.
    took_back: bool,
}

impl Sky {
    pub(super) const fn over(site: Site, dice: Dice) -> Self {
        Self { site, dice, done: BTreeMap::new(), steps: 0, took_back: false }
    }

    pub(super) fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    pub(super) fn pick(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).unwrap()
    }

    /// Whatever happens, until the process is dead or is to be killed at any moment.
    pub(super) async fn blow(&mut self, process: &mut Process) {
        if self.dice.chance(30) {
            self.note("blocks stay away");
            tokio::time::sleep(Duration::from_millis(200 + self.dice.below(600))).await;
        }
        let (begun, until) = (Instant::now(), Duration::from_millis(200 + self.dice.below(1_200)));
        while begun.elapsed() < until && !process.is_over() {
            process.look().await;
            self.anything().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Brings the process to the place that is aimed at, and lets it die there by its own hand or be killed. `nonce` is of the transaction that was under way before.
    pub(super) async fn blow_towards(&mut self, aim: Place, nonce: Option<u64>, process: &mut Process) {
        let begun = Instant::now();
        (self.steps, self.took_back) = (0, false);
        while begun.elapsed() < AIMED_WITHIN {
            if process.is_over() {
                return;
            }
            process.look().await;
            let seen = process.seen();
            if seen.spot.place == aim && seen.speaks {
                // The chain stands still for as long as the place is to last.
                if !process.kills_itself() {
                    tokio::time::sleep(Duration::from_millis(self.dice.below(60))).await;
                    return;
                }
            } else if is_out_of_reach(aim, nonce, &seen) {
                break;
            } else {
                self.lead(aim, &seen).await;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.note("aims missed");
    }

    async fn lead(&mut self, aim: Place, seen: &Seen) {
        use Place::{Emptied, Final, Included, Nothing, Planned, Raised, Replaced, Reverted, Signed, Submitted, TakenBack};
        match (aim, seen.spot.place) {
            // What it would find in blocks now would be past the place before it has looked once.
            (Included | TakenBack | Reverted | Raised | Emptied | Replaced, _) if !seen.speaks => {}
            // Only what lies still is raised; and whatever is planned comes so far by itself.
            (Raised | Emptied, Planned | Signed | Submitted | TakenBack | Raised) => {}
            (Included | TakenBack | Reverted, Planned | Signed) => {}
            (Included | TakenBack | Reverted | Raised | Emptied, Nothing) => self.block_after_a_look(seen).await,
            (Included | TakenBack, Submitted | Raised | Emptied | TakenBack) => self.block_after_a_look(seen).await,
            (TakenBack | Emptied, Included) => self.take_back_after_a_look(seen).await,
            (Reverted, Submitted | Raised | TakenBack) => self.revert_after_a_look(seen).await,
            (Reverted | Replaced | Final, Included) => self.block_after_a_look(seen).await,
            _ => self.anything().await,
        }
    }

    /// Whether the process has looked at the chain, all of it, since something was last done for it.
    fn has_looked(&mut self, seen: &Seen) -> bool {
        let looked = seen.speaks && seen.steps >= self.steps + 2;
        if looked {
            self.steps = seen.steps;
        }
        looked
    }

    async fn block_after_a_look(&mut self, seen: &Seen) {
        if self.has_looked(seen) {
            self.site.anvil().mine(1).await.unwrap();
        }
    }

    async fn take_back_after_a_look(&mut self, seen: &Seen) {
        if self.has_looked(seen) {
            // What lay deeper than can be taken back goes on.
            self.took_back = !self.took_back;
            if self.took_back { self.take_back(TAKEN_BACK).await } else { self.site.anvil().mine(1).await.unwrap() }
        }
    }

    /// Makes a block in which the escrow refuses every call.
    async fn revert_after_a_look(&mut self, seen: &Seen) {
        if self.has_looked(seen) {
            self.set_guard(2).await;
            self.site.anvil().mine(1).await.unwrap();
            self.set_guard(1).await;
            self.note("blocks that revert");
        }
    }

    async fn set_guard(&self, value: u8) {
        let word = format!("0x{value:064x}");
        let params = json!([self.site.chain.facts().escrow.to_string(), GUARD, word]);
        self.site.anvil().ask("anvil_setStorageAt", params).await.unwrap();
    }

    async fn take_back(&mut self, depth: u64) {
        self.site.anvil().reorganise(depth).await.unwrap();
        // What is left may end with a block that reverts.
        self.set_guard(1).await;
        self.note("blocks taken back");
    }

    async fn anything(&mut self) {
        match self.dice.below(100) {
            0..=34 => self.site.anvil().mine(1).await.unwrap(),
            35..=37 => {
                let depth = 1 + self.dice.below(TAKEN_BACK);
                self.take_back(depth).await;
            }
            38..=40 => {
                self.site.anvil().drop_all_transactions().await.unwrap();
                self.note("transactions dropped");
            }
            _ => {}
        }
    }
}

/// Whether another end than the wanted one of that very transaction has come, or all is paid and nothing more will come.
fn is_out_of_reach(aim: Place, nonce: Option<u64>, seen: &Seen) -> bool {
    let of_one = matches!(aim, Place::Emptied | Place::Replaced);
    let is_idle = seen.spot.nonce.is_none() && seen.steps > if of_one { 1 } else { IDLE_STEPS };
    seen.speaks && (is_idle || of_one && seen.spot.nonce.is_some() && seen.spot.nonce != nonce)
}
