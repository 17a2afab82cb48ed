//! The host users that a root node's sessions run as: one for each, from a range that belongs to the sandbox.
//!
//! Always true: no two living sessions share a user, so that what separates them does not rest on namespaces alone; root is never one
//! of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// First user of the range when nothing is configured: beyond what systems, services and containers are given.
pub const FIRST_USER_DEFAULT: u32 = 1_900_000_000;
/// How many the range has: more sessions than any node has at once.
pub const USERS: u32 = 65_536;

/// The range and who of it is taken.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    first: u32,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl Users {
    /// `None` when the range would hold root or run over the end of numbers.
    pub(crate) fn new(first: u32) -> Option<Self> {
        // The highest number means "no user" to the kernel.
        (first > 0 && first.checked_add(USERS).is_some()).then(|| Self { first, taken: Arc::default() })
    }

    /// The lowest free one.
    pub(crate) fn take(&self) -> Option<User> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (self.first..self.first.saturating_add(USERS)).find(|id| !taken.contains(id))?;
        taken.insert(id);
        drop(taken);
        Some(User { id, taken: Arc::clone(&self.taken) })
    }
}

/// One of them, taken while this is held.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: u32,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl Drop for User {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_given_to_one_session_at_a_time_and_is_never_root() {
        assert!(Users::new(0).is_none() && Users::new(u32::MAX).is_none());
        let users = Users::new(7).unwrap();
        let (one, two) = (users.take().unwrap(), users.take().unwrap());
        assert_eq!((one.id, two.id), (7, 8));
        drop(one);
        assert_eq!(users.take().unwrap().id, 7);
    }
}
