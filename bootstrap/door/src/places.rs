//! The places that connections take, and who leaves when there are none.
//!
//! Always true: there are never more connections than places; a newcomer is given the place of whoever has been idle for longest, strangers before those who
//! have been let in before, so that nobody keeps others out by holding connections and asking nothing; a request in flight is never thrown out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a connection is left alone after it was made or has been answered: far longer than a client on a busy machine needs to ask after it has connected,
/// and short enough that a flood of idle ones makes others wait for no more than a moment.
const SPARED: Duration = Duration::from_millis(250);

/// All places of a door.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seats: BTreeMap<u64, Seat>,
    /// Those that are idle, strangers and known ones apart, whoever has been for longest first: in a flood nobody looks at every place for each newcomer.
    idle: [BTreeSet<(Instant, u64)>; 2],
}

#[derive(Debug)]
struct Seat {
    /// Since when nothing is asked; none while a request is in flight.
    idle: Option<Instant>,
    /// Whether somebody was let in by it.
    is_known: bool,
    leave: CancellationToken,
}

impl Taken {
    fn take(&mut self, number: u64, seat: Seat) {
        if let Some(since) = seat.idle {
            self.idle[usize::from(seat.is_known)].insert((since, number));
        }
        self.seats.insert(number, seat);
    }

    fn give_up(&mut self, number: u64) -> Option<Seat> {
        let seat = self.seats.remove(&number)?;
        if let Some(since) = seat.idle {
            self.idle[usize::from(seat.is_known)].remove(&(since, number));
        }
        Some(seat)
    }

    /// Who has to leave for a newcomer; else when somebody may have to, if anybody is idle.
    fn leaver(&self, now: Instant) -> Result<u64, Option<Duration>> {
        let firsts =
            || self.idle.iter().filter_map(BTreeSet::first).map(|(since, number)| (now.saturating_duration_since(*since), *number));
        let leaver = firsts().find(|(age, _)| *age >= SPARED);
        leaver.map(|(_, number)| number).ok_or_else(|| firsts().map(|(age, _)| SPARED.saturating_sub(age)).min())
    }
}

/// What there is for a newcomer.
pub(crate) enum Offered {
    /// A place.
    Place(Place),
    /// Nothing yet; somebody may have to leave when so much time has passed.
    Later(Duration),
    /// Nothing: a request is in flight at every place.
    Nothing,
}

/// One taken place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    leave: CancellationToken,
}

/// A request in flight; the connection is idle again when this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Place>);

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for a place, sending somebody away if need be.
    pub(crate) fn offer(self: &Arc<Self>) -> Offered {
        let now = Instant::now();
        let mut taken = self.taken();
        if taken.seats.len() >= self.max {
            match taken.leaver(now) {
                Ok(leaver) => taken.give_up(leaver).iter().for_each(|seat| seat.leave.cancel()),
                Err(wait) => return wait.map_or(Offered::Nothing, Offered::Later),
            }
        }
        let (number, leave) = (taken.next, CancellationToken::new());
        taken.next = taken.next.wrapping_add(1);
        taken.take(number, Seat { idle: Some(now), is_known: false, leave: leave.clone() });
        Offered::Place(Place { places: Arc::clone(self), number, leave })
    }
}

impl Place {
    /// Returns when the place is given to somebody else.
    pub(crate) async fn taken_away(&self) {
        self.leave.cancelled().await;
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.change(|seat| seat.idle = None);
        InFlight(Arc::clone(self))
    }

    fn change(&self, how: impl FnOnce(&mut Seat)) {
        let mut taken = self.places.taken();
        if let Some(mut seat) = taken.give_up(self.number) {
            how(&mut seat);
            taken.take(self.number, seat);
        }
    }
}

impl InFlight {
    /// Whoever made the request was let in.
    pub(crate) fn was_let_in(&self) {
        self.0.change(|seat| seat.is_known = true);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.change(|seat| seat.idle = Some(Instant::now()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().give_up(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(places: &Arc<Places>) -> Option<Arc<Place>> {
        match places.offer() {
            Offered::Place(place) => Some(Arc::new(place)),
            Offered::Later(_) | Offered::Nothing => None,
        }
    }

    fn age(place: &Place, by: Duration) {
        place.change(|seat| seat.idle = seat.idle.and_then(|since| since.checked_sub(by)));
    }

    #[test]
    fn a_stranger_who_is_idle_leaves_before_one_who_was_let_in_and_a_request_in_flight_never() {
        let places = Places::new(3);
        let (known, stranger, busy) = (place(&places).unwrap(), place(&places).unwrap(), place(&places).unwrap());
        let request = busy.begin();
        known.begin().was_let_in();
        age(&known, SPARED * 3);
        age(&stranger, SPARED);
        let fourth = place(&places).unwrap();
        assert!(stranger.leave.is_cancelled() && !known.leave.is_cancelled() && !busy.leave.is_cancelled());
        let fifth = place(&places).unwrap();
        assert!(known.leave.is_cancelled() && !busy.leave.is_cancelled());
        assert!(matches!(places.offer(), Offered::Later(wait) if wait <= SPARED), "the newest are spared for a moment");
        let (_four, _five) = (fourth.begin(), fifth.begin());
        assert!(matches!(places.offer(), Offered::Nothing));
        drop(request);
        drop(busy);
        assert!(place(&places).is_some(), "a place that frees is given");
    }
}
