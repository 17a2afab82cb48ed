// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Accounts} from "../src/Accounts.sol";
import {Escrow} from "../src/Escrow.sol";
import {Claim, Statements} from "../src/Statements.sol";
import {Kit} from "./Kit.sol";
import {FeeDollar} from "./Tokens.sol";

contract AccountsTest is Kit {
    address private immutable owner = vm.addr(OWNER);
    address private immutable spender = vm.addr(SPENDER);
    address private constant RELAYER = address(0x5e1a);

    function authorization(uint64 amount, address key, bytes32 salt) private view returns (bytes memory) {
        bytes32 digest = dollar.receiveDigest(
            owner, address(escrow), amount, 0, block.timestamp + 1 hours, escrow.depositNonce(owner, key, salt)
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(OWNER, digest);
        return abi.encodePacked(r, s, v);
    }

    function relay(uint64 amount, address key, bytes32 salt, bytes memory signature) private {
        vm.prank(RELAYER);
        escrow.depositWithAuthorization(owner, amount, key, salt, 0, block.timestamp + 1 hours, signature);
    }

    function test_a_relayed_deposit_credits_the_account_and_names_its_key() public {
        dollar.mint(owner, 5 * USDC);
        relay(5 * USDC, spender, "s", authorization(5 * USDC, spender, "s"));
        equal(balanceOf(OWNER), 5 * USDC, "account");
        require(escrow.keys(owner, spender) == type(uint64).max, "key");
    }

    function test_a_front_runner_can_change_neither_key_nor_account_nor_amount() public {
        dollar.mint(owner, 5 * USDC);
        bytes memory signature = authorization(5 * USDC, spender, "s");
        vm.expectRevert();
        relay(5 * USDC, RELAYER, "s", signature);
        vm.expectRevert();
        relay(4 * USDC, spender, "s", signature);
        vm.expectRevert();
        relay(5 * USDC, spender, "t", signature);
        vm.prank(RELAYER);
        vm.expectRevert();
        escrow.depositWithAuthorization(RELAYER, 5 * USDC, spender, "s", 0, block.timestamp + 1 hours, signature);
        // Nor can it be taken to the token directly: only the escrow may receive it.
        bytes32 nonce = escrow.depositNonce(owner, spender, "s");
        uint256 until = block.timestamp + 1 hours;
        vm.prank(RELAYER);
        vm.expectRevert();
        dollar.receiveWithAuthorization(owner, address(escrow), 5 * USDC, 0, until, nonce, signature);
        relay(5 * USDC, spender, "s", signature);
        vm.expectRevert();
        relay(5 * USDC, spender, "s", signature);
        equal(balanceOf(OWNER), 5 * USDC, "account");
    }

    struct Permit {
        uint64 deadline;
        bytes signature;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    function permit(uint64 amount, address key) private view returns (Permit memory made) {
        made.deadline = uint64(block.timestamp) + 1 hours;
        bytes32 body =
            keccak256(abi.encode(Statements.DEPOSIT, owner, key, amount, bytes32("salt"), made.deadline));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(OWNER, digestOf(body));
        made.signature = abi.encodePacked(r, s, v);
        bytes32 kind =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 inner =
            keccak256(abi.encode(kind, owner, address(escrow), amount, dollar.nonces(owner), made.deadline));
        (made.v, made.r, made.s) =
            vm.sign(OWNER, keccak256(abi.encodePacked(hex"1901", dollar.DOMAIN_SEPARATOR(), inner)));
    }

    function send(uint64 amount, address key, Permit memory made) private {
        vm.prank(RELAYER);
        escrow.depositWithPermit(owner, amount, key, "salt", made.deadline, made.signature, made.v, made.r, made.s);
    }

    function test_a_permit_needs_the_accounts_own_deposit() public {
        dollar.mint(owner, 10 * USDC);
        Permit memory made = permit(5 * USDC, spender);
        vm.expectRevert(Accounts.BadDepositSignature.selector);
        send(5 * USDC, RELAYER, made);
        vm.expectRevert(Accounts.BadDepositSignature.selector);
        send(6 * USDC, spender, made);
        send(5 * USDC, spender, made);
        vm.expectRevert(Accounts.DepositRepeated.selector);
        send(5 * USDC, spender, made);
        equal(balanceOf(OWNER), 5 * USDC, "account");
    }

    function test_a_permit_that_was_carried_out_before_does_no_harm() public {
        dollar.mint(owner, 5 * USDC);
        Permit memory made = permit(5 * USDC, spender);
        dollar.permit(owner, address(escrow), 5 * USDC, made.deadline, made.v, made.r, made.s);
        send(5 * USDC, spender, made);
        equal(balanceOf(OWNER), 5 * USDC, "account");
    }

    function test_an_old_deposit_is_refused() public {
        dollar.mint(owner, 5 * USDC);
        Permit memory made = permit(5 * USDC, spender);
        vm.warp(made.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(Accounts.Expired.selector, made.deadline));
        send(5 * USDC, spender, made);
    }

    function test_a_token_that_keeps_a_part_is_refused() public {
        build(new FeeDollar());
        dollar.mint(owner, 5 * USDC);
        vm.startPrank(owner);
        dollar.approve(address(escrow), 5 * USDC);
        vm.expectRevert(abi.encodeWithSelector(Accounts.WrongAmountReceived.selector, 5 * USDC, 4_950_000));
        escrow.deposit(5 * USDC, spender);
        vm.stopPrank();
    }

    function test_nothing_is_no_deposit() public {
        vm.prank(owner);
        vm.expectRevert(Accounts.ZeroAmount.selector);
        escrow.deposit(0, spender);
    }

    function test_a_deposit_never_brings_a_revoked_key_back() public {
        fund(OWNER, 5 * USDC);
        vm.prank(owner);
        escrow.revokeKey(spender);
        fund(OWNER, 5 * USDC);
        equal(escrow.keys(owner, spender), block.timestamp + DELAY, "key");
        vm.prank(owner);
        vm.expectRevert(Accounts.KeyKnown.selector);
        escrow.authorizeKey(spender);
    }

    function test_what_a_revoked_key_promised_counts_until_the_delay_is_over() public {
        fund(OWNER, 5 * USDC);
        vm.prank(owner);
        escrow.revokeKey(spender);
        uint256 until = block.timestamp + DELAY;
        vm.warp(until);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC)));
        equal(dollar.balanceOf(PAYOUT), 900_000, "within the delay");
        vm.warp(until + 1);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC)));
        equal(dollar.balanceOf(PAYOUT), 900_000, "after it");
        vm.prank(owner);
        escrow.revokeKey(spender);
        equal(escrow.keys(owner, spender), until, "revoked again");
    }

    function test_an_exit_takes_the_delay_and_goes_to_the_account() public {
        fund(OWNER, 5 * USDC);
        vm.startPrank(owner);
        vm.expectRevert(Accounts.NoExit.selector);
        escrow.withdraw();
        escrow.requestExit(3 * USDC);
        uint64 due = uint64(block.timestamp) + DELAY;
        vm.warp(due - 1);
        vm.expectRevert(abi.encodeWithSelector(Accounts.ExitNotDue.selector, due));
        escrow.withdraw();
        vm.warp(due);
        escrow.withdraw();
        vm.expectRevert(Accounts.NoExit.selector);
        escrow.withdraw();
        vm.stopPrank();
        equal(dollar.balanceOf(owner), 3 * USDC, "owner");
        equal(balanceOf(OWNER), 2 * USDC, "account");
    }

    function test_what_is_asked_back_still_pays_older_promises() public {
        fund(OWNER, 5 * USDC);
        vm.prank(owner);
        escrow.requestExit(5 * USDC);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 2 * USDC, 2 * USDC)));
        vm.warp(block.timestamp + DELAY);
        vm.prank(owner);
        equal(escrow.withdraw(), 3 * USDC, "withdrawn");
    }

    function test_an_exit_can_be_taken_back_and_begun_anew() public {
        fund(OWNER, 5 * USDC);
        vm.startPrank(owner);
        escrow.requestExit(1 * USDC);
        vm.warp(block.timestamp + DELAY);
        escrow.requestExit(5 * USDC);
        vm.expectRevert();
        escrow.withdraw();
        escrow.cancelExit();
        vm.expectRevert(Accounts.NoExit.selector);
        escrow.cancelExit();
        vm.stopPrank();
    }

    function test_a_lock_is_spendable_by_its_channel_alone() public {
        fund(OWNER, 5 * USDC);
        Claim memory locked = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 4 * USDC);
        escrow.lock(locked);
        equal(lockedOf(OWNER), 4 * USDC, "locked");
        escrow.redeem(one(claimOf(OWNER, address(0x901), 2, 3 * USDC, 3 * USDC)));
        equal(dollar.balanceOf(address(0x901)), 900_000, "the other gets what is free");
        vm.prank(owner);
        escrow.requestExit(5 * USDC);
        vm.warp(block.timestamp + 2 hours);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 4 * USDC, 4 * USDC)));
        equal(dollar.balanceOf(PAYOUT), 3_600_000, "its channel gets all");
        equal(lockedOf(OWNER), 0, "nothing stays locked");
    }

    function test_a_lock_ends_with_its_time_or_its_close() public {
        fund(OWNER, 9 * USDC);
        Claim memory first = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 4 * USDC);
        escrow.lock(first);
        vm.expectRevert(abi.encodeWithSelector(Escrow.StillLocked.selector, first.redeemUntil));
        escrow.unlock(first);
        Claim memory second = claimOf(OWNER, PAYOUT, 2, 1 * USDC, 4 * USDC);
        escrow.lock(second);
        close(second, 1 * USDC);
        escrow.redeem(one(second));
        equal(lockedOf(OWNER), 4 * USDC, "the closed one is free");
        vm.warp(first.redeemUntil + 1);
        escrow.unlock(first);
        escrow.unlock(first);
        equal(lockedOf(OWNER), 0, "the other too");
        equal(balanceOf(OWNER), 8 * USDC, "account");
    }

    function test_a_lock_needs_both_signatures_and_fits_whole() public {
        fund(OWNER, 3 * USDC);
        Claim memory claim = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 4 * USDC);
        vm.expectRevert(abi.encodeWithSelector(Escrow.NotEnoughFree.selector, 3 * USDC, 4 * USDC));
        escrow.lock(claim);
        claim = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        claim.total += 1;
        vm.expectRevert(abi.encodeWithSelector(Escrow.NotLockable.selector, Escrow.Refusal.BadVoucher));
        escrow.lock(claim);
        claim = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        claim.redeemUntil = uint64(block.timestamp) + DELAY + 1;
        sign(claim);
        vm.expectRevert(abi.encodeWithSelector(Escrow.NotLockable.selector, Escrow.Refusal.TooLate));
        escrow.lock(claim);
    }

    function test_locking_again_adds_only_what_a_higher_ceiling_adds() public {
        fund(OWNER, 9 * USDC);
        escrow.lock(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC));
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC)));
        escrow.lock(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC));
        equal(lockedOf(OWNER), 1 * USDC, "the same");
        escrow.lock(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 5 * USDC));
        equal(lockedOf(OWNER), 4 * USDC, "a higher one");
    }

    function test_the_daily_cap_is_the_accounts_to_set() public {
        vm.prank(owner);
        escrow.setDailyCap(7 * USDC);
        (,,,, uint64 cap) = escrow.accounts(owner);
        equal(cap, 7 * USDC, "cap");
    }
}
