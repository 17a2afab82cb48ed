//! The only way to a chain: reads, finalized logs, calldata and raw sends.
//!
//! It decides nothing and keeps nothing.
