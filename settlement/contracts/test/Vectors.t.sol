// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {Claim, Split, Statements} from "../src/Statements.sol";
import {Kit} from "./Kit.sol";

interface Machine {
    function chainId(uint256 id) external;
    function etch(address target, bytes calldata code) external;
}

/// The same golden vectors as in protocol/tests/it/golden/money-digests.txt: contract and peers sign the same bytes.
contract VectorsTest is Kit {
    Machine private constant machine = Machine(address(vm));
    bytes32 private constant CHANNEL = 0x4e63bce7036f2b2dbb8ff47686cfe62353ed300a5a211f0cc23870bf658b3de0;

    function place(uint256 chain, address where) private {
        machine.chainId(chain);
        machine.etch(where, address(escrow).code);
        escrow = Escrow(where);
    }

    function money(uint8 seed) private pure returns (uint256 key) {
        for (uint256 i; i < 32; ++i) {
            key = key << 8 | seed;
        }
    }

    function test_the_channel_id_is_the_one_that_peers_compute() public {
        place(0x4f5249454e, 0x5947808cCD4F8d7fB85221FE47e5bb83C0a1eC05);
        Claim memory claim;
        claim.account = vm.addr(money(2));
        claim.spendingKey = vm.addr(money(2));
        claim.payout = vm.addr(money(5));
        claim.provider = 0xed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1;
        claim.signer = vm.addr(money(9));
        claim.lane = bytes16((uint128(1_800_000_000_000) << 80) | 77);
        require(escrow.channelIdOf(claim) == CHANNEL, "channel id");
    }

    function test_the_digests_are_the_ones_that_peers_sign() public {
        place(8453, address(0x1111111111111111111111111111111111111111));
        Claim memory claim;
        claim.total = 1;
        claim.receiptNumber = 2;
        claim.receiptHash = 0xb2dea48d667b2821a9bcf69eded39a2458a1d8165ca7fcac64c3557b69a7ea08;
        claim.ceiling = 3;
        claim.workUntil = 4;
        claim.redeemUntil = 5;
        claim.termsHash = 0x0538661423236a5d8df6286a8633369e2a03c5f90d48eded333222dbee8cdbdd;
        claim.claimKey = vm.addr(money(4));
        bytes32 voucher = digestOf(voucherHash(claim, CHANNEL));
        require(voucher == 0x9e699ae1b2c8120b6a1ad027f3710de24005f8e0edac5eb0d2c7175f6235e3f6, "voucher");
        bytes32 allowance = digestOf(allowanceHash(claim, CHANNEL));
        require(allowance == 0xdfb75730dd2a6b3505d829f1a54c38b27fddc73202a5ea0c361ea9e20186586a, "allowance");
        bytes32 closing = digestOf(keccak256(abi.encode(Statements.CLOSE, CHANNEL, uint64(6))));
        require(closing == 0x0733ce4644bd46e7b749a0792de4ce3d7935a3e3af5fe2b872dd6dbbbaf7de7d, "close");
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(money(2), voucher);
        require(v == 27 && r == 0x9b2c648dd8de19f6fb351c6280c12b5b07f04dfaa3aa740b8e1fa722ef31ebad, "r");
        require(s == 0x563c5fbdb8612122742c71e4c5eeeb4902383886fff64ebb8391ef1f540d8655, "s");
    }

    function testFuzz_every_share_grows_with_the_total_and_nothing_is_lost(uint64 smaller, uint64 larger) public pure {
        if (smaller > larger) (smaller, larger) = (larger, smaller);
        (uint256 a, uint256 b, uint256 c) = Split.shares(smaller);
        (uint256 x, uint256 y, uint256 z) = Split.shares(larger);
        equal(x + y + z, larger, "sum");
        require(a <= x && b <= y && c <= z, "a share shrank");
    }
}
