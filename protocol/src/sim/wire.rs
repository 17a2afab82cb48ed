//! Control streams between two sides of a session: in order and cut now and then, or wild.

use crate::frame::{AgentFrame, ProviderFrame};
use crate::session::agent::{AgentInput, AgentPhase, AgentSession};
use crate::session::provider::ProviderInput;
use crate::sim::story::Brief;
use crate::sim::world::{Event, World};

/// Of a thousand frames, so many are lost, and so many come twice, in wild weather.
const WILD: (u64, u64) = (60, 60);

impl World<'_> {
    pub(super) fn send_to_provider(&mut self, slot: usize, frame: AgentFrame) {
        if !self.slots[slot].link.agent_up {
            return;
        }
        self.auditor.agent_said(slot, &frame);
        let generation = self.slots[slot].link.generation;
        for at in self.arrivals(slot, true) {
            self.at(at, Event::ToProvider(slot, generation, Box::new(frame.clone())));
        }
    }

    pub(super) fn send_to_agent(&mut self, slot: usize, frame: ProviderFrame) {
        if !self.slots[slot].link.provider_up {
            return;
        }
        let generation = self.slots[slot].link.generation;
        for at in self.arrivals(slot, false) {
            self.at(at, Event::ToAgent(slot, generation, Box::new(frame.clone())));
        }
    }

    /// When a frame arrives: in order and once, or in wild weather never, twice, and whenever.
    fn arrivals(&mut self, slot: usize, to_provider: bool) -> Vec<u64> {
        let at = self.t + self.latency();
        if self.is_wild() {
            let (lost, twice) = (self.random.chance(WILD.0), self.random.chance(WILD.1));
            let again = self.t + 5 * self.latency();
            return match (lost, twice) {
                (true, _) => Vec::new(),
                (false, true) => vec![at, again],
                (false, false) => vec![at],
            };
        }
        let link = &mut self.slots[slot].link;
        let last = if to_provider { &mut link.to_provider } else { &mut link.to_agent };
        *last = at.max(*last);
        vec![*last]
    }

    pub(super) fn hear_agent(&mut self, slot: usize, generation: u32, frame: AgentFrame) {
        let link = &self.slots[slot].link;
        if !link.provider_up || link.generation != generation || !self.providers[self.slots[slot].provider].up {
            return;
        }
        self.say(|| format!("session {slot}: provider hears {}", frame.brief()));
        self.put_away(slot);
        match (self.slots[slot].provider_machine.is_some(), frame) {
            (false, AgentFrame::LetGo(terms)) => self.let_go(slot, *terms),
            (false, AgentFrame::Propose(terms)) => self.proposed(slot, *terms),
            (false, AgentFrame::Resume { .. }) => self.refuse(slot),
            (false, _) => {}
            (true, frame) => self.provider_input(slot, ProviderInput::Frame(frame)),
        }
    }

    pub(super) fn hear_provider(&mut self, slot: usize, generation: u32, frame: ProviderFrame) {
        let link = &self.slots[slot].link;
        if !link.agent_up || link.generation != generation {
            return;
        }
        self.say(|| format!("session {slot}: agent hears {}", frame.brief()));
        self.agent_input(slot, AgentInput::Frame(frame));
    }

    /// Cuts a session's stream: each side learns of it in its own time, and what is under way is lost.
    pub(super) fn cut(&mut self, slot: usize) {
        let link = &mut self.slots[slot].link;
        let generation = link.generation;
        if !link.agent_up && !link.provider_up {
            return;
        }
        self.say(|| format!("session {slot}: the stream is cut"));
        self.counts.cuts += 1;
        let (one, other) = (self.latency(), self.latency());
        self.after(one, Event::AgentLosesLink(slot, generation));
        self.after(other, Event::ProviderLosesLink(slot, generation));
    }

    pub(super) fn agent_loses_link(&mut self, slot: usize, generation: u32) {
        let link = &mut self.slots[slot].link;
        if link.generation == generation && std::mem::take(&mut link.agent_up) {
            self.agent_input(slot, AgentInput::Disconnected);
            self.redial(slot);
        }
    }

    pub(super) fn provider_loses_link(&mut self, slot: usize, generation: u32) {
        let link = &mut self.slots[slot].link;
        if link.generation == generation && std::mem::take(&mut link.provider_up) {
            self.provider_input(slot, ProviderInput::Disconnected);
            self.forget_if_proposed(slot);
        }
    }

    pub(super) fn redial(&mut self, slot: usize) {
        let wait = if self.calm { 250 } else { self.random.between(250, 4_000) };
        if !std::mem::replace(&mut self.slots[slot].link.dialling, true) {
            self.after(wait, Event::Dial(slot));
        }
    }

    pub(super) fn dial(&mut self, slot: usize) {
        self.slots[slot].link.dialling = false;
        let (agent, provider) = (self.slots[slot].agent, self.slots[slot].provider);
        let wanted = self.slots[slot].agent_machine.as_ref().is_some_and(wants_link);
        if !wanted || self.slots[slot].link.agent_up {
            return;
        }
        if !self.agents[agent].up || !self.providers[provider].up {
            return self.redial(slot);
        }
        let t = self.t;
        let closed = self.slots[slot].agent_machine.as_ref().is_some_and(|machine| matches!(machine.phase(), AgentPhase::Closed(_)));
        let link = &mut self.slots[slot].link;
        link.errand = closed;
        link.generation += 1;
        (link.agent_up, link.provider_up, link.to_agent, link.to_provider) = (true, true, t, t);
        self.agent_input(slot, AgentInput::Connected);
    }
}

/// As the gateway does: a session that is over is not dialled for, unless its reservation may still be given back.
fn wants_link(machine: &AgentSession) -> bool {
    let wants_close = machine.owes_release() && !machine.is_let_go();
    wants_close || matches!(machine.phase(), AgentPhase::Open | AgentPhase::Ending(_))
}
