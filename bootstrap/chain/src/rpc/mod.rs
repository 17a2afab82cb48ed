//! Speaking to nodes: bounded transport, one node with its patience, and several that have to agree.

pub(crate) mod agree;
pub(crate) mod node;
mod transport;
pub(crate) mod wire;
