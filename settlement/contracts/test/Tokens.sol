// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// A token with USDC's faces: six decimals, EIP-2612, EIP-3009 and a list of addresses that it serves no more.
contract Dollar is ERC20, ERC20Permit {
    bytes32 private constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    mapping(address => mapping(bytes32 => bool)) public used;
    mapping(address => bool) public blocked;

    constructor() ERC20("USD Coin", "USDC") ERC20Permit("USD Coin") {}

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setBlocked(address who, bool to) external {
        blocked[who] = to;
    }

    function receiveDigest(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(RECEIVE, from, to, value, validAfter, validBefore, nonce)));
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes memory signature
    ) external {
        require(to == msg.sender, "caller must be the payee");
        require(block.timestamp > validAfter && block.timestamp < validBefore, "not now");
        require(!used[from][nonce], "used");
        bytes32 digest = receiveDigest(from, to, value, validAfter, validBefore, nonce);
        require(SignatureChecker.isValidSignatureNow(from, digest, signature), "invalid signature");
        used[from][nonce] = true;
        _transfer(from, to, value);
    }

    function _update(address from, address to, uint256 value) internal virtual override {
        require(!blocked[from] && !blocked[to], "blocked");
        super._update(from, to, value);
    }
}

/// Keeps one per cent of every transfer.
contract FeeDollar is Dollar {
    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0), value / 100);
    }
}

/// Says false instead of reverting.
contract QuietDollar is Dollar {
    function transfer(address to, uint256 value) public override returns (bool) {
        if (blocked[to]) return false;
        return super.transfer(to, value);
    }
}

/// Calls somebody whenever it moves.
contract CallingDollar is Dollar {
    address public target;
    bytes public data;
    bool public succeeded;

    function aim(address target_, bytes calldata data_) external {
        (target, data) = (target_, data_);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (target != address(0) && from != address(0)) (succeeded,) = target.call(data);
    }
}
