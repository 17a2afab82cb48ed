// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {Network, Setup} from "./Network.sol";
import {Statements} from "./Statements.sol";

/// The one function of EIP-3009 that is used: it can only be called by the receiver, so nobody can take it out of a deposit.
interface IReceiveWithAuthorization {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes memory signature
    ) external;
}

/// Accounts: how money comes in, which keys may promise it, and how the account's owner takes it out again.
///
/// Always true: `balance` is what came in less what went out; `locked` is a part of it; a spending key is named by the account
/// itself or by a deposit that the account signed for exactly that key; the exit is the account's and nobody can delay it
/// beyond `exitDelay`.
abstract contract Accounts is Network {
    using SafeERC20 for IERC20;

    /// One account.
    struct Account {
        /// Micro-USDC held.
        uint64 balance;
        /// Of it, set aside for channels.
        uint64 locked;
        /// Asked back.
        uint64 exiting;
        /// From when it can be taken.
        uint64 exitAt;
        /// The most that may be reserved in a day, zero for no cap. Settlement and providers obey it; redemption does not look at it,
        /// because work of yesterday may be redeemed today.
        uint64 dailyCap;
    }

    /// For ever, as far as 64 bits go.
    uint64 internal constant FOREVER = type(uint64).max;

    /// Accounts by owner.
    mapping(address owner => Account) public accounts;
    /// Until when a key's vouchers count for an account; zero for a key that was never named.
    mapping(address owner => mapping(address key => uint64 until)) public keys;
    /// Deposits by permit that were carried out, by digest.
    mapping(bytes32 digest => bool) public deposited;

    event Deposited(address indexed account, address indexed spendingKey, uint64 amount);
    event KeyAuthorized(address indexed account, address indexed key);
    event KeyRevoked(address indexed account, address indexed key, uint64 until);
    event DailyCapSet(address indexed account, uint64 cap);
    event ExitRequested(address indexed account, uint64 amount, uint64 due);
    event ExitCancelled(address indexed account);
    event Withdrawn(address indexed account, uint64 amount);

    error ZeroAmount();
    error AmountTooLarge();
    error WrongAmountReceived(uint256 expected, uint256 received);
    error BadDepositSignature();
    error DepositRepeated();
    error Expired(uint64 deadline);
    error KeyKnown();
    error NoExit();
    error ExitNotDue(uint64 due);

    constructor(Setup memory setup) Network(setup) {}

    /// The nonce that an EIP-3009 authorisation for a deposit must carry: whoever relays it can change neither account nor key.
    function depositNonce(address account, address spendingKey, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(account, spendingKey, salt));
    }

    /// Deposits by an EIP-3009 authorisation that the account signed with [`depositNonce`]. Anybody may relay it.
    function depositWithAuthorization(
        address account,
        uint64 amount,
        address spendingKey,
        bytes32 salt,
        uint256 validAfter,
        uint256 validBefore,
        bytes calldata signature
    ) external nonReentrant {
        uint256 before = _begin(amount);
        IReceiveWithAuthorization(address(token)).receiveWithAuthorization(
            account, address(this), amount, validAfter, validBefore, depositNonce(account, spendingKey, salt), signature
        );
        _finish(account, amount, spendingKey, before);
    }

    /// Deposits by EIP-2612 permit together with the account's own signed deposit (EIP-712 `Deposit`), which names the key. Anybody may relay it.
    /// A permit that somebody carried out already does no harm.
    function depositWithPermit(
        address account,
        uint64 amount,
        address spendingKey,
        bytes32 salt,
        uint64 deadline,
        bytes calldata signature,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        if (block.timestamp > deadline) revert Expired(deadline);
        bytes32 digest =
            _digest(keccak256(abi.encode(Statements.DEPOSIT, account, spendingKey, amount, salt, deadline)));
        if (!SignatureChecker.isValidSignatureNow(account, digest, signature)) revert BadDepositSignature();
        if (deposited[digest]) revert DepositRepeated();
        deposited[digest] = true;
        try IERC20Permit(address(token)).permit(account, address(this), amount, deadline, v, r, s) {} catch {}
        uint256 before = _begin(amount);
        token.safeTransferFrom(account, address(this), amount);
        _finish(account, amount, spendingKey, before);
    }

    /// Deposits the caller's own money, by allowance of the token, to the caller's account.
    function deposit(uint64 amount, address spendingKey) external nonReentrant {
        uint256 before = _begin(amount);
        token.safeTransferFrom(msg.sender, address(this), amount);
        _finish(msg.sender, amount, spendingKey, before);
    }

    /// Lets a key promise the caller's money. A key that was revoked stays so.
    function authorizeKey(address key) external {
        if (keys[msg.sender][key] != 0) revert KeyKnown();
        _authorize(msg.sender, key);
    }

    /// Ends a key. What it promised before counts until the exit delay is over; settlement and providers take nothing new from it.
    function revokeKey(address key) external {
        uint64 until = _soon(keys[msg.sender][key]);
        keys[msg.sender][key] = until;
        emit KeyRevoked(msg.sender, key, until);
    }

    /// Caps what may be reserved of the caller's account in a day; zero lifts the cap.
    function setDailyCap(uint64 cap) external {
        accounts[msg.sender].dailyCap = cap;
        emit DailyCapSet(msg.sender, cap);
    }

    /// Asks for money back. It can be taken after the exit delay; until then older allowances may still be paid from it. A second request
    /// replaces the first and begins anew.
    function requestExit(uint64 amount) external {
        if (amount == 0) revert ZeroAmount();
        Account storage account = accounts[msg.sender];
        account.exiting = amount;
        account.exitAt = uint64(block.timestamp) + exitDelay;
        emit ExitRequested(msg.sender, amount, account.exitAt);
    }

    /// Takes the request back.
    function cancelExit() external {
        Account storage account = accounts[msg.sender];
        if (account.exiting == 0) revert NoExit();
        (account.exiting, account.exitAt) = (0, 0);
        emit ExitCancelled(msg.sender);
    }

    /// Takes what was asked for, as far as it is still there and not locked. It goes to the account itself.
    function withdraw() external nonReentrant returns (uint64 amount) {
        Account storage account = accounts[msg.sender];
        uint64 wanted = account.exiting;
        if (wanted == 0) revert NoExit();
        if (block.timestamp < account.exitAt) revert ExitNotDue(account.exitAt);
        uint64 free = account.balance - account.locked;
        amount = wanted < free ? wanted : free;
        account.balance -= amount;
        (account.exiting, account.exitAt) = (0, 0);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    function _begin(uint64 amount) private view returns (uint256) {
        if (amount == 0) revert ZeroAmount();
        return token.balanceOf(address(this));
    }

    /// Credits exactly what arrived, and only if it is what was said.
    function _finish(address owner, uint64 amount, address spendingKey, uint256 before) private {
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert WrongAmountReceived(amount, received);
        Account storage account = accounts[owner];
        if (uint256(account.balance) + amount > type(uint56).max) revert AmountTooLarge();
        account.balance += amount;
        // A deposit never brings a revoked key back.
        if (keys[owner][spendingKey] == 0) _authorize(owner, spendingKey);
        emit Deposited(owner, spendingKey, amount);
    }

    function _authorize(address owner, address key) private {
        keys[owner][key] = FOREVER;
        emit KeyAuthorized(owner, key);
    }
}
