//! A funding wallet: the key that owns an account in the escrow, apart from the spending keys of gateways, and what it sends.

pub(crate) mod folder;
pub(crate) mod key;
pub(crate) mod paper;
pub(crate) mod reach;
pub(crate) mod record;
pub(crate) mod sending;
