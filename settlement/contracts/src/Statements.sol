// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What is signed off chain and checked here: the same EIP-712 types that every peer of a network signs.
/// All of them are cumulative for one channel, so that loss, order and repetition change nothing.

/// One claim: everything that decides where money goes, and what was promised and reserved.
/// Signatures are compact (EIP-2098). `allowanceR` of zero means: under the ceiling that this contract already knows of
/// the channel. `closeR` of zero means: the session is not over.
struct Claim {
    // The channel: its id is the hash of these, with chain and contract.
    address account;
    address spendingKey;
    address payout;
    bytes32 provider;
    address signer;
    bytes16 lane;
    // The agent's voucher.
    uint64 total;
    uint64 receiptNumber;
    bytes32 receiptHash;
    bytes32 voucherR;
    bytes32 voucherVS;
    // Settlement's allowance.
    uint64 ceiling;
    uint64 workUntil;
    uint64 redeemUntil;
    bytes32 termsHash;
    address claimKey;
    bytes32 allowanceR;
    bytes32 allowanceVS;
    // The payee's close.
    uint64 closeTotal;
    bytes32 closeR;
    bytes32 closeVS;
}

/// Digests of the statements and the id of a channel.
library Statements {
    bytes32 internal constant VOUCHER =
        keccak256("Voucher(bytes32 channelId,uint64 total,uint64 receiptNumber,bytes32 receiptHash)");
    bytes32 internal constant ALLOWANCE = keccak256(
        "Allowance(bytes32 channelId,uint64 ceiling,uint64 workUntil,uint64 redeemUntil,bytes32 termsHash,address claimKey)"
    );
    bytes32 internal constant CLOSE = keccak256("Close(bytes32 channelId,uint64 total)");
    bytes32 internal constant DEPOSIT =
        keccak256("Deposit(address account,address spendingKey,uint64 amount,bytes32 salt,uint64 deadline)");

    /// The id of a claim's channel at this contract on this chain.
    function channelId(Claim calldata claim) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                block.chainid,
                address(this),
                claim.account,
                claim.spendingKey,
                claim.payout,
                claim.provider,
                claim.signer,
                claim.lane
            )
        );
    }

    /// The struct hash of the claim's voucher.
    function voucher(Claim calldata claim, bytes32 channel) internal pure returns (bytes32) {
        return keccak256(abi.encode(VOUCHER, channel, claim.total, claim.receiptNumber, claim.receiptHash));
    }

    /// The struct hash of the claim's allowance.
    function allowance(Claim calldata claim, bytes32 channel) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                ALLOWANCE,
                channel,
                claim.ceiling,
                claim.workUntil,
                claim.redeemUntil,
                claim.termsHash,
                claim.claimKey
            )
        );
    }

    /// The struct hash of the claim's close.
    function close(Claim calldata claim, bytes32 channel) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLOSE, channel, claim.closeTotal));
    }
}

/// How a cumulative total is shared: a tenth is fees, seven tenths of it the platform's, the rest the reserve's; the
/// provider has what is left and so takes the rounding. Every share only grows with the total, so differences of
/// cumulative splits are what is paid.
library Split {
    function shares(uint256 total) internal pure returns (uint256 provider, uint256 platform, uint256 reserve) {
        unchecked {
            // Of a total below 2^64 nothing overflows.
            uint256 fees = total / 10;
            platform = fees * 7 / 10;
            reserve = fees - platform;
            provider = total - fees;
        }
    }
}
