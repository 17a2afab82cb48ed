//! What a provider sells: an [`Offer`], signed and expiring. Its short form, which gossip carries, is a [`crate::digest::Digest`].
//!
//! An offer is valid because of its own signature, version and expiry, never because of how it arrived. [`Offer::check`] refuses everything that is
//! oversized or contradicts itself; it does not know the time, see [`Offer::freshness`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::binding::SignedBinding;
use crate::hash::Hash;
use crate::money::{Price, Usdc};
use crate::peer::PeerId;
use crate::signing::{Address, Layout, Statement};
use crate::time::{Millis, Timestamp};

/// Most tools of one offer; with the other limits an offer stays well below [`OFFER_LIMIT_BYTES`].
pub const TOOLS_LIMIT: usize = 64;
/// Most parameters of one tool.
pub const PARAMETERS_LIMIT: usize = 32;
/// Longest name, label, region or capability in bytes.
pub const NAME_LIMIT: usize = 64;
/// Longest description or command in bytes.
pub const TEXT_LIMIT: usize = 512;
/// Most addresses of one provider, and most choices of one parameter.
pub const LIST_LIMIT: usize = 16;
/// Largest encoded offer that is fetched, kept or served.
pub const OFFER_LIMIT_BYTES: usize = 64 * 1024;
/// Longest life of an offer: six missed announcements at the usual ten minutes.
pub const OFFER_LIFE: Millis = Millis::from_secs(3600);
/// How far in the future an offer may have been issued; more means that somebody's clock is wrong.
pub const FUTURE_TOLERANCE: Millis = Millis::from_secs(120);

/// How well a provider confines tools; a higher level includes the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Confinement {
    /// Process group, resource limits and a private workspace; no kernel isolation.
    S0,
    /// S0 with Landlock and seccomp.
    S1,
    /// S1 with fresh namespaces.
    S2,
    /// S2 with cgroup limits.
    S3,
}

impl Confinement {
    /// The level as printed and signed.
    pub const fn level(self) -> u8 {
        match self {
            Self::S0 => 0,
            Self::S1 => 1,
            Self::S2 => 2,
            Self::S3 => 3,
        }
    }
}

/// What one value of a tool's argument may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParameterKind {
    /// One line of text of at most so many bytes.
    Text { max_bytes: u32 },
    /// A whole number between both, inclusive.
    Integer { min: i64, max: i64 },
    /// A decimal number between both whole bounds, inclusive; it travels as text.
    Number { min: i64, max: i64 },
    /// True or false.
    Boolean,
    /// One of these texts.
    Choice(Vec<String>),
    /// A path inside the workspace.
    File,
}

/// One typed argument of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Name in requests.
    pub name: String,
    /// For people and models.
    pub description: String,
    /// Whether a run without it is refused.
    pub required: bool,
    /// What it may be.
    pub kind: ParameterKind,
}

/// A named program that a provider runs on request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Name in requests; also a capability.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people and models.
    pub description: String,
    /// The provider's command template, as information.
    pub command: String,
    /// What a request may pass.
    pub parameters: Vec<Parameter>,
    /// Longest run; it is killed then.
    pub max_duration: Millis,
    /// Processor share in thousandths of a CPU.
    pub cpu_millis: u32,
    /// Most memory in bytes.
    pub memory_bytes: u64,
    /// What it costs.
    pub price: Price,
    /// Whether it reads or writes the session's workspace.
    pub workspace_required: bool,
    /// What it is good for, beyond its id.
    pub capabilities: Vec<String>,
}

/// The machine behind an offer, as its provider states it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hardware {
    /// Processors.
    pub cpus: u16,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// Operating system and architecture, such as `linux-x86_64`.
    pub system: String,
}

/// How much a provider takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Sessions at once.
    pub sessions: u16,
    /// Sessions that could be opened when the offer was made.
    pub free: u16,
    /// Runs at once within a session; more wait.
    pub runs_per_session: u16,
}

/// What the provider says of its own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// When the node started.
    pub up_since: Timestamp,
    /// Share of the time since it was set up in which it ran, in hundredths of a percent.
    pub uptime_permyriad: u16,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Sessions that ended without a fault of the provider.
    pub sessions_completed: u64,
}

