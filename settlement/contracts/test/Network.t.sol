// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {Network, Setup} from "../src/Network.sol";
import {Claim} from "../src/Statements.sol";
import {Kit} from "./Kit.sol";

contract NetworkTest is Kit {
    uint256 private constant NEXT = 0x5151;

    function test_an_old_signers_allowances_count_until_the_delay_is_over() public {
        fund(OWNER, 9 * USDC);
        Claim memory old = claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC);
        vm.prank(OPERATOR);
        escrow.changeSigner(vm.addr(NEXT));
        escrow.redeem(one(old));
        equal(redeemed(old), 1 * USDC, "old");
        vm.warp(block.timestamp + DELAY + 1);
        Claim memory late = claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC);
        escrow.redeem(one(late));
        equal(redeemed(late), 0, "late");
        vm.prank(OPERATOR);
        vm.expectRevert(Network.SignerKnown.selector);
        escrow.changeSigner(vm.addr(SIGNER));
    }

    function test_recipients_change_after_the_delay_and_old_fees_stay_with_the_old() public {
        fund(OWNER, 9 * USDC);
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 1, 1 * USDC, 2 * USDC)));
        vm.prank(OPERATOR);
        escrow.proposeRecipients(address(0x771), address(0x331));
        uint64 due = uint64(block.timestamp) + DELAY;
        vm.expectRevert(abi.encodeWithSelector(Network.TooEarly.selector, due));
        escrow.changeRecipients();
        vm.warp(due);
        escrow.changeRecipients();
        equal(escrow.credit(PLATFORM), 70_000, "owed to the old platform");
        equal(escrow.credit(RESERVE), 30_000, "owed to the old reserve");
        escrow.redeem(one(claimOf(OWNER, PAYOUT, 2, 1 * USDC, 2 * USDC)));
        escrow.collectPlatform();
        escrow.collectReserve();
        equal(dollar.balanceOf(address(0x771)), 70_000, "new platform");
        equal(dollar.balanceOf(address(0x331)), 30_000, "new reserve");
        escrow.payCredit(PLATFORM);
        equal(dollar.balanceOf(PLATFORM), 70_000, "old platform");
        vm.expectRevert(Network.NoProposal.selector);
        escrow.changeRecipients();
        vm.expectRevert(Network.NothingOwed.selector);
        escrow.collectPlatform();
    }

    function test_nobody_but_the_operator_changes_anything() public {
        vm.expectRevert(Network.NotOperator.selector);
        escrow.changeSigner(address(1));
        vm.expectRevert(Network.NotOperator.selector);
        escrow.proposeRecipients(address(1), address(1));
        vm.expectRevert(Network.NotOperator.selector);
        escrow.proposeOperator(address(1));
        vm.expectRevert(Network.NotOperator.selector);
        escrow.acceptOperator();
        vm.prank(OPERATOR);
        escrow.proposeOperator(address(0x0b0c));
        vm.prank(address(0x0b0c));
        escrow.acceptOperator();
        vm.prank(OPERATOR);
        vm.expectRevert(Network.NotOperator.selector);
        escrow.proposeOperator(address(1));
    }

    function test_a_senseless_setup_is_refused() public {
        Setup memory good = Setup(address(dollar), OPERATOR, vm.addr(SIGNER), PLATFORM, RESERVE, DELAY);
        Setup memory bad = abi.decode(abi.encode(good), (Setup));
        bad.token = address(0x1234);
        refuse(bad);
        bad = abi.decode(abi.encode(good), (Setup));
        bad.exitDelay = 59 minutes;
        refuse(bad);
        bad = abi.decode(abi.encode(good), (Setup));
        bad.exitDelay = 31 days;
        refuse(bad);
        bad = abi.decode(abi.encode(good), (Setup));
        bad.signer = address(0);
        refuse(bad);
        new Escrow(good);
    }

    function refuse(Setup memory bad) private {
        vm.expectRevert(Network.BadSetup.selector);
        new Escrow(bad);
    }
}
