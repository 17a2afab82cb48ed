// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LocalDollar} from "../local/LocalDollar.sol";
import {Escrow} from "../src/Escrow.sol";
import {Setup} from "../src/Network.sol";
import {Kit} from "./Kit.sol";

contract LocalDollarTest is Kit {
    LocalDollar private local;

    function setUp() public override {
        vm.warp(1_800_000_000);
        local = new LocalDollar();
        escrow = new Escrow(
            Setup({
                token: address(local),
                operator: OPERATOR,
                signer: vm.addr(SIGNER),
                platform: PLATFORM,
                reserve: RESERVE,
                exitDelay: DELAY
            })
        );
    }

    function test_an_authorised_deposit_works_as_with_usdc_and_once() public {
        address owner = vm.addr(OWNER);
        local.mint(owner, 5 * USDC);
        bytes32 nonce = escrow.depositNonce(owner, vm.addr(SPENDER), bytes32(0));
        bytes32 digest = keccak256(
            abi.encodePacked(
                hex"1901",
                local.DOMAIN_SEPARATOR(),
                keccak256(
                    abi.encode(
                        keccak256(
                            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
                        ),
                        owner,
                        address(escrow),
                        uint256(2 * USDC),
                        uint256(0),
                        uint256(block.timestamp + 60),
                        nonce
                    )
                )
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(OWNER, digest);
        bytes memory signature = abi.encodePacked(r, s, v);
        uint256 before = block.timestamp + 60;
        escrow.depositWithAuthorization(owner, 2 * USDC, vm.addr(SPENDER), bytes32(0), 0, before, signature);
        equal(local.balanceOf(address(escrow)), 2 * USDC, "held");
        equal(local.authorizationState(owner, nonce) ? 1 : 0, 1, "used");
        vm.expectRevert();
        escrow.depositWithAuthorization(owner, 2 * USDC, vm.addr(SPENDER), bytes32(0), 0, before, signature);
    }

    function test_only_its_maker_mints_and_the_listed_are_not_served() public {
        vm.prank(OPERATOR);
        vm.expectRevert(LocalDollar.NotMinter.selector);
        local.mint(OPERATOR, 1);
        local.mint(OPERATOR, 2);
        local.blacklist(PAYOUT);
        vm.prank(OPERATOR);
        vm.expectRevert(abi.encodeWithSelector(LocalDollar.Blacklisted.selector, PAYOUT));
        local.transfer(PAYOUT, 1);
        local.unBlacklist(PAYOUT);
        vm.prank(OPERATOR);
        local.transfer(PAYOUT, 1);
        equal(local.balanceOf(PAYOUT), 1, "served again");
    }
}