/// Everything a provider sells, at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Who sells, and signs this.
    pub provider: PeerId,
    /// Higher replaces lower.
    pub version: u64,
    /// When it was made, on the provider's clock.
    pub issued_at: Timestamp,
    /// When it ends; at most [`OFFER_LIFE`] after it was issued.
    pub expires_at: Timestamp,
    /// The operator's own name for the provider (`providerId` of its configuration); not unique.
    pub label: String,
    /// For people.
    pub name: String,
    /// For people and models.
    pub description: String,
    /// Ethereum name, as claimed.
    pub ens_name: Option<String>,
    /// Where the machine is, as claimed.
    pub region: Option<String>,
    /// Ties the provider to its claim key and payout address; goes into the terms of every session.
    pub binding: SignedBinding,
    /// The usual price; each tool names its own.
    pub price: Price,
    /// Charged at opening and credited against use.
    pub minimum_charge: Usdc,
    /// Effective time between two interim receipts of a run.
    pub metering_interval: Millis,
    /// What it runs.
    pub tools: Vec<Tool>,
    /// How well it confines.
    pub confinement: Confinement,
    /// The machine.
    pub hardware: Hardware,
    /// How much it takes on.
    pub capacity: Capacity,
    /// Its own account of its past.
    pub record: Record,
    /// Where to dial it.
    pub addresses: Vec<String>,
}

/// Why an offer or digest is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OfferError {
    /// A field is longer than allowed.
    #[error("{field} is longer than {limit}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// How long it may be.
        limit: usize,
    },
    /// A field contradicts another or makes no sense.
    #[error("{0}")]
    Senseless(&'static str),
    /// It ended.
    #[error("the offer has expired")]
    Expired,
    /// It was issued in the future: one of two clocks is wrong.
    #[error("the offer was issued {ahead_ms} ms in the future")]
    FromTheFuture {
        /// By how much.
        ahead_ms: u64,
    },
}

impl Offer {
    /// Where earnings go, as the binding claims.
    pub const fn payout(&self) -> Address {
        self.binding.unverified().principal
    }

    /// The key that signs `Close`, as the binding claims.
    pub const fn claim_key(&self) -> Address {
        self.binding.unverified().money_key
    }

    /// Every capability: tool ids and what tools say they are good for; sorted, each once.
    pub fn capabilities(&self) -> Vec<&str> {
        let mut all: Vec<&str> =
            self.tools.iter().flat_map(|t| std::iter::once(&t.id).chain(&t.capabilities)).map(String::as_str).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The tool with this id.
    pub fn tool(&self, id: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.id == id)
    }

    /// Refuses what is oversized or contradicts itself.
    pub fn check(&self) -> Result<(), OfferError> {
        within("label", self.label.len(), NAME_LIMIT)?;
        within("name", self.name.len(), NAME_LIMIT)?;
        within("description", self.description.len(), TEXT_LIMIT)?;
        within("ENS name", self.ens_name.as_ref().map_or(0, String::len), NAME_LIMIT)?;
        within("region", self.region.as_ref().map_or(0, String::len), NAME_LIMIT)?;
        within("system", self.hardware.system.len(), NAME_LIMIT)?;
        within("list of tools", self.tools.len(), TOOLS_LIMIT)?;
        within("list of addresses", self.addresses.len(), LIST_LIMIT)?;
        self.addresses.iter().try_for_each(|a| within("address", a.len(), TEXT_LIMIT))?;
        self.tools.iter().try_for_each(Tool::check)?;
        let mut ids: Vec<&str> = self.tools.iter().map(|t| t.id.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(OfferError::Senseless("two tools have the same id"));
        }
        if self.metering_interval.0 == 0 {
            return Err(OfferError::Senseless("the metering interval is zero"));
        }
        if self.binding.unverified().peer != self.provider {
            return Err(OfferError::Senseless("the binding is another peer's"));
        }
        life(self.issued_at, self.expires_at)
    }

    /// Whether it counts now.
    pub fn freshness(&self, now: Timestamp) -> Result<(), OfferError> {
        freshness(self.issued_at, self.expires_at, now)
    }
}

