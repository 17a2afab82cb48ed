//! How cheats cheat. Each has its own honest machine and its own keys, and changes what comes out of the one or signs with the other.

use std::sync::Arc;

use crate::frame::{AgentFrame, Claim, ProviderFrame};
use crate::hash::Hash;
use crate::money::Usdc;
use crate::receipt::{Receipt, Usage};
use crate::session::provider::{ProviderInput, ProviderPhase, ProviderRecord};
use crate::signing::{MoneyKey, Signed, Verified};
use crate::sim::scenario::Adversary;
use crate::sim::tools::Tool;
use crate::sim::world::World;
use crate::terms::{SignedTerms, VerifiedTerms};
use crate::time::UnixSeconds;
use crate::voucher::{Allowance, Close, MoneyVerified, SignedAllowance, SignedVoucher, Voucher};

/// Most vouchers that one who stops signing signs before; some sign none.
const SIGNED_FIRST: usize = 4;
/// What an inflated receipt adds: within the tolerance of the agent's stopwatch.
const INFLATED_MS: u64 = 1_500;
/// Old words that a cheat keeps.
const SAID_KEPT: usize = 40;

impl World<'_> {
    pub(super) fn cheat_as_agent(&mut self, slot: usize, frame: AgentFrame) {
        if let AgentFrame::Voucher(_) = frame {
            self.slots[slot].vouchers += 1;
        }
        let vouchers = self.slots[slot].vouchers;
        match (self.scenario.adversary, frame) {
            (Some(Adversary::StopsSigning), AgentFrame::Voucher(_)) if vouchers as usize > slot % SIGNED_FIRST => {}
            (Some(Adversary::Sybils), AgentFrame::Voucher(_)) if vouchers > 1 => {}
            (Some(Adversary::SignsLess), AgentFrame::Voucher(voucher)) if self.random.chance(400) => {
                let less = Usdc::from_micros(self.random.below(voucher.unverified().total.micros() + 1));
                let forged = self.sign_voucher(slot, Voucher { total: less, ..*voucher.unverified() });
                self.send_to_provider(slot, AgentFrame::Voucher(forged));
            }
            (Some(Adversary::SignsForAnother), AgentFrame::Voucher(voucher)) if self.random.chance(500) => {
                let other = self.random.index(self.slots.len());
                let channel = self.slots[other].agent_machine.as_ref().and_then(|machine| machine.terms().map(VerifiedTerms::channel));
                let body = Voucher { channel: channel.unwrap_or(voucher.unverified().channel), ..*voucher.unverified() };
                let forged = self.sign_voucher(slot, body);
                self.send_to_provider(slot, AgentFrame::Voucher(forged));
            }
            (Some(Adversary::Redirects), AgentFrame::Present(allowance)) => {
                let terms = self.slots[slot].agent_machine.as_ref().and_then(|machine| machine.terms().map(VerifiedTerms::to_signed));
                let ceiling = allowance.unverified().ceiling;
                let forged = terms.and_then(|terms| self.cheat_as_house(&terms, ceiling, Some(allowance)));
                forged.into_iter().for_each(|forged| self.send_to_provider(slot, AgentFrame::Present(forged)));
                self.send_to_provider(slot, AgentFrame::Present(allowance));
            }
            (Some(Adversary::Replays), frame) => {
                self.send_to_provider(slot, frame.clone());
                self.slots[slot].said.push(frame);
                self.slots[slot].said.truncate(SAID_KEPT);
                let old = self.slots[slot].said.get(self.random.index(self.slots[slot].said.len())).cloned();
                old.into_iter().for_each(|old| self.send_to_provider(slot, old));
            }
            (_, frame) => self.send_to_provider(slot, frame),
        }
    }

    fn sign_voucher(&self, slot: usize, voucher: Voucher) -> SignedVoucher {
        let key: &Arc<MoneyKey> = &self.agents[self.slots[slot].agent].keys.spending;
        *MoneyVerified::sign(voucher, &self.domain, key).signed()
    }

    /// Something that a cheating agent does out of turn.
    pub(super) fn cheat_now(&mut self, slot: usize) {
        let agent = self.slots[slot].agent;
        if self.cheats(Adversary::ForksHistory) && self.agents[agent].cheats && self.slots[slot].agent_log.len() > 4 {
            let kept = 3 + self.random.index(self.slots[slot].agent_log.len() - 3);
            self.say(|| format!("session {slot}: the agent goes back to its first {kept} records"));
            self.slots[slot].agent_log.truncate(kept);
            self.slots[slot].agent_machine = None;
            let generation = self.slots[slot].link.generation;
            self.slots[slot].link.agent_up = false;
            self.provider_loses_link(slot, generation);
            self.restore_agent(slot);
        }
    }

    pub(super) fn cheat_as_provider(&mut self, slot: usize, frame: ProviderFrame) {
        match (self.scenario.adversary, frame) {
            (Some(Adversary::Overcharges), ProviderFrame::Receipt(receipt))
                if receipt.unverified().number > 1 && self.random.chance(300) =>
            {
                let more = Usdc::from_micros(receipt.unverified().charged.micros() + 1 + self.random.below(1_000));
                let forged = self.sign_receipt(slot, Receipt { charged: more, ..receipt.unverified().clone() });
                self.send_to_agent(slot, ProviderFrame::Receipt(Box::new(forged)));
            }
            (Some(Adversary::SkipsReceipts), ProviderFrame::Receipt(receipt)) if self.random.chance(300) => {
                if self.random.chance(500) {
                    let number = receipt.unverified().number + 1;
                    let forged = self.sign_receipt(slot, Receipt { number, ..receipt.unverified().clone() });
                    self.send_to_agent(slot, ProviderFrame::Receipt(Box::new(forged)));
                }
            }
            (Some(Adversary::ForksReceipts), ProviderFrame::Receipt(receipt)) if self.random.chance(300) => {
                let at = crate::time::Timestamp(receipt.unverified().at.0 + 1);
                let fork = self.sign_receipt(slot, Receipt { at, ..receipt.unverified().clone() });
                let mut both = [*receipt, fork];
                if self.random.chance(500) {
                    both.reverse();
                }
                both.into_iter().for_each(|receipt| self.send_to_agent(slot, ProviderFrame::Receipt(Box::new(receipt))));
            }
            (Some(Adversary::Inflates), ProviderFrame::Receipt(receipt)) => {
                if let Some(forged) = self.inflate(slot, receipt.unverified()) {
                    self.send_to_agent(slot, ProviderFrame::Receipt(Box::new(forged)));
                }
            }
            (Some(Adversary::BaitsOpenings), ProviderFrame::Accepted(signature)) => {
                self.send_to_agent(slot, ProviderFrame::Accepted(signature));
                // Before anything is reserved, in the hope of a voucher that nobody has to honour.
                let early = self.slots[slot].provider_machine.as_ref().map(|machine| opening_receipt(machine.terms(), self.t));
                if let Some(early) = early {
                    let signed = self.sign_receipt(slot, early);
                    self.send_to_agent(slot, ProviderFrame::Receipt(Box::new(signed)));
                }
            }
            (Some(Adversary::BaitsOpenings), ProviderFrame::Receipt(receipt))
                if slot.is_multiple_of(2) || receipt.unverified().number > 1 => {}
            (_, frame) => self.send_to_agent(slot, frame),
        }
    }

    /// The next receipt of a chain of one's own, with more time than there was.
    fn inflate(&mut self, slot: usize, honest: &Receipt) -> Option<Signed<Receipt>> {
        let machine = self.slots[slot].provider_machine.as_ref()?;
        let (terms, account) = (machine.terms(), &self.slots[slot].forged);
        let mut receipt = honest.clone();
        (receipt.number, receipt.previous) = (account.head().0 + 1, account.head().1);
        if let Some(work) = receipt.work.as_mut().filter(|work| work.usage.effective_ms > 0) {
            let price = terms.price(&work.tool)?;
            work.usage.effective_ms += INFLATED_MS;
            work.charge = price.of(work.usage.effective_ms).ok()?;
            let end = work.outcome.map(|outcome| outcome.end);
            receipt.charged = account.charge_at(terms, &work.execution, price, work.usage.effective_ms, end).ok()?;
        } else {
            receipt.charged = account.meter_with([]).and_then(|meter| terms.charge(&meter)).ok()?;
        }
        let keys = &self.providers[self.slots[slot].provider].keys;
        let forged = Verified::sign(receipt, &self.network, &keys.peer);
        let mut account = account.clone();
        account.apply(terms, &forged).ok()?;
        self.slots[slot].forged = account;
        Some(forged.into_signed())
    }

    fn sign_receipt(&self, slot: usize, receipt: Receipt) -> Signed<Receipt> {
        Verified::sign(receipt, &self.network, &self.providers[self.slots[slot].provider].keys.peer).into_signed()
    }

    /// What a cheating provider does when its session has opened: it works under more than was reserved.
    pub(super) fn cheat_with_budget(&mut self, slot: usize) {
        let cheats = self.cheats(Adversary::IgnoresBudget) && self.providers[self.slots[slot].provider].cheats;
        let Some(machine) = self.slots[slot].provider_machine.as_ref().filter(|_| cheats) else { return };
        if machine.phase() == ProviderPhase::Open && machine.ceiling() <= self.scenario.budget {
            let terms = machine.terms().to_signed();
            let more = Usdc::from_micros(self.scenario.budget.micros() * 10);
            if let Some(forged) = self.forge_allowance(&terms, more) {
                self.provider_input(slot, ProviderInput::Frame(AgentFrame::Present(forged)));
            }
        }
    }

    fn forge_allowance(&self, terms: &SignedTerms, ceiling: Usdc) -> Option<SignedAllowance> {
        let terms = terms.clone().verify(&self.network).ok()?;
        let body = fair(&terms, ceiling);
        Some(*MoneyVerified::sign(body, &self.domain, &self.house_key).signed())
    }

    /// Whether a provider's tools do nothing.
    pub(super) fn is_idle(&self, slot: usize) -> bool {
        self.cheats(Adversary::WorksWithoutOutput) && self.providers[self.slots[slot].provider].cheats
    }

    /// What a provider's executor says of a tool.
    pub(super) fn reported(&self, slot: usize, tool: &Tool) -> Usage {
        let usage = tool.usage();
        if self.cheats(Adversary::OverReports) && self.providers[self.slots[slot].provider].cheats {
            let more = usage.effective_ms + usage.effective_ms / 2 + 1_500;
            return Usage { effective_ms: more, ..usage };
        }
        usage
    }

    /// What a provider hands in instead of its newest claim.
    pub(super) fn claims(&mut self, slot: usize, claim: Claim) -> Vec<Claim> {
        if !self.providers[self.slots[slot].provider].cheats {
            return vec![claim];
        }
        match self.scenario.adversary {
            Some(Adversary::ClaimsTwice) => {
                let other = self.random.index(self.slots.len());
                let foreign = self.old_claim(other, &claim);
                let mixed = foreign.as_ref().map(|foreign| Claim { terms: foreign.terms.clone(), ..claim.clone() });
                let moved =
                    foreign.as_ref().map(|foreign| Claim { voucher: foreign.voucher, receipt: foreign.receipt.clone(), ..claim.clone() });
                let old = self.old_claim(slot, &claim);
                [Some(claim.clone()), Some(claim), mixed, moved, old].into_iter().flatten().collect()
            }
            Some(Adversary::ClaimsLate) => {
                let over = claim.terms.by_agent.unverified().redeem_until < self.house_clock.wall(self.t).seconds();
                if over { vec![claim] } else { Vec::new() }
            }
            Some(Adversary::FreesEarly) => {
                let Some(mut early) = self.old_claim(slot, &claim) else { return vec![claim] };
                let total = early.voucher.unverified().total;
                let body = Close { channel: early.voucher.unverified().channel, total };
                let key = &self.providers[self.slots[slot].provider].keys.claim;
                early.close = Some(*MoneyVerified::sign(body, &self.domain, key).signed());
                vec![early, claim]
            }
            _ => vec![claim],
        }
    }

    /// A claim with an older voucher of a session, as its provider holds it.
    fn old_claim(&mut self, slot: usize, like: &Claim) -> Option<Claim> {
        let log = &self.slots[slot].provider_log;
        let vouchers: Vec<SignedVoucher> =
            log.iter().filter_map(|record| if let ProviderRecord::Voucher(voucher) = record { Some(*voucher) } else { None }).collect();
        let (terms, allowance) = log.iter().find_map(|record| match record {
            ProviderRecord::Opened { terms, allowance } => Some((terms.clone(), *allowance)),
            _ => None,
        })?;
        let voucher = *vouchers.get(self.random.index(vouchers.len()))?;
        let receipt = self.slots[slot].provider_log.iter().find_map(|record| match record {
            ProviderRecord::Receipt(receipt) if receipt.unverified().number == voucher.unverified().receipt_number => Some(receipt.clone()),
            _ => None,
        })?;
        Some(Claim { terms, allowance, voucher, receipt, close: like.close })
    }

    /// What a cheating settlement answers to a request to reserve.
    pub(super) fn cheat_as_house(
        &mut self,
        terms: &SignedTerms,
        ceiling: Usdc,
        honest: Option<SignedAllowance>,
    ) -> Option<SignedAllowance> {
        let terms = terms.clone().verify(&self.network).ok()?;
        let fair = fair(&terms, ceiling);
        let body = match self.scenario.adversary {
            Some(Adversary::OverPromises) => fair,
            Some(Adversary::Redirects) => match self.random.below(6) {
                0 => Allowance { channel: crate::channel::ChannelId::from_hash(Hash::of(b"elsewhere")), ..fair },
                1 => Allowance { ceiling: Usdc::from_micros(ceiling.micros() * 2), ..fair },
                2 => Allowance { work_until: UnixSeconds(fair.work_until.0 + 3_600), ..fair },
                3 => Allowance { redeem_until: UnixSeconds(fair.redeem_until.0 - 1), ..fair },
                4 => Allowance { claim_key: self.signer, ..fair },
                _ => return honest,
            },
            _ => return honest,
        };
        Some(*MoneyVerified::sign(body, &self.domain, &self.house_key).signed())
    }
}

/// What an honest settlement would sign.
fn fair(terms: &VerifiedTerms, ceiling: Usdc) -> Allowance {
    Allowance {
        channel: terms.channel(),
        ceiling,
        work_until: terms.work_until,
        redeem_until: terms.redeem_until,
        terms: terms.hash(),
        claim_key: terms.claim_key(),
    }
}

fn opening_receipt(terms: &VerifiedTerms, t: u64) -> Receipt {
    Receipt {
        session: terms.session,
        terms: terms.hash(),
        number: 1,
        previous: Hash::ZERO,
        at: crate::time::Timestamp(t),
        confinement: terms.confinement,
        work: None,
        charged: terms.minimum_charge,
    }
}
