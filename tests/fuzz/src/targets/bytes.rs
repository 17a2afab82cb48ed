//! Reads choices out of the bytes of one input. When they run out every choice is zero, so that a short input is a short story and never an error.

/// Amounts at which sums have gone wrong before: edges of the types, of rounding, and of the terms used here.
const EDGES: [u64; 12] = [0, 1, 499, 500, 4_999, 5_000, 5_001, 59_999, 60_000, 1 << 32, u64::MAX / 2, u64::MAX];

#[derive(Clone, Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// Less than `bound`, which is small.
    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.u8() % bound
    }

    /// An index into something of this length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::from(self.u8()) % length.max(1)
    }

    /// Usually small, sometimes at an edge, sometimes anything.
    pub(crate) fn amount(&mut self) -> u64 {
        match self.u8() {
            choice @ 0..128 => u64::from(choice) * 1_000 + u64::from(self.u8()),
            choice @ 128..240 => EDGES[usize::from(choice) % EDGES.len()],
            _ => self.u64(),
        }
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }
}