impl Tool {
    fn check(&self) -> Result<(), OfferError> {
        within("tool id", self.id.len(), NAME_LIMIT)?;
        within("tool name", self.name.len(), NAME_LIMIT)?;
        within("tool description", self.description.len(), TEXT_LIMIT)?;
        within("tool command", self.command.len(), TEXT_LIMIT)?;
        within("list of parameters", self.parameters.len(), PARAMETERS_LIMIT)?;
        within("list of capabilities", self.capabilities.len(), LIST_LIMIT)?;
        self.capabilities.iter().try_for_each(|c| within("capability", c.len(), NAME_LIMIT))?;
        for parameter in &self.parameters {
            within("parameter name", parameter.name.len(), NAME_LIMIT)?;
            within("parameter description", parameter.description.len(), TEXT_LIMIT)?;
            if let ParameterKind::Choice(choices) = &parameter.kind {
                within("list of choices", choices.len(), LIST_LIMIT)?;
                choices.iter().try_for_each(|c| within("choice", c.len(), NAME_LIMIT))?;
            }
        }
        if self.id.is_empty() {
            return Err(OfferError::Senseless("a tool has no id"));
        }
        Ok(())
    }

    fn write(&self, out: &mut Layout) {
        for text in [&self.id, &self.name, &self.description, &self.command] {
            out.text(text);
        }
        out.list(&self.parameters, |out, p| {
            out.text(&p.name);
            out.text(&p.description);
            out.u8(u8::from(p.required));
            match &p.kind {
                ParameterKind::Text { max_bytes } => {
                    out.u8(0);
                    out.u32(*max_bytes);
                }
                ParameterKind::Integer { min, max } => {
                    out.u8(1);
                    out.i64(*min);
                    out.i64(*max);
                }
                ParameterKind::Number { min, max } => {
                    out.u8(2);
                    out.i64(*min);
                    out.i64(*max);
                }
                ParameterKind::Boolean => out.u8(3),
                ParameterKind::Choice(choices) => {
                    out.u8(4);
                    out.list(choices, |out, c| out.text(c));
                }
                ParameterKind::File => out.u8(5),
            }
        });
        out.u64(self.max_duration.0);
        out.u32(self.cpu_millis);
        out.u64(self.memory_bytes);
        self.price.write(out);
        out.u8(u8::from(self.workspace_required));
        out.list(&self.capabilities, |out, c| out.text(c));
    }
}

impl Price {
    pub(crate) fn write(self, out: &mut Layout) {
        out.u64(self.per_minute.micros());
        out.u64(self.call_fee.micros());
    }
}

impl Statement for Offer {
    const DOMAIN: &'static str = "orien/offer/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.provider.as_bytes());
        out.u64(self.version);
        out.u64(self.issued_at.0);
        out.u64(self.expires_at.0);
        for text in [&self.label, &self.name, &self.description] {
            out.text(text);
        }
        out.option(self.ens_name.as_ref(), |out, t| out.text(t));
        out.option(self.region.as_ref(), |out, t| out.text(t));
        self.binding.unverified().write(out);
        self.price.write(out);
        out.u64(self.minimum_charge.micros());
        out.u64(self.metering_interval.0);
        out.list(&self.tools, |out, tool| tool.write(out));
        out.u8(self.confinement.level());
        out.u16(self.hardware.cpus);
        out.u64(self.hardware.memory_bytes);
        out.text(&self.hardware.system);
        out.u16(self.capacity.sessions);
        out.u16(self.capacity.free);
        out.u16(self.capacity.runs_per_session);
        out.u64(self.record.up_since.0);
        out.u16(self.record.uptime_permyriad);
        out.u64(self.record.sessions_total);
        out.u64(self.record.sessions_completed);
        out.list(&self.addresses, |out, a| out.text(a));
    }
}

/// The Kademlia key under which providers of a capability advertise themselves.
pub fn capability_key(network: &crate::network::NetworkId, capability: &str) -> Hash {
    let mut out = Layout::open("orien/capability/v1", network);
    out.text(capability);
    Hash::of(&out.finish())
}

pub(crate) fn within(field: &'static str, length: usize, limit: usize) -> Result<(), OfferError> {
    if length <= limit { Ok(()) } else { Err(OfferError::TooLong { field, limit }) }
}

pub(crate) fn life(issued_at: Timestamp, expires_at: Timestamp) -> Result<(), OfferError> {
    if expires_at <= issued_at {
        return Err(OfferError::Senseless("the offer ends before it begins"));
    }
    if expires_at.since(issued_at) > OFFER_LIFE {
        return Err(OfferError::Senseless("the offer lives longer than an hour"));
    }
    Ok(())
}

pub(crate) fn freshness(issued_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> Result<(), OfferError> {
    if issued_at > now.plus(FUTURE_TOLERANCE) {
        return Err(OfferError::FromTheFuture { ahead_ms: issued_at.since(now).0 });
    }
    if expires_at <= now { Err(OfferError::Expired) } else { Ok(()) }
}
