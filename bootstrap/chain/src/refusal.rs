//! What nodes say when they are handed a transaction, told apart by their words: there is no agreed code for any of it.

use crate::types::Sent;

/// What an error answer to `eth_sendRawTransaction` means.
pub(crate) fn classify(message: &str) -> Sent {
    let text: String = message.to_ascii_lowercase().chars().map(|c| if c == '_' { ' ' } else { c }).collect();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // `unknown transaction type` has `known transaction` in it.
    let known_word = text.replace("unknown transaction", "").contains("known transaction");
    if known_word
        || has(&[
            "already known",
            "alreadyknown",
            "already imported",
            "already in mempool",
            "already exists in cache",
            "existing tx with same hash",
            "duplicate transaction",
        ])
    {
        return Sent::AlreadyKnown;
    }
    if has(&[
        "nonce too low",
        "nonce is too low",
        "oldnonce",
        "old nonce",
        "nonce below sender",
        "ownnoncealreadyused",
        "nonce already used",
    ]) {
        return Sent::NonceTooLow;
    }
    if has(&[
        "replacement transaction underpriced",
        "transaction replacement underpriced",
        "replacementnotallowed",
        "could not replace existing",
        "to replace existing transaction",
        "another transaction with same nonce",
        "not replaced",
    ]) {
        return Sent::ReplacementUnderpriced;
    }
    if has(&[
        "insufficient funds",
        "insufficientfunds",
        "upfront cost exceeds",
        "insufficient balance",
        "insufficient account balance",
        "not have enough funds",
    ]) {
        return Sent::InsufficientFunds;
    }
    if has(&[
        "underpriced",
        "less than block base fee",
        "less than base fee",
        "below base fee",
        "feetoolow",
        "fee too low",
        "gas price below",
        "gas price too low",
        "gas price is too low",
        "max fee per gas too low",
        "tip cap too low",
        "try increasing the fee",
    ]) {
        return Sent::FeeTooLow;
    }
    Sent::Rejected(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Sent)] = &[
        // geth
        ("already known", Sent::AlreadyKnown),
        ("known transaction: 0x5bd2", Sent::AlreadyKnown),
        ("nonce too low", Sent::NonceTooLow),
        ("nonce too low: next nonce 5, tx nonce 4", Sent::NonceTooLow),
        ("replacement transaction underpriced", Sent::ReplacementUnderpriced),
        ("transaction underpriced", Sent::FeeTooLow),
        ("transaction underpriced: gas tip cap 0, minimum needed 1", Sent::FeeTooLow),
        ("max fee per gas less than block base fee: address 0xab, maxFeePerGas: 1, baseFee: 875000000", Sent::FeeTooLow),
        ("insufficient funds for gas * price + value: balance 0, tx cost 21000, overshot 21000", Sent::InsufficientFunds),
        // erigon, and those who put its words behind a code
        ("existing tx with same hash", Sent::AlreadyKnown),
        ("could not replace existing tx", Sent::ReplacementUnderpriced),
        ("INTERNAL_ERROR: could not replace existing tx", Sent::ReplacementUnderpriced),
        ("ALREADY_EXISTS: already known", Sent::AlreadyKnown),
        ("fee too low", Sent::FeeTooLow),
        ("underpriced", Sent::FeeTooLow),
        // nethermind
        ("AlreadyKnown", Sent::AlreadyKnown),
        ("OldNonce, Current nonce: 5, nonce of rejected tx: 4.", Sent::NonceTooLow),
        ("OwnNonceAlreadyUsed", Sent::NonceTooLow),
        ("ReplacementNotAllowed", Sent::ReplacementUnderpriced),
        ("FeeTooLow, EffectivePriorityFeePerGas too low 0 < 1", Sent::FeeTooLow),
        ("FeeTooLowToCompete", Sent::FeeTooLow),
        ("InsufficientFunds, Account balance: 0, cumulative cost: 21000", Sent::InsufficientFunds),
        // reth and what is built on it, Arc among them; anvil
        ("transaction already imported", Sent::AlreadyKnown),
        ("[0x5bd2] Already imported", Sent::AlreadyKnown),
        ("Tx: [0x5bd2] insufficient gas price to replace existing transaction", Sent::ReplacementUnderpriced),
        ("max fee per gas less than block base fee", Sent::FeeTooLow),
        ("Insufficient funds for gas * price + value", Sent::InsufficientFunds),
        // besu
        ("Known transaction", Sent::AlreadyKnown),
        ("Nonce too low", Sent::NonceTooLow),
        ("Transaction nonce below sender account nonce", Sent::NonceTooLow),
        ("TRANSACTION_REPLACEMENT_UNDERPRICED", Sent::ReplacementUnderpriced),
        ("Gas price below configured minimum gas price", Sent::FeeTooLow),
        ("Upfront cost exceeds account balance", Sent::InsufficientFunds),
        // OpenEthereum's words live on in its heirs
        ("Transaction with the same hash was already imported.", Sent::AlreadyKnown),
        ("Transaction nonce is too low. Try incrementing the nonce.", Sent::NonceTooLow),
        (
            "Transaction gas price is too low. There is another transaction with same nonce in the queue. Try increasing the gas price or incrementing the nonce.",
            Sent::ReplacementUnderpriced,
        ),
        ("Insufficient funds. The account you tried to send transaction from does not have enough funds.", Sent::InsufficientFunds),
    ];

    #[test]
    fn the_words_of_every_known_node_are_understood() {
        for (text, expected) in KNOWN {
            assert_eq!(classify(text), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_rejected_and_never_taken_for_success() {
        for text in [
            "unknown transaction",
            "unknown transaction type",
            "Unknown transaction type 0x7e",
            "nonce too high",
            "intrinsic gas too low",
            "intrinsic gas too low: gas 20000, minimum needed 21000",
            "exceeds block gas limit",
            "txpool is full",
            "invalid sender",
            "only replay-protected (EIP-155) transactions allowed over RPC",
            "sender is blocklisted",
            "NonceGap, Future nonce. Expected nonce: 4",
            "tx fee (2.10 ether) exceeds the configured cap (1.00 ether)",
            "",
        ] {
            assert_eq!(classify(text), Sent::Rejected(text.to_owned()), "{text}");
        }
    }
}
