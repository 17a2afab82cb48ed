//! What this gateway says about a provider out of its own experience, as callers see it.
//!
//! Always true: nothing here is the provider's own word; a figure that was never measured is null.

use serde::Serialize;
use utoipa::ToSchema;

use crate::decimal::{Decimal, Time};
use crate::experience::Experience;

/// Figures that were measured here.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Measured)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MeasuredJson {
    /// From the request for a run to the news of its start: half of them were as fast as this.
    start_p50_ms: Option<u64>,
    /// The same for 95 of 100.
    start_p95_ms: Option<u64>,
    /// How long it takes to answer a question; since this gateway's start.
    response_ms: Option<u64>,
    /// Since this gateway's start.
    upload_bytes_per_second: Option<u64>,
    /// Since this gateway's start.
    download_bytes_per_second: Option<u64>,
    /// Starts that were measured.
    samples: usize,
}

impl From<&Experience> for MeasuredJson {
    fn from(known: &Experience) -> Self {
        Self {
            start_p50_ms: known.start_ms(50),
            start_p95_ms: known.start_ms(95),
            response_ms: known.response_ms,
            upload_bytes_per_second: known.upload_rate,
            download_bytes_per_second: known.download_rate,
            samples: known.samples(),
        }
    }
}

/// What this gateway's own receipted sessions say.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OwnRecord)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnJson {
    completed: u64,
    failed: u64,
    disputed: u64,
    runs: u64,
    failed_runs: u64,
    charged: Decimal,
    last_used: Option<Time>,
}

impl From<&Experience> for OwnJson {
    fn from(known: &Experience) -> Self {
        Self {
            completed: known.completed,
            failed: known.failed,
            disputed: known.disputed,
            runs: known.runs,
            failed_runs: known.failed_runs,
            charged: Decimal(known.charged),
            last_used: known.last_used.map(Time),
        }
    }
}

/// What somebody else attests; nobody does yet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attestation)]
pub(crate) struct AttestationJson {}
