//! What is made of measured times.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Where a program is, by the usual search.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The middle of the samples, which are sorted on the way, in microseconds.
pub(super) fn median(samples: &mut [Duration]) -> f64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).map_or(0.0, |middle| micros(*middle))
}

/// The sample that so many of a hundred are not above; of sorted samples.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000_000.0
}

/// To so many digits behind the point.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// How long something took, over many times; milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spread {
    pub(super) samples: usize,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
}

impl Spread {
    pub(super) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent| round(micros(percentile(&samples, percent)) / 1000.0, 3);
        Self { samples: samples.len(), p50_ms: at(50), p95_ms: at(95), p99_ms: at(99) }
    }
}
