// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Accounts} from "./Accounts.sol";
import {Setup} from "./Network.sol";
import {Claim, Split, Statements} from "./Statements.sol";

/// Where agents' money waits, and the only place that pays providers: deposit once, rent from anybody.
///
/// Always true: money leaves an account only to the payout address inside a channel whose vouchers the account's own
/// spending key signed, within a ceiling that the network's settlement signed, split by code; or back to the account
/// itself after the exit delay. Nobody can pause, upgrade or redirect anything, the operator included.
///
/// It does not know receipts, sessions or work: a voucher names the head of a receipt chain by its hash, and that is all.
contract Escrow is Accounts {
    /// What is known of one channel.
    struct Channel {
        /// Paid out so far, all three shares together.
        uint64 redeemed;
        /// The highest ceiling that was proven here.
        uint64 ceiling;
        /// Until when that ceiling counts.
        uint64 redeemUntil;
        /// Set aside from the account for this channel alone, and not yet paid.
        uint56 locked;
        /// Whether the payee said that nothing more follows.
        bool closed;
    }

    /// Why a claim was passed over. The others of its batch are not touched.
    enum Refusal {
        None,
        ChannelClosed,
        SignerUnknown,
        KeyUnknown,
        BadVoucher,
        NoAllowance,
        BadAllowance,
        TooLate,
        BadClose
    }

    /// Channels by id.
    mapping(bytes32 id => Channel) public channels;

    /// A claim was paid, wholly or as far as the escrow reached. `redeemed` is the channel's total after it.
    event Redeemed(
        bytes32 indexed channelId, address indexed account, address indexed payout, uint64 paid, uint64 redeemed, bool closed
    );
    /// A claim was passed over.
    event ClaimRefused(bytes32 indexed channelId, Refusal reason);
    /// An allowance was locked: `amount` of the account can only go to this channel until then.
    event Locked(bytes32 indexed channelId, address indexed account, uint64 amount, uint64 until);
    /// What was left of a lock is the account's again.
    event Unlocked(bytes32 indexed channelId, address indexed account, uint64 amount);

    /// The claim cannot be locked.
    error NotLockable(Refusal reason);
    /// The account has less free than the lock takes.
    error NotEnoughFree(uint64 free, uint64 wanted);
    /// The lock still holds.
    error StillLocked(uint64 until);

    constructor(Setup memory setup) Accounts(setup) {}

    /// Pays what is new in each claim. Anybody may call it, as often as they like, with claims in any order; claims of one
    /// payout address that stand beside each other become one transfer. A bad claim is passed over with an event.
    function redeem(Claim[] calldata claims) external nonReentrant {
        uint256 platform;
        uint256 reserve;
        uint256 pending;
        address payee;
        for (uint256 i; i < claims.length; ++i) {
            Claim calldata claim = claims[i];
            if (claim.payout != payee) {
                _pay(payee, pending);
                (payee, pending) = (claim.payout, 0);
            }
            (uint256 toProvider, uint256 toPlatform, uint256 toReserve) = _redeem(claim);
            unchecked {
                // Sums of shares of balances that are below 2^64 each; the token's supply bounds them.
                pending += toProvider;
                platform += toPlatform;
                reserve += toReserve;
            }
        }
        _pay(payee, pending);
        _accrue(platform, reserve);
    }

    /// Sets what is left under a claim's allowance aside for its channel alone, until `redeemUntil`. The voucher shows that the
    /// agent takes part in the channel; the allowance that settlement reserved it. It must fit whole.
    function lock(Claim calldata claim) external nonReentrant {
        bytes32 id = Statements.channelId(claim);
        Channel memory channel = channels[id];
        (Refusal reason,) = _check(claim, id, channel);
        if (reason == Refusal.None && claim.allowanceR == 0) reason = Refusal.NoAllowance;
        if (reason == Refusal.None && claim.redeemUntil > block.timestamp + exitDelay) reason = Refusal.TooLate;
        if (reason != Refusal.None) revert NotLockable(reason);
        uint64 ceiling = claim.ceiling > channel.ceiling ? claim.ceiling : channel.ceiling;
        uint64 held = channel.redeemed + channel.locked;
        uint64 more = ceiling > held ? ceiling - held : 0;
        Account storage account = accounts[claim.account];
        uint64 free = account.balance - account.locked;
        if (more > free) revert NotEnoughFree(free, more);
        account.locked += more;
        channel.locked += uint56(more);
        channel.ceiling = ceiling;
        if (claim.redeemUntil > channel.redeemUntil) channel.redeemUntil = claim.redeemUntil;
        channels[id] = channel;
        emit Locked(id, claim.account, more, channel.redeemUntil);
    }

    /// Gives what is left of a lock back to its account: after the channel was closed, or its time is over. Anybody may call it.
    function unlock(Claim calldata claim) external nonReentrant {
        bytes32 id = Statements.channelId(claim);
        Channel storage channel = channels[id];
        if (!channel.closed && block.timestamp <= channel.redeemUntil) revert StillLocked(channel.redeemUntil);
        _release(claim.account, id, channel);
    }

    /// What is known of some channels, in their order: peers that look after many read them by one call.
    function channelsOf(bytes32[] calldata ids) external view returns (Channel[] memory found) {
        found = new Channel[](ids.length);
        for (uint256 i; i < ids.length; ++i) {
            found[i] = channels[ids[i]];
        }
    }

    /// The id of a claim's channel, as every peer computes it.
    function channelIdOf(Claim calldata claim) external view returns (bytes32) {
        return Statements.channelId(claim);
    }

    /// One claim: checks it, takes what it brings from the account and returns its shares. Never reverts for what the claim says.
    function _redeem(Claim calldata claim) private returns (uint256 provider, uint256 platform, uint256 reserve) {
        bytes32 id = Statements.channelId(claim);
        Channel memory channel = channels[id];
        (Refusal reason, uint256 limit) = _check(claim, id, channel);
        if (reason != Refusal.None) {
            emit ClaimRefused(id, reason);
            return (0, 0, 0);
        }
        uint64 paid = _take(claim, channel, limit);
        // A close frees the rest only when all that it leaves has been paid.
        bool closes = claim.closeR != 0 && channel.redeemed + paid >= limit;
        if (paid == 0 && !closes) return (0, 0, 0);
        if (paid != 0) {
            (uint256 a, uint256 b, uint256 c) = Split.shares(channel.redeemed);
            (provider, platform, reserve) = Split.shares(uint256(channel.redeemed) + paid);
            unchecked {
                (provider, platform, reserve) = (provider - a, platform - b, reserve - c);
            }
            channel.redeemed += paid;
        }
        channel.closed = closes;
        channels[id] = channel;
        if (closes && channel.locked != 0) _release(claim.account, id, channels[id]);
        emit Redeemed(id, claim.account, claim.payout, paid, channel.redeemed, closes);
    }

    /// Whether a claim counts, and up to which total. Notes a newly proven ceiling in `channel`.
    function _check(Claim calldata claim, bytes32 id, Channel memory channel) private view returns (Refusal, uint256 limit) {
        if (channel.closed) return (Refusal.ChannelClosed, 0);
        if (block.timestamp > signers[claim.signer]) return (Refusal.SignerUnknown, 0);
        if (block.timestamp > keys[claim.account][claim.spendingKey]) return (Refusal.KeyUnknown, 0);
        if (!_signed(Statements.voucher(claim, id), claim.voucherR, claim.voucherVS, claim.spendingKey)) {
            return (Refusal.BadVoucher, 0);
        }
        uint256 ceiling = channel.ceiling;
        uint256 until = channel.redeemUntil;
        if (claim.allowanceR != 0) {
            if (!_signed(Statements.allowance(claim, id), claim.allowanceR, claim.allowanceVS, claim.signer)) {
                return (Refusal.BadAllowance, 0);
            }
            (ceiling, until) = (claim.ceiling, claim.redeemUntil);
        } else if (until == 0) {
            return (Refusal.NoAllowance, 0);
        }
        if (block.timestamp > until) return (Refusal.TooLate, 0);
        limit = claim.total < ceiling ? claim.total : ceiling;
        if (claim.closeR != 0) {
            // Without the allowance nobody knows the claim key.
            bool proven = claim.allowanceR != 0
                && _signed(Statements.close(claim, id), claim.closeR, claim.closeVS, claim.claimKey);
            if (!proven || claim.closeTotal < channel.redeemed) return (Refusal.BadClose, 0);
            if (claim.closeTotal < limit) limit = claim.closeTotal;
        }
        if (ceiling > channel.ceiling) channel.ceiling = uint64(ceiling);
        if (until > channel.redeemUntil) channel.redeemUntil = uint64(until);
        return (Refusal.None, limit);
    }

    /// Takes from the account what is due up to `limit`, as far as it has it: first what is locked for the channel.
    function _take(Claim calldata claim, Channel memory channel, uint256 limit) private returns (uint64) {
        if (limit <= channel.redeemed) return 0;
        uint256 due = limit - channel.redeemed;
        Account storage account = accounts[claim.account];
        uint256 balance = account.balance;
        uint256 locked = account.locked;
        uint256 free = balance - locked + channel.locked;
        uint256 paid = due < free ? due : free;
        if (paid == 0) return 0;
        account.balance = uint64(balance - paid);
        if (channel.locked != 0) {
            uint256 unlocked = paid < channel.locked ? paid : channel.locked;
            account.locked = uint64(locked - unlocked);
            channel.locked -= uint56(unlocked);
        }
        return uint64(paid);
    }

    /// What is left of a channel's lock becomes free.
    function _release(address owner, bytes32 id, Channel storage channel) private {
        uint64 left = channel.locked;
        if (left == 0) return;
        channel.locked = 0;
        accounts[owner].locked -= left;
        emit Unlocked(id, owner, left);
    }
}
