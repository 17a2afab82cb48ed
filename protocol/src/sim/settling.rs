//! Settlement at work in a world: asked over the wire, crashing after its commits, and swept and paid in rounds.

use crate::fault::{Fault, FaultCode};
use crate::frame::{ChannelState, Claim};
use crate::session::agent::AgentSession;
use crate::sim::scenario::Adversary;
use crate::sim::world::{Event, World};
use crate::terms::SignedTerms;
use crate::voucher::SignedClose;

impl World<'_> {
    /// Settlement carries a claim out, and may not live to say so.
    pub(super) fn redeem(&mut self, slot: usize, claim: Claim) {
        if !self.house_up {
            return;
        }
        let wall = self.house_clock.wall(self.t);
        let total = claim.voucher.unverified().total;
        let answer = self.answer_claim(claim.clone(), wall);
        self.say(|| format!("session {slot}: settlement is handed {total}: {answer:?}"));
        self.look_at_books();
        if self.house_stumbles() {
            return;
        }
        let latency = self.latency();
        self.after(latency, Event::Claimed(slot, Box::new(claim), Box::new(answer)));
    }

    /// A close of nothing is shown, again until there is an answer.
    pub(super) fn release(&mut self, slot: usize, terms: &SignedTerms, close: SignedClose) {
        let owes = self.slots[slot].agent_machine.as_ref().is_some_and(AgentSession::owes_release);
        if !owes {
            return;
        }
        self.after(2_000, Event::AskRelease(slot, Box::new(terms.clone()), close));
        if !self.house_up {
            return;
        }
        let (caller, wall) = (self.agents[self.slots[slot].agent].keys.peer.id(), self.house_clock.wall(self.t));
        let answer = self.house.release(caller, terms.clone(), close, wall);
        self.say(|| format!("session {slot}: settlement is asked to release: {answer:?}"));
        self.look_at_books();
        if self.house_stumbles() {
            return;
        }
        let latency = self.latency();
        self.after(latency, Event::Released(slot, Box::new(answer)));
    }

    fn answer_claim(&mut self, claim: Claim, wall: crate::time::Timestamp) -> Result<ChannelState, Fault> {
        if self.cheats(Adversary::RefusesClaims) {
            return Err(Fault::new(FaultCode::INTERNAL, "not today"));
        }
        if self.cheats(Adversary::LiesAboutRedeemed) {
            let redeemed = claim.voucher.unverified().total;
            return Ok(ChannelState { ceiling: claim.allowance.unverified().ceiling, redeemed, closed: claim.close.is_some() });
        }
        let answer = self.house.claim(claim.clone(), wall);
        if let Ok(state) = &answer {
            self.counts.claims += 1;
            // Asking twice redeems once.
            let again = self.random.chance(200).then(|| self.house.claim(claim, wall));
            if again.as_ref().is_some_and(|again| again.as_ref().ok() != Some(state)) {
                self.auditor.breach(|| format!("settlement: the same claim again was answered {again:?}, not {state:?}"));
            }
        }
        answer
    }

    /// Whether settlement's process dies between its commit and its answer.
    pub(super) fn house_stumbles(&mut self) -> bool {
        if !self.misfortune() {
            return false;
        }
        self.crash_house();
        true
    }

    pub(super) fn crash_house(&mut self) {
        self.say(|| "settlement crashes".to_owned());
        self.counts.crashes += 1;
        self.house_up = false;
        self.house.crash();
        self.look_at_books();
        let down = self.random.between(50, 3_000);
        self.after(down, Event::HouseStarts);
    }

    pub(super) fn look_at_books(&mut self) {
        self.facts = self.house.facts();
        let wall = self.house_clock.wall(self.t);
        let facts = std::mem::take(&mut self.facts);
        self.auditor.books(&facts, wall);
        self.facts = facts;
    }

    pub(super) fn house_rounds(&mut self) {
        self.after(5_000, Event::HouseRounds);
        if !self.house_up {
            return;
        }
        let wall = self.house_clock.wall(self.t);
        self.house.sweep(wall);
        if self.house_stumbles() {
            return;
        }
        let payments = self.house.pay(wall);
        self.look_at_books();
        let facts = std::mem::take(&mut self.facts);
        self.auditor.payments(&payments, &facts);
        self.facts = facts;
        self.counts.payments += payments.len() as u64;
        if !self.calm && self.random.chance(20) {
            self.crash_house();
        }
    }
}
