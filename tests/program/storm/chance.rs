//! A small random source with a seed, so that a storm can be asked for again.

use std::time::Duration;

/// SplitMix64: every seed gives a good stream, and streams of neighbouring seeds have nothing in common.
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of a seed; each part of a storm has a `branch` of its own.
    pub(crate) fn new(seed: u64, branch: u64) -> Self {
        let mut chance = Self(seed);
        Self(chance.next() ^ branch.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to and without `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.between(0, times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::try_from(self.between(0, among.len() as u64)).unwrap()]
    }

    /// Waits for less than so many milliseconds.
    pub(crate) fn pause(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(self.between(0, ms)));
    }
}
