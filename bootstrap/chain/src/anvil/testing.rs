//! A local chain for a test, or a loud word that there is none.

use super::{LocalChain, LocalSettings, LocalToken, find};

/// Starts a local chain. Where anvil is not installed the test says so loudly and passes; with `ORIEN_EVERY_CLIENT=1`, as in CI, it is a failure, and so is
/// a chain without the real USDC.
#[expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "it is only called by tests, whose failure is a panic and whose gaps have to be seen"
)]
pub async fn chain_for_test(settings: &LocalSettings) -> Option<LocalChain> {
    let demanded = std::env::var_os("ORIEN_EVERY_CLIENT").is_some_and(|value| value == "1");
    if let Err(error) = find() {
        assert!(!demanded, "{error}");
        eprintln!("NOT TESTED: {error}; or run tests/clients/install chain");
        return None;
    }
    let local = LocalChain::start(settings).await.unwrap_or_else(|error| panic!("{error}"));
    if settings.token.is_none() && local.token() != LocalToken::Usdc {
        assert!(!demanded, "USDC's own code is missing; run tests/clients/install chain");
        eprintln!("NOT TESTED with USDC's own code, which is missing; run tests/clients/install chain");
    }
    Some(local)
}
