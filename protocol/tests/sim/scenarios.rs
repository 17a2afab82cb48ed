//! Worlds that are written by hand.
