// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {Setup} from "../src/Network.sol";
import {Claim, Statements} from "../src/Statements.sol";
import {Dollar} from "./Tokens.sol";

/// The few cheats of the test machine that are used.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function warp(uint256 time) external;
    function expectRevert() external;
    function expectRevert(bytes4 selector) external;
    function expectRevert(bytes calldata data) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function assume(bool condition) external pure;
}

/// An escrow with a token, and everybody's keys.
abstract contract Kit {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint64 internal constant DELAY = 1 days;
    uint64 internal constant USDC = 1e6;

    uint256 internal constant SIGNER = 0xa11ce;
    uint256 internal constant OWNER = 0x0123;
    uint256 internal constant SPENDER = 0x0456;
    uint256 internal constant CLAIMER = 0x0789;
    address internal constant OPERATOR = address(0x0b0b);
    address internal constant PLATFORM = address(0x0777);
    address internal constant RESERVE = address(0x0333);
    address internal constant PAYOUT = address(0x0900);

    Dollar internal dollar;
    Escrow internal escrow;

    function build(Dollar token) internal {
        dollar = token;
        escrow = new Escrow(
            Setup({
                token: address(token),
                operator: OPERATOR,
                signer: vm.addr(SIGNER),
                platform: PLATFORM,
                reserve: RESERVE,
                exitDelay: DELAY
            })
        );
    }

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        build(new Dollar());
    }

    /// Gives an owner money in the escrow, under the usual spending key.
    function fund(uint256 owner, uint64 amount) internal {
        address account = vm.addr(owner);
        dollar.mint(account, amount);
        vm.startPrank(account);
        dollar.approve(address(escrow), amount);
        escrow.deposit(amount, vm.addr(SPENDER));
        vm.stopPrank();
    }

    /// A claim of `total` under `ceiling` in one lane, signed by everybody, without a close.
    function claimOf(uint256 owner, address payout, uint128 lane, uint64 total, uint64 ceiling)
        internal
        view
        returns (Claim memory claim)
    {
        claim.account = vm.addr(owner);
        claim.spendingKey = vm.addr(SPENDER);
        claim.payout = payout;
        claim.provider = keccak256(abi.encode(payout));
        claim.signer = vm.addr(SIGNER);
        claim.lane = bytes16(lane);
        claim.total = total;
        claim.receiptNumber = 7;
        claim.receiptHash = keccak256("receipt");
        claim.ceiling = ceiling;
        claim.workUntil = uint64(block.timestamp) + 1 hours;
        claim.redeemUntil = uint64(block.timestamp) + 7 hours;
        claim.termsHash = keccak256("terms");
        claim.claimKey = vm.addr(CLAIMER);
        sign(claim);
    }

    /// Signs voucher and allowance anew.
    function sign(Claim memory claim) internal view {
        bytes32 id = escrow.channelIdOf(claim);
        (claim.voucherR, claim.voucherVS) = compact(SPENDER, voucherHash(claim, id));
        (claim.allowanceR, claim.allowanceVS) = compact(SIGNER, allowanceHash(claim, id));
    }

    /// Adds the payee's close.
    function close(Claim memory claim, uint64 total) internal view {
        claim.closeTotal = total;
        (claim.closeR, claim.closeVS) =
            compact(CLAIMER, keccak256(abi.encode(Statements.CLOSE, escrow.channelIdOf(claim), total)));
    }

    function voucherHash(Claim memory claim, bytes32 id) internal pure returns (bytes32) {
        return keccak256(abi.encode(Statements.VOUCHER, id, claim.total, claim.receiptNumber, claim.receiptHash));
    }

    function allowanceHash(Claim memory claim, bytes32 id) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                Statements.ALLOWANCE,
                id,
                claim.ceiling,
                claim.workUntil,
                claim.redeemUntil,
                claim.termsHash,
                claim.claimKey
            )
        );
    }

    function digestOf(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), structHash));
    }

    function compact(uint256 key, bytes32 structHash) internal view returns (bytes32 r, bytes32 vs) {
        uint8 v;
        bytes32 s;
        (v, r, s) = vm.sign(key, digestOf(structHash));
        vs = bytes32(uint256(s) | (uint256(v - 27) << 255));
    }

    function one(Claim memory claim) internal pure returns (Claim[] memory claims) {
        claims = new Claim[](1);
        claims[0] = claim;
    }

    function balanceOf(uint256 owner) internal view returns (uint64 balance) {
        (balance,,,,) = escrow.accounts(vm.addr(owner));
    }

    function lockedOf(uint256 owner) internal view returns (uint64 locked) {
        (, locked,,,) = escrow.accounts(vm.addr(owner));
    }

    function redeemed(Claim memory claim) internal view returns (uint64 total) {
        (total,,,,) = escrow.channels(escrow.channelIdOf(claim));
    }

    function equal(uint256 found, uint256 expected, string memory what) internal pure {
        require(found == expected, string.concat(what, ": ", decimal(found), " instead of ", decimal(expected)));
    }

    function decimal(uint256 number) internal pure returns (string memory text) {
        if (number == 0) return "0";
        while (number != 0) {
            text = string.concat(string(abi.encodePacked(bytes1(uint8(48 + number % 10)))), text);
            number /= 10;
        }
    }
}
