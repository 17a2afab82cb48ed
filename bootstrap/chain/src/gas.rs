//! How much gas a transaction may use. It is set here and never estimated: an estimate finds the least gas at which the call as a whole succeeds, and with that a delivery inside it may fail.
//!
//! Always true: what is not used is not paid, so a limit may be generous; the sender still has to own what it would cost at most.

/// Of a call of claims itself, and what the escrow insists on having left before its last delivery.
const CLAIMS_BASE: u64 = 100_000 + 150_000;
/// Of one claim at its most: three signatures, a channel and an account seen for the first time, and its call data.
const PER_CLAIM: u64 = 120_000;
/// Of one delivery at its most, to a payee who never held the token.
const PER_PAYEE: u64 = 100_000;
/// What a chain that counts the cost of data in gas may ask for it: as much as a whole transaction of Ethereum may use. More is a node that is wrong.
const DATA_MAX: u64 = 1 << 24;

/// Of a call that redeems so many claims of so many payees, whatever their data costs beside it.
pub const fn of_claims(claims: usize, payees: usize) -> u64 {
    CLAIMS_BASE.saturating_add(times(PER_CLAIM, claims)).saturating_add(times(PER_PAYEE, payees))
}

/// A limit with room for data, where a chain counts its cost in gas: half as much again, since that cost follows the price of another chain and may have risen by the time the transaction is in a block.
pub const fn with_data(limit: u64, data: u64) -> u64 {
    let data = if data < DATA_MAX { data } else { DATA_MAX };
    limit.saturating_add(data.saturating_add(data.div_ceil(2)))
}

const fn times(gas: u64, count: usize) -> u64 {
    gas.saturating_mul(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_grows_with_claims_and_payees() {
        assert_eq!(of_claims(1, 1), 470_000);
        assert_eq!(of_claims(50, 2), 250_000 + 50 * 120_000 + 2 * 100_000);
        assert_eq!(of_claims(usize::MAX, usize::MAX), u64::MAX);
    }

    #[test]
    fn the_cost_of_data_comes_on_top_with_half_as_much_again_and_never_without_bound() {
        assert_eq!(with_data(470_000, 0), 470_000, "most chains count none");
        assert_eq!(with_data(470_000, 6_400_001), 470_000 + 9_600_002, "Arbitrum while Ethereum is dear");
        assert_eq!(with_data(470_000, u64::MAX), 470_000 + (3 << 23), "a node that is wrong");
    }
}
