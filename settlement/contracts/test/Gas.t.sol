// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {Claim} from "../src/Statements.sol";
import {Kit} from "./Kit.sol";

/// What a claim costs in a batch, beside a plain transfer of the same token. Run with `--isolate`, which makes every call of a
/// test a transaction of its own: cold slots, and the cost of the transaction and of its call data are in the figures.
contract GasTest is Kit {
    uint256 private constant BATCH = 50;

    event Gas(string what, uint256 gas);

    function batch(uint64 total, bool bare, uint256 owners) private view returns (Claim[] memory claims) {
        claims = new Claim[](BATCH);
        for (uint256 i; i < BATCH; ++i) {
            claims[i] = claimOf(OWNER + i % owners, PAYOUT, uint128(0x01919c3d << 96) | uint128(i), total, 10 * USDC);
            if (bare) {
                (claims[i].allowanceR, claims[i].allowanceVS, claims[i].termsHash) = (0, 0, 0);
                (claims[i].ceiling, claims[i].workUntil, claims[i].redeemUntil) = (0, 0, 0);
                claims[i].claimKey = address(0);
            }
        }
    }

    function measure(Claim[] memory claims) private returns (uint256) {
        bytes memory data = abi.encodeCall(Escrow.redeem, (claims));
        uint256 before = gasleft();
        (bool done,) = address(escrow).call(data);
        uint256 used = before - gasleft();
        require(done, "failed");
        return used / BATCH;
    }

    function test_a_batch_of_fifty_accounts() public {
        for (uint256 i; i < BATCH; ++i) {
            fund(OWNER + i, 10 * USDC);
        }
        emit Gas("first claim of a channel, batch of 50, per claim", measure(batch(1 * USDC, false, BATCH)));
        emit Gas("later claim with its allowance, batch of 50, per claim", measure(batch(2 * USDC, false, BATCH)));
        emit Gas("later claim under the known ceiling, batch of 50, per claim", measure(batch(3 * USDC, true, BATCH)));
        equal(dollar.balanceOf(PAYOUT), 50 * 2_700_000, "paid");
    }

    function test_a_batch_of_fifty_sessions_of_one_account() public {
        fund(OWNER, 500 * USDC);
        emit Gas("first claim of a channel, one account, per claim", measure(batch(1 * USDC, false, 1)));
        emit Gas("later claim under the known ceiling, one account, per claim", measure(batch(3 * USDC, true, 1)));
    }

    function test_a_plain_transfer() public {
        address from = vm.addr(OWNER);
        dollar.mint(from, USDC);
        bytes memory data = abi.encodeCall(dollar.transfer, (PAYOUT, 1));
        vm.prank(from);
        uint256 before = gasleft();
        (bool done,) = address(dollar).call(data);
        emit Gas("plain transfer to a new recipient", before - gasleft());
        require(done, "failed");
    }
}
