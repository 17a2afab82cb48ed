// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Claim} from "../src/Statements.sol";
import {Kit} from "./Kit.sol";

/// Everybody at once: deposits, claims, closes, locks, exits, blocked payees and passing time, in any order.
contract Crowd is Kit {
    uint256 private constant OWNERS = 3;
    uint256 private constant PAYEES = 3;
    uint256 private constant LANES = 4;

    uint256 public deposited;
    uint256 public withdrawn;
    /// The most that was ever promised to a payee's channels, by payee.
    mapping(address payee => uint256) public promised;
    mapping(bytes32 id => uint256) private highest;

    constructor() {
        super.setUp();
    }

    /// Nobody begins anew in the middle.
    function setUp() public override {}

    function token() external view returns (address, address) {
        return (address(dollar), address(escrow));
    }

    function owner(uint256 index) public pure returns (uint256) {
        return OWNER + index % OWNERS;
    }

    function payee(uint256 index) public pure returns (address) {
        return address(uint160(uint160(PAYOUT) + index % PAYEES));
    }

    function give(uint256 who, uint64 amount) external {
        amount = amount % (100 * USDC) + 1;
        fund(owner(who), amount);
        deposited += amount;
    }

    function claim(uint256 who, uint256 to, uint256 lane, uint64 total, uint64 ceiling, bool closes, bool locks) external {
        total = total % (50 * USDC);
        ceiling = ceiling % (50 * USDC);
        Claim memory made = claimOf(owner(who), payee(to), uint128(lane % LANES), total, ceiling);
        bytes32 id = escrow.channelIdOf(made);
        if (total > highest[id]) {
            promised[payee(to)] += total - highest[id];
            highest[id] = total;
        }
        if (closes) close(made, total / 2);
        if (locks) {
            try escrow.lock(made) {} catch {}
        } else {
            escrow.redeem(one(made));
        }
    }

    function unlock(uint256 who, uint256 to, uint256 lane) external {
        Claim memory made = claimOf(owner(who), payee(to), uint128(lane % LANES), 0, 0);
        try escrow.unlock(made) {} catch {}
    }

    function exit(uint256 who, uint64 amount) external {
        vm.startPrank(vm.addr(owner(who)));
        escrow.requestExit(amount % (100 * USDC) + 1);
        vm.stopPrank();
    }

    function leave(uint256 who) external {
        vm.prank(vm.addr(owner(who)));
        try escrow.withdraw() returns (uint64 amount) {
            withdrawn += amount;
        } catch {}
    }

    function turn(uint256 to, bool blocked) external {
        dollar.setBlocked(payee(to), blocked);
        try escrow.payCredit(payee(to)) {} catch {}
    }

    function pass(uint256 time) external {
        vm.warp(block.timestamp + time % 12 hours);
    }

    function held() external view returns (uint256 balances, uint256 locked) {
        for (uint256 i; i < OWNERS; ++i) {
            balances += balanceOf(owner(i));
            locked += lockedOf(owner(i));
        }
    }

    function received(uint256 to) external view returns (uint256) {
        return dollar.balanceOf(payee(to)) + escrow.credit(payee(to));
    }

    function fees() external view returns (uint256) {
        return uint256(escrow.platformFees()) + escrow.reserveFees();
    }

    function inEscrow() external view returns (uint256) {
        return dollar.balanceOf(address(escrow));
    }

    function credits() external view returns (uint256 sum) {
        for (uint256 i; i < PAYEES; ++i) {
            sum += escrow.credit(payee(i));
        }
    }
}

contract InvariantTest is Kit {
    Crowd private crowd;

    function setUp() public override {
        crowd = new Crowd();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(crowd);
    }

    function invariant_the_escrow_holds_exactly_what_it_owes() public view {
        (uint256 balances,) = crowd.held();
        equal(crowd.inEscrow(), balances + crowd.fees() + crowd.credits(), "held");
    }

    function invariant_what_came_in_is_what_is_there_and_what_went_out() public view {
        (uint256 balances,) = crowd.held();
        uint256 paid;
        for (uint256 i; i < 3; ++i) {
            paid += crowd.received(i);
        }
        equal(crowd.deposited(), balances + crowd.withdrawn() + crowd.fees() + paid, "conserved");
    }

    function invariant_nobody_receives_more_than_nine_tenths_of_what_was_promised_rounded_up() public view {
        for (uint256 i; i < 3; ++i) {
            uint256 most = crowd.promised(crowd.payee(i));
            // Each of the twelve channels of a payee may round up once.
            require(crowd.received(i) <= most - most / 10 + 12, "more than vouchered");
        }
    }

    function invariant_no_more_is_locked_than_is_there() public view {
        (uint256 balances, uint256 locked) = crowd.held();
        require(locked <= balances, "locked more than there is");
    }
}
