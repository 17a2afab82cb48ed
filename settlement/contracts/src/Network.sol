// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

/// What is fixed when the escrow is deployed, and who receives fees at first.
struct Setup {
    /// The token; USDC, with six decimals.
    address token;
    /// May change the settlement signer at once and the recipients of fees after the exit delay. Nothing else.
    address operator;
    /// Settlement's signer.
    address signer;
    /// Receives seven tenths of the fees.
    address platform;
    /// Receives three tenths of the fees.
    address reserve;
    /// Seconds between asking for an exit and taking it; from an hour to thirty days.
    uint64 exitDelay;
}

/// The network's side: its settlement signers, its fees, and payments that could not be delivered.
///
/// Always true: fees and undelivered payments are owed and never anybody's to spend; a change of recipients takes the exit delay and what accrued
/// before it stays with the old ones; the operator cannot touch a balance.
abstract contract Network is EIP712, ReentrancyGuard {
    using SafeERC20 for IERC20;

    /// Gas that a delivery must be given: a caller who brings too little cannot turn a payment into a credit.
    uint256 private constant DELIVERY_GAS = 150_000;
    uint64 private constant DELAY_MIN = 1 hours;
    uint64 private constant DELAY_MAX = 30 days;

    IERC20 public immutable token;
    uint64 public immutable exitDelay;

    address public operator;
    /// Whoever this is becomes the operator by accepting.
    address public nextOperator;
    /// Until when a signer's allowances count; zero for one that was never named.
    mapping(address signer => uint64 until) public signers;
    /// The current signer.
    address public signer;

    address public platform;
    address public reserve;
    address public nextPlatform;
    address public nextReserve;
    /// From when the next recipients can take over; zero without a proposal.
    uint64 public recipientsAt;
    /// Fees not yet collected.
    uint128 public platformFees;
    uint128 public reserveFees;
    /// Payments that could not be delivered, by the address that they are for.
    mapping(address payee => uint256) public credit;

    event SignerChanged(address indexed from, address indexed to, uint64 oldUntil);
    event OperatorProposed(address indexed next);
    event OperatorChanged(address indexed operator);
    event RecipientsProposed(address platform, address reserve, uint64 due);
    event RecipientsChanged(address platform, address reserve);
    event FeesCollected(address indexed recipient, uint256 amount);
    event Credited(address indexed payee, uint256 amount);
    event CreditPaid(address indexed payee, uint256 amount);

    error NotOperator();
    error BadSetup();
    error SignerKnown();
    error NoProposal();
    error TooEarly(uint64 due);
    error NothingOwed();
    error NotEnoughGas();

    modifier onlyOperator() {
        if (msg.sender != operator) revert NotOperator();
        _;
    }

    constructor(Setup memory setup) EIP712("ORIEN", "1") {
        bool named = setup.operator != address(0) && setup.signer != address(0) && setup.platform != address(0)
            && setup.reserve != address(0) && setup.token.code.length != 0;
        if (!named || setup.exitDelay < DELAY_MIN || setup.exitDelay > DELAY_MAX) revert BadSetup();
        token = IERC20(setup.token);
        exitDelay = setup.exitDelay;
        operator = setup.operator;
        signer = setup.signer;
        signers[setup.signer] = type(uint64).max;
        (platform, reserve) = (setup.platform, setup.reserve);
        emit OperatorChanged(setup.operator);
        emit SignerChanged(address(0), setup.signer, 0);
        emit RecipientsChanged(setup.platform, setup.reserve);
    }

    /// The EIP-712 domain separator, for peers that compare it at the start.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// Replaces settlement's signer. Allowances of the old one count until the exit delay is over. A signer that was replaced does not come back.
    function changeSigner(address next) external onlyOperator {
        if (next == address(0)) revert BadSetup();
        if (signers[next] != 0) revert SignerKnown();
        address old = signer;
        uint64 until = _soon(signers[old]);
        signers[old] = until;
        signers[next] = type(uint64).max;
        signer = next;
        emit SignerChanged(old, next, until);
    }

    /// Offers the operator's place to another address, which has to accept.
    function proposeOperator(address next) external onlyOperator {
        nextOperator = next;
        emit OperatorProposed(next);
    }

    /// Takes the operator's place.
    function acceptOperator() external {
        if (msg.sender != nextOperator || msg.sender == address(0)) revert NotOperator();
        (operator, nextOperator) = (msg.sender, address(0));
        emit OperatorChanged(msg.sender);
    }

    /// Proposes who receives fees; it can be carried out after the exit delay.
    function proposeRecipients(address platform_, address reserve_) external onlyOperator {
        if (platform_ == address(0) || reserve_ == address(0)) revert BadSetup();
        (nextPlatform, nextReserve) = (platform_, reserve_);
        recipientsAt = uint64(block.timestamp) + exitDelay;
        emit RecipientsProposed(platform_, reserve_, recipientsAt);
    }

    /// Carries the proposal out. What accrued until now is owed to the old recipients.
    function changeRecipients() external {
        if (recipientsAt == 0) revert NoProposal();
        if (block.timestamp < recipientsAt) revert TooEarly(recipientsAt);
        _owe(platform, platformFees);
        _owe(reserve, reserveFees);
        (platformFees, reserveFees) = (0, 0);
        (platform, reserve) = (nextPlatform, nextReserve);
        (nextPlatform, nextReserve, recipientsAt) = (address(0), address(0), 0);
        emit RecipientsChanged(platform, reserve);
    }

    /// Sends the platform's fees to the platform. Anybody may call it.
    function collectPlatform() external nonReentrant {
        uint256 amount = platformFees;
        if (amount == 0) revert NothingOwed();
        platformFees = 0;
        emit FeesCollected(platform, amount);
        token.safeTransfer(platform, amount);
    }

    /// Sends the reserve's fees to the reserve. Anybody may call it.
    function collectReserve() external nonReentrant {
        uint256 amount = reserveFees;
        if (amount == 0) revert NothingOwed();
        reserveFees = 0;
        emit FeesCollected(reserve, amount);
        token.safeTransfer(reserve, amount);
    }

    /// Tries an undelivered payment again. Anybody may call it; it goes to the same address.
    function payCredit(address payee) external nonReentrant {
        uint256 amount = credit[payee];
        if (amount == 0) revert NothingOwed();
        credit[payee] = 0;
        emit CreditPaid(payee, amount);
        token.safeTransfer(payee, amount);
    }

    /// Delivers to a payee; what the token refuses becomes credit of the same address.
    function _pay(address payee, uint256 amount) internal {
        if (amount == 0) return;
        if (gasleft() < DELIVERY_GAS) revert NotEnoughGas();
        if (!token.trySafeTransfer(payee, amount)) _owe(payee, amount);
    }

    function _accrue(uint256 toPlatform, uint256 toReserve) internal {
        if (toPlatform == 0 && toReserve == 0) return;
        platformFees += uint128(toPlatform);
        reserveFees += uint128(toReserve);
    }

    /// When something that counts until `until` ends if it is ended now.
    function _soon(uint64 until) internal view returns (uint64) {
        uint64 due = uint64(block.timestamp) + exitDelay;
        return until < due ? until : due;
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return _hashTypedDataV4(structHash);
    }

    /// Whether `by` made this compact signature (low S only) over a statement.
    function _signed(bytes32 structHash, bytes32 r, bytes32 vs, address by) internal view returns (bool) {
        (address recovered, ECDSA.RecoverError failure,) = ECDSA.tryRecover(_digest(structHash), r, vs);
        return failure == ECDSA.RecoverError.NoError && recovered == by;
    }

    function _owe(address payee, uint256 amount) private {
        if (amount == 0) return;
        credit[payee] += amount;
        emit Credited(payee, amount);
    }
}
