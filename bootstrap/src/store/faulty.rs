//! A disk whose power fails, for the tests of every store: the image that a crash leaves is opened again, and what it says is audited.
//!
//! Always true: what was synced survives; of what was not, each write survives whole, in part, or not at all, as a seed decides; after the cut nothing is read or written
//! any more. It assumes what redb assumes of a disk, and no more: bytes are written whole, a finished sync holds, a write touches nothing outside of it.
//!
//! It is compiled only with the feature `faulty-store`, which no program enables.

use std::io::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What a disk writes at once. A write that spans several may leave any of them behind.
const SECTOR: usize = 512;

/// A disk in memory. A clone is another handle on the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a running process reads: everything written.
    live: Vec<u8>,
    /// What is certain to survive.
    durable: Vec<u8>,
    /// What came since the last sync, in order.
    unsynced: Vec<Change>,
    /// Writes, syncs and changes of length so far.
    operations: u64,
    /// Before which operation is done the power fails, and the seed of what survives.
    cut: Option<(u64, u64)>,
    /// What survived, once the power has failed.
    left: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl FaultyDisk {
    /// A disk that holds this.
    pub fn holding(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { live: image.clone(), durable: image, ..State::default() })))
    }

    /// Lets the power fail in the middle of an operation, counted from 0: it is under way and never reported as done.
    pub fn cut_at(&self, operation: u64, seed: u64) {
        self.state().cut = Some((operation, seed));
    }

    /// Operations so far: writes, syncs and changes of length.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.state().left.is_some()
    }

    /// Lets the power fail now, unless it has, and gives what is left.
    pub fn left(&self, seed: u64) -> Vec<u8> {
        let mut state = self.state();
        state.fail(seed);
        state.left.clone().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation and does it, or lets the power fail in it.
    fn operate(&mut self, change: Option<Change>) -> Result<(), Error> {
        if self.left.is_some() {
            return Err(off());
        }
        let fails = self.cut.filter(|(at, _)| *at == self.operations);
        self.operations = self.operations.saturating_add(1);
        let is_sync = change.is_none();
        if let Some(change) = change {
            change.apply(&mut self.live);
            self.unsynced.push(change);
        }
        if let Some((_, seed)) = fails {
            self.fail(seed);
            return Err(off());
        }
        if is_sync {
            self.unsynced.drain(..).for_each(|change| change.apply(&mut self.durable));
        }
        Ok(())
    }

    fn fail(&mut self, seed: u64) {
        if self.left.is_some() {
            return;
        }
        let mut dice = Dice(seed);
        // Extremes are likelier to show a fault than the mixture between them.
        let fate = dice.below(4);
        let mut left = std::mem::take(&mut self.durable);
        for change in self.unsynced.drain(..) {
            match if fate < 2 { fate } else { dice.below(3) } {
                0 => {}
                1 => change.apply(&mut left),
                _ => change.tear(&mut left, &mut dice),
            }
        }
        self.left = Some(left);
    }
}

impl Change {
    /// A write beyond the end is lost there: how long the file is, is a change of its own.
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(image, *at, bytes),
            Self::Length(length) => image.resize(*length, 0),
        }
    }

    fn tear(&self, image: &mut Vec<u8>, dice: &mut Dice) {
        match self {
            Self::Write { at, bytes } if dice.below(2) == 0 => {
                let whole = bytes.get(..dice.below(bytes.len())).unwrap_or_default();
                put(image, *at, whole);
            }
            Self::Write { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let room = SECTOR - at.saturating_add(from) % SECTOR;
                    let to = from.saturating_add(room).min(bytes.len());
                    if dice.below(2) == 0 {
                        put(image, at.saturating_add(from), bytes.get(from..to).unwrap_or_default());
                    }
                    from = to;
                }
            }
            Self::Length(_) if dice.below(2) == 0 => self.apply(image),
            Self::Length(_) => {}
        }
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    let rest = image.get_mut(at..).unwrap_or_default();
    let fits = bytes.len().min(rest.len());
    // As a whole: byte by byte it is a third of what a simulation takes in a build without optimisation.
    if let (Some(place), Some(bytes)) = (rest.get_mut(..fits), bytes.get(..fits)) {
        place.copy_from_slice(bytes);
    }
}

fn off() -> Error {
    Error::other("the power is off")
}

fn place(offset: u64) -> Result<usize, Error> {
    usize::try_from(offset).map_err(Error::other)
}

/// Steele, Lea and Flood's splitmix64: the same seed always leaves the same image.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(z % end).unwrap_or(0)
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> Result<u64, Error> {
        let state = self.state();
        if state.left.is_some() { Err(off()) } else { u64::try_from(state.live.len()).map_err(Error::other) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let state = self.state();
        if state.left.is_some() {
            return Err(off());
        }
        let at = place(offset)?;
        let end = at.saturating_add(out.len());
        let held = state.live.get(at..end).ok_or_else(|| Error::new(std::io::ErrorKind::UnexpectedEof, "beyond the end"))?;
        out.copy_from_slice(held);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.state().operate(Some(Change::Length(place(len)?)))
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.state().operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut state = self.state();
        let at = place(offset)?;
        let end = at.saturating_add(data.len());
        if end > state.live.len() {
            // A file grows under a write beyond its end.
            state.operate(Some(Change::Length(end)))?;
        }
        state.operate(Some(Change::Write { at, bytes: data.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn disk() -> FaultyDisk {
        let disk = FaultyDisk::holding(vec![0; 2048]);
        disk.write(0, &[1; 2048]).unwrap();
        disk.sync_data().unwrap();
        disk.write(256, &[2; 1536]).unwrap();
        disk
    }

    #[test]
    fn what_was_synced_survives_and_of_the_rest_any_part() {
        let mut kinds = BTreeSet::new();
        for seed in 0..200 {
            let left = disk().left(seed);
            assert!(left[..256].iter().chain(&left[1792..]).all(|byte| *byte == 1), "nothing outside of a write changes");
            let new = left.iter().filter(|byte| **byte == 2).count();
            kinds.insert(match new {
                0 => "lost",
                1536 => "whole",
                _ if left[256..256 + new].iter().all(|byte| *byte == 2) => "a prefix",
                _ => "scattered",
            });
        }
        assert_eq!(kinds.len(), 4, "{kinds:?}");
    }

    #[test]
    fn the_same_seed_leaves_the_same_image() {
        assert!((0..50).all(|seed| disk().left(seed) == disk().left(seed)));
    }

    #[test]
    fn after_the_cut_nothing_works_and_the_operation_under_way_is_not_reported_as_done() {
        let disk = disk();
        assert_eq!(disk.operations(), 3);
        disk.cut_at(4, 0);
        disk.write(0, &[3; 8]).unwrap();
        assert!(disk.sync_data().is_err() && disk.is_off());
        assert!(disk.write(0, &[4]).is_err() && disk.set_len(1).is_err() && disk.len().is_err() && disk.read(0, &mut [0]).is_err());
        assert_eq!(disk.operations(), 5);
        assert_eq!(disk.left(1), disk.left(2), "the power fails once");
    }

    #[test]
    fn a_longer_file_is_not_certain_before_a_sync() {
        let length = |seed| {
            let disk = FaultyDisk::holding(vec![7; 10]);
            disk.write(8, &[9; 4]).unwrap();
            disk.left(seed)
        };
        let lengths: BTreeSet<usize> = (0..100).map(|seed| length(seed).len()).collect();
        assert_eq!(lengths, BTreeSet::from([10, 12]));
        assert!((0..100).map(length).all(|left| left[..8] == [7; 8]));
    }
}
