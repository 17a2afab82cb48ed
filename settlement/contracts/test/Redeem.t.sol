// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {Network} from "../src/Network.sol";
import {Claim} from "../src/Statements.sol";
import {Kit, Vm} from "./Kit.sol";
import {CallingDollar, QuietDollar} from "./Tokens.sol";

contract RedeemTest is Kit {
    function refusals() private returns (uint256 count, Escrow.Refusal last) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == Escrow.ClaimRefused.selector) {
                ++count;
                last = abi.decode(logs[i].data, (Escrow.Refusal));
            }
        }
    }

    function refused(Claim memory claim, Escrow.Refusal reason) private {
        vm.recordLogs();
        escrow.redeem(one(claim));
        (uint256 count, Escrow.Refusal last) = refusals();
        equal(count, 1, "refusals");
        equal(uint256(last), uint256(reason), "reason");
    }

    function test_a_claim_is_split_90_7_3_and_only_what_is_new_is_paid() public {
        fund(OWNER, 10 * USDC);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1_000_001, 5 * USDC)));
        equal(dollar.balanceOf(PAYOUT), 900_001, "provider");
        equal(escrow.platformFees(), 70_000, "platform");
        equal(escrow.reserveFees(), 30_000, "reserve");
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1_000_001, 5 * USDC)));
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 900_000, 5 * USDC)));
        equal(dollar.balanceOf(PAYOUT), 900_001, "provider after the same and an older claim");
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1_000_010, 5 * USDC)));
        equal(dollar.balanceOf(PAYOUT), 900_009, "provider after a newer claim");
        equal(balanceOf(OWNER), 10 * USDC - 1_000_010, "account");
    }

    function test_nothing_is_paid_above_the_ceiling_and_a_higher_one_replaces_it() public {
        fund(OWNER, 10 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 3 * USDC, 2 * USDC);
        escrow.redeem(one(claim));
        equal(redeemed(claim), 2 * USDC, "first");
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 3 * USDC, 4 * USDC)));
        equal(redeemed(claim), 3 * USDC, "second");
    }

    function test_a_known_ceiling_needs_no_second_signature() public {
        fund(OWNER, 10 * USDC);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC)));
        Claim memory bare = claimOf(OWNER, PAYOUT, 1, 5 * USDC, 9 * USDC);
        (bare.allowanceR, bare.allowanceVS, bare.ceiling, bare.redeemUntil) = (0, 0, 0, 0);
        escrow.redeem(one(bare));
        equal(redeemed(bare), 2 * USDC, "redeemed under the proven ceiling");
        Claim memory unknown = claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC);
        (unknown.allowanceR, unknown.allowanceVS) = (0, 0);
        refused(unknown, Escrow.Refusal.NoAllowance);
    }

    function test_claims_of_one_payout_address_become_one_transfer() public {
        fund(OWNER, 10 * USDC);
        Claim[] memory claims = new Claim[](3);
        claims[0] = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        claims[1] = claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC);
        claims[2] = claimOf(OWNER, address(0x901), 3, 1 * USDC, 2 * USDC);
        vm.recordLogs();
        escrow.redeem(claims);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 transfers;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter == address(dollar)) ++transfers;
        }
        equal(transfers, 2, "transfers");
        equal(dollar.balanceOf(PAYOUT), 1_800_000, "first payee");
        equal(dollar.balanceOf(address(0x901)), 900_000, "second payee");
    }

    function test_one_bad_claim_blocks_no_other() public {
        fund(OWNER, 10 * USDC);
        Claim[] memory claims = new Claim[](3);
        claims[0] = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        claims[1] = claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC);
        claims[1].total += 1;
        claims[2] = claimOf(OWNER, PAYOUT, 3, 1 * USDC, 2 * USDC);
        vm.recordLogs();
        escrow.redeem(claims);
        (uint256 count,) = refusals();
        equal(count, 1, "refusals");
        equal(dollar.balanceOf(PAYOUT), 1_800_000, "paid");
    }

    function test_whatever_is_changed_after_signing_is_refused() public {
        fund(OWNER, 10 * USDC);
        Claim memory good = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        Claim memory bad = copy(good);
        bad.payout = address(0xbad);
        refused(bad, Escrow.Refusal.BadVoucher);
        bad = copy(good);
        bad.provider = bytes32(uint256(1));
        refused(bad, Escrow.Refusal.BadVoucher);
        bad = copy(good);
        bad.lane = bytes16(uint128(2));
        refused(bad, Escrow.Refusal.BadVoucher);
        bad = copy(good);
        bad.receiptHash = bytes32(uint256(1));
        refused(bad, Escrow.Refusal.BadVoucher);
        bad = copy(good);
        bad.ceiling += 1;
        refused(bad, Escrow.Refusal.BadAllowance);
        bad = copy(good);
        bad.redeemUntil += 1;
        refused(bad, Escrow.Refusal.BadAllowance);
        bad = copy(good);
        bad.claimKey = address(1);
        refused(bad, Escrow.Refusal.BadAllowance);
        bad = copy(good);
        bad.spendingKey = vm.addr(0xbad);
        refused(bad, Escrow.Refusal.KeyUnknown);
        bad = copy(good);
        bad.signer = vm.addr(0xbad);
        refused(bad, Escrow.Refusal.SignerUnknown);
        equal(dollar.balanceOf(PAYOUT), 0, "paid");
    }

    function test_a_signature_in_the_other_form_is_refused() public {
        fund(OWNER, 10 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        claim.voucherVS = bytes32(uint256(claim.voucherVS) ^ (1 << 255));
        refused(claim, Escrow.Refusal.BadVoucher);
    }

    function test_redemption_ends_with_its_time() public {
        fund(OWNER, 10 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        vm.warp(claim.redeemUntil);
        escrow.redeem(one(claim));
        equal(redeemed(claim), 1 * USDC, "at the last second");
        Claim memory late = claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC);
        vm.warp(late.redeemUntil + 1);
        refused(late, Escrow.Refusal.TooLate);
    }

    function test_a_close_pays_to_its_total_and_ends_the_channel() public {
        fund(OWNER, 10 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 2 * USDC, 3 * USDC);
        close(claim, 1 * USDC);
        escrow.redeem(one(claim));
        equal(redeemed(claim), 1 * USDC, "redeemed");
        refused(claimOf(OWNER, PAYOUT, 1, 2 * USDC, 3 * USDC), Escrow.Refusal.ChannelClosed);
    }

    function test_a_close_of_nothing_ends_a_channel_that_was_never_used() public {
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 0, 3 * USDC);
        fund(OWNER, 10 * USDC);
        close(claim, 0);
        escrow.redeem(one(claim));
        (,,,, bool closed) = escrow.channels(escrow.channelIdOf(claim));
        require(closed, "closed");
        equal(balanceOf(OWNER), 10 * USDC, "account");
    }

    function test_a_close_by_anybody_else_or_below_what_was_paid_is_refused() public {
        fund(OWNER, 10 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 2 * USDC, 3 * USDC);
        close(claim, 1 * USDC);
        claim.closeTotal = 2 * USDC;
        refused(claim, Escrow.Refusal.BadClose);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 2 * USDC, 3 * USDC)));
        claim = claimOf(OWNER, PAYOUT, 1, 2 * USDC, 3 * USDC);
        close(claim, 1 * USDC);
        refused(claim, Escrow.Refusal.BadClose);
    }

    function test_a_short_escrow_pays_in_part_and_the_rest_later() public {
        fund(OWNER, 1 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 3 * USDC, 3 * USDC);
        close(claim, 3 * USDC);
        escrow.redeem(one(claim));
        equal(redeemed(claim), 1 * USDC, "first part");
        fund(OWNER, 5 * USDC);
        escrow.redeem(one(claim));
        equal(redeemed(claim), 3 * USDC, "all");
        equal(dollar.balanceOf(PAYOUT), 2_700_000, "provider");
        refused(claim, Escrow.Refusal.ChannelClosed);
    }

    function test_a_blocked_payee_gets_credit_and_holds_nobody_up() public {
        fund(OWNER, 10 * USDC);
        dollar.setBlocked(PAYOUT, true);
        Claim[] memory claims = new Claim[](2);
        claims[0] = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        claims[1] = claimOf(OWNER, address(0x901), 2, 1 * USDC, 2 * USDC);
        escrow.redeem(claims);
        equal(escrow.credit(PAYOUT), 900_000, "credit");
        equal(dollar.balanceOf(address(0x901)), 900_000, "the other");
        vm.expectRevert();
        escrow.payCredit(PAYOUT);
        dollar.setBlocked(PAYOUT, false);
        escrow.payCredit(PAYOUT);
        equal(dollar.balanceOf(PAYOUT), 900_000, "later");
        vm.expectRevert(Network.NothingOwed.selector);
        escrow.payCredit(PAYOUT);
    }

    function test_a_token_that_says_false_is_a_failed_transfer() public {
        build(new QuietDollar());
        fund(OWNER, 10 * USDC);
        dollar.setBlocked(PAYOUT, true);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC)));
        equal(escrow.credit(PAYOUT), 900_000, "credit");
    }

    function test_a_caller_with_too_little_gas_makes_no_credit() public {
        fund(OWNER, 10 * USDC);
        Claim[] memory claims = one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC));
        (bool done,) = address(escrow).call{gas: 160_000}(abi.encodeCall(Escrow.redeem, (claims)));
        require(!done, "taken");
        equal(escrow.credit(PAYOUT), 0, "credit");
        equal(balanceOf(OWNER), 10 * USDC, "account");
    }

    function test_a_token_that_calls_back_gets_nothing_twice() public {
        CallingDollar calling = new CallingDollar();
        build(calling);
        fund(OWNER, 10 * USDC);
        Claim[] memory claims = one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC));
        calling.aim(address(escrow), abi.encodeCall(Escrow.redeem, (claims)));
        escrow.redeem(claims);
        require(!calling.succeeded(), "came in again");
        equal(dollar.balanceOf(PAYOUT), 900_000, "paid once");
    }

    function test_a_claim_counts_at_one_contract_only() public {
        fund(OWNER, 10 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        build(dollar);
        fund(OWNER, 10 * USDC);
        refused(claim, Escrow.Refusal.BadVoucher);
    }

    function testFuzz_steps_of_a_channel_add_up_to_the_split_of_the_whole(uint64 total, uint8 steps) public {
        total = total % (1000 * USDC) + 1;
        steps = steps % 6 + 1;
        fund(OWNER, 1000 * USDC);
        for (uint64 step = 1; step <= steps; ++step) {
            escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, total * step / steps, 1000 * USDC)));
        }
        uint256 fees = total / 10;
        equal(escrow.platformFees(), fees * 7 / 10, "platform");
        equal(escrow.reserveFees(), fees - fees * 7 / 10, "reserve");
        equal(dollar.balanceOf(PAYOUT), total - fees, "provider");
        equal(balanceOf(OWNER), 1000 * USDC - total, "account");
    }

    function test_channels_are_told_in_the_order_in_which_they_are_asked_for() public {
        fund(OWNER, 10 * USDC);
        Claim memory first = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        Claim memory second = claimOf(OWNER, PAYOUT, 2, 3 * USDC, 4 * USDC);
        close(second, 3 * USDC);
        escrow.redeem(one(first));
        escrow.redeem(one(second));
        bytes32[] memory ids = new bytes32[](3);
        (ids[0], ids[1], ids[2]) = (escrow.channelIdOf(second), bytes32(uint256(7)), escrow.channelIdOf(first));
        Escrow.Channel[] memory found = escrow.channelsOf(ids);
        equal(found.length, 3, "channels");
        equal(found[0].redeemed, 3 * USDC, "the second");
        equal(found[1].redeemed, 0, "one that was never seen");
        equal(found[2].redeemed, 1 * USDC, "the first");
        equal(found[2].ceiling, 2 * USDC, "its ceiling");
        require(found[0].closed && !found[2].closed && found[2].redeemUntil == first.redeemUntil, "the rest");
        equal(escrow.channelsOf(new bytes32[](0)).length, 0, "none");
    }

    function copy(Claim memory claim) private pure returns (Claim memory) {
        return abi.decode(abi.encode(claim), (Claim));
    }
}
