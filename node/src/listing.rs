//! Writes the offer: what is sold here, at what price, how well confined, and how much of it is free.
//!
//! Always true: a tool whose program is absent is not offered, and what is offered is what the shop admits.

use std::path::Path;

use orien_protocol::binding::SignedBinding;
use orien_protocol::offer::{Capacity, Confinement, Hardware, LIST_LIMIT, NAME_LIMIT, OFFER_LIFE, Offer, Record};
use orien_protocol::peer::PeerId;
use orien_protocol::time::Timestamp;

use crate::config::ProviderConfig;
use crate::store::Past;

/// Where the kernel says how much memory there is.
const MEMORY_FILE: &str = "/proc/meminfo";
/// Hundredths of a percent.
const WHOLE: u64 = 10_000;
/// A start takes a moment, which counts as time up: otherwise the first offer of a new node says that it was hardly ever there.
const START_MS: u64 = 10_000;

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What is sold.
    pub config: ProviderConfig,
    /// Who sells.
    pub provider: PeerId,
    /// Its claim key and payout address.
    pub binding: SignedBinding,
    /// How well tools are confined.
    pub confinement: Confinement,
    /// The machine.
    pub hardware: Hardware,
    /// When the node started.
    pub up_since: Timestamp,
}

/// What does.
#[derive(Clone, Debug, Default)]
pub struct Today {
    /// Places that are free.
    pub free: u16,
    /// The provider's past.
    pub past: Past,
    /// Where to dial it.
    pub addresses: Vec<String>,
}

impl Listing {
    /// The offer as of now.
    pub fn offer(&self, version: u64, now: Timestamp, today: &Today) -> Offer {
        let config = &self.config;
        Offer {
            provider: self.provider,
            version,
            issued_at: now,
            expires_at: now.plus(OFFER_LIFE),
            label: config.label.clone(),
            name: config.name.clone(),
            description: config.description.clone(),
            ens_name: config.ens_name.clone(),
            region: config.region.clone(),
            binding: self.binding.clone(),
            price: config.price,
            minimum_charge: config.minimum_charge,
            metering_interval: config.metering_interval,
            tools: config.offered().map(|tool| tool.tool.clone()).collect(),
            confinement: self.confinement,
            hardware: self.hardware.clone(),
            capacity: Capacity { sessions: config.sessions, free: today.free, runs_per_session: config.runs_per_session },
            record: self.record(now, &today.past),
            addresses: today.addresses.iter().take(LIST_LIMIT).cloned().collect(),
        }
    }

    fn record(&self, now: Timestamp, past: &Past) -> Record {
        // The time since the last note has not been noted yet, and a node that is starting is up.
        let ran_ms = past.ran_ms.max(now.since(self.up_since).0).saturating_add(START_MS);
        let since_first_ms = now.since(past.first_start).0;
        let uptime = match ran_ms.saturating_mul(WHOLE).checked_div(since_first_ms) {
            Some(uptime) => u16::try_from(uptime.min(WHOLE)).unwrap_or(u16::MAX),
            None => 0,
        };
        Record {
            up_since: self.up_since,
            uptime_permyriad: uptime,
            sessions_total: past.sessions_total,
            sessions_completed: past.sessions_completed,
        }
    }
}

/// The machine that this runs on.
pub fn hardware() -> Hardware {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| u16::try_from(cpus.get()).unwrap_or(u16::MAX));
    let mut system = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    system.truncate(NAME_LIMIT);
    Hardware { cpus, memory_bytes: memory_bytes(Path::new(MEMORY_FILE)).unwrap_or(0), system }
}

/// `MemTotal` in bytes.
fn memory_bytes(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
