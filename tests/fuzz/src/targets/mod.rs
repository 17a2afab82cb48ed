//! The fuzz targets: each takes any bytes and panics if something that must always hold does not. Plain functions, so that a fuzzer and `cargo test` run the same ones.
//!
//! They see the product through its public doors only and know nothing of what drives them.

mod agent;
mod audit;
mod bytes;
mod catalogue;
mod claim;
mod client;
mod http;
mod money;
mod pair;
mod provider;
mod provider_config;
mod seeds;
mod shop;
mod stream;
mod text;
mod wire;
mod world;

pub(crate) use seeds::seeds;

/// A target: its name, which is also its folder of inputs, and what it does with bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: &[Target] = &[
    ("catalogue", catalogue::catalogue),
    ("claim", claim::claim),
    ("credit_book", money::credit_book),
    ("digest", wire::digest),
    ("frame_stream", stream::frame_stream),
    ("frames", wire::frames),
    ("http_body", http::http_body),
    ("job_arguments", provider_config::job_arguments),
    ("money", money::money),
    ("money_statement", wire::money_statement),
    ("names", text::names),
    ("network_file", text::network_file),
    ("offer", wire::offer),
    ("provider_config", provider_config::provider_config),
    ("receipt", wire::receipt),
    ("session_agent", agent::session_agent),
    ("session_pair", pair::session_pair),
    ("session_provider", provider::session_provider),
    ("terms", wire::terms),
];
