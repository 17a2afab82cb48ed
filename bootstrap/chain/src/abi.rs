//! The contracts' words: what is called, what is logged, what is refused. Compared with the compiled artifact by a test.
//!
//! Only this crate sees these types; everything public speaks the protocol's own.

use alloy_sol_types::sol;

sol! {
    /// Everything that decides where money goes, and what was promised and reserved.
    #[derive(Debug)]
    struct Claim {
        address account;
        address spendingKey;
        address payout;
        bytes32 provider;
        address signer;
        bytes16 lane;
        uint64 total;
        uint64 receiptNumber;
        bytes32 receiptHash;
        bytes32 voucherR;
        bytes32 voucherVS;
        uint64 ceiling;
        uint64 workUntil;
        uint64 redeemUntil;
        bytes32 termsHash;
        address claimKey;
        bytes32 allowanceR;
        bytes32 allowanceVS;
        uint64 closeTotal;
        bytes32 closeR;
        bytes32 closeVS;
    }

    /// What the escrow knows of a channel.
    #[derive(Debug)]
    struct ChannelState {
        uint64 redeemed;
        uint64 ceiling;
        uint64 redeemUntil;
        uint56 locked;
        bool closed;
    }

    #[derive(Debug)]
    struct EscrowSetup {
        address token;
        address operator;
        address signer;
        address platform;
        address reserve;
        uint64 exitDelay;
    }

    #[derive(Debug)]
    interface Escrow {
        event Deposited(address indexed account, address indexed spendingKey, uint64 amount);
        event KeyAuthorized(address indexed account, address indexed key);
        event KeyRevoked(address indexed account, address indexed key, uint64 until);
        event DailyCapSet(address indexed account, uint64 cap);
        event ExitRequested(address indexed account, uint64 amount, uint64 due);
        event ExitCancelled(address indexed account);
        event Withdrawn(address indexed account, uint64 amount);
        event Redeemed(bytes32 indexed channelId, address indexed account, address indexed payout, uint64 paid, uint64 redeemed, bool closed);
        event ClaimRefused(bytes32 indexed channelId, uint8 reason);
        event Locked(bytes32 indexed channelId, address indexed account, uint64 amount, uint64 until);
        event Unlocked(bytes32 indexed channelId, address indexed account, uint64 amount);
        event SignerChanged(address indexed from, address indexed to, uint64 oldUntil);
        event OperatorProposed(address indexed next);
        event OperatorChanged(address indexed operator);
        event RecipientsProposed(address platform, address reserve, uint64 due);
        event RecipientsChanged(address platform, address reserve);
        event FeesCollected(address indexed recipient, uint256 amount);
        event Credited(address indexed payee, uint256 amount);
        event CreditPaid(address indexed payee, uint256 amount);
        event EIP712DomainChanged();

        error AmountTooLarge();
        error BadDepositSignature();
        error BadSetup();
        error DepositRepeated();
        error ExitNotDue(uint64 due);
        error Expired(uint64 deadline);
        error InvalidShortString();
        error KeyKnown();
        error NoExit();
        error NoProposal();
        error NotEnoughFree(uint64 free, uint64 wanted);
        error NotEnoughGas();
        error NotLockable(uint8 reason);
        error NotOperator();
        error NothingOwed();
        error ReentrancyGuardReentrantCall();
        error SafeERC20FailedOperation(address token);
        error SignerKnown();
        error StillLocked(uint64 until);
        error StringTooLong(string str);
        error TooEarly(uint64 due);
        error WrongAmountReceived(uint256 expected, uint256 received);
        error ZeroAmount();

        function acceptOperator() external;
        function accounts(address owner) external view returns (uint64 balance, uint64 locked, uint64 exiting, uint64 exitAt, uint64 dailyCap);
        function authorizeKey(address key) external;
        function cancelExit() external;
        function changeRecipients() external;
        function changeSigner(address next) external;
        function channelIdOf(Claim claim) external view returns (bytes32);
        function channels(bytes32 id) external view returns (uint64 redeemed, uint64 ceiling, uint64 redeemUntil, uint56 locked, bool closed);
        function channelsOf(bytes32[] ids) external view returns (ChannelState[] found);
        function collectPlatform() external;
        function collectReserve() external;
        function credit(address payee) external view returns (uint256);
        function deposit(uint64 amount, address spendingKey) external;
        function depositNonce(address account, address spendingKey, bytes32 salt) external pure returns (bytes32);
        function depositWithAuthorization(address account, uint64 amount, address spendingKey, bytes32 salt, uint256 validAfter, uint256 validBefore, bytes signature) external;
        function depositWithPermit(address account, uint64 amount, address spendingKey, bytes32 salt, uint64 deadline, bytes signature, uint8 v, bytes32 r, bytes32 s) external;
        function deposited(bytes32 digest) external view returns (bool);
        function domainSeparator() external view returns (bytes32);
        function eip712Domain() external view returns (bytes1 fields, string name, string version, uint256 chainId, address verifyingContract, bytes32 salt, uint256[] extensions);
        function exitDelay() external view returns (uint64);
        function keys(address owner, address key) external view returns (uint64);
        function lock(Claim claim) external;
        function nextOperator() external view returns (address);
        function nextPlatform() external view returns (address);
        function nextReserve() external view returns (address);
        function operator() external view returns (address);
        function payCredit(address payee) external;
        function platform() external view returns (address);
        function platformFees() external view returns (uint128);
        function proposeOperator(address next) external;
        function proposeRecipients(address platform_, address reserve_) external;
        function recipientsAt() external view returns (uint64);
        function redeem(Claim[] claims) external;
        function requestExit(uint64 amount) external;
        function reserve() external view returns (address);
        function reserveFees() external view returns (uint128);
        function revokeKey(address key) external;
        function setDailyCap(uint64 cap) external;
        function signer() external view returns (address);
        function signers(address signer) external view returns (uint64);
        function token() external view returns (address);
        function unlock(Claim claim) external;
        function withdraw() external returns (uint64 amount);
    }

    /// The faces of USDC that are used.
    #[derive(Debug)]
    interface Token {
        function name() external view returns (string);
        function version() external view returns (string);
        function decimals() external view returns (uint8);
        function balanceOf(address owner) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);
        function isBlacklisted(address account) external view returns (bool);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        function approve(address spender, uint256 value) external returns (bool);
        function transfer(address to, uint256 value) external returns (bool);
    }

    /// ENS: who answers for a name, and what it says.
    #[derive(Debug)]
    interface Names {
        function resolver(bytes32 node) external view returns (address);
        function addr(bytes32 node) external view returns (address);
    }

    /// What nodes of Arbitrum's kind answer at an address where no contract is.
    #[derive(Debug)]
    interface NodeInterface {
        function gasEstimateL1Component(address to, bool contractCreation, bytes calldata data)
            external payable returns (uint64 gasEstimateForL1, uint256 baseFee, uint256 l1BaseFeeEstimate);
    }

    /// Signed by the account for a deposit by authorisation (EIP-3009).
    struct ReceiveWithAuthorization { address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce; }
    /// Signed by the account for a deposit by permit (EIP-2612).
    struct Permit { address owner; address spender; uint256 value; uint256 nonce; uint256 deadline; }
    /// Signed by the account beside a permit, in the escrow's domain.
    struct Deposit { address account; address spendingKey; uint64 amount; bytes32 salt; uint64 deadline; }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use alloy_primitives::{hex, keccak256};
    use alloy_sol_types::SolInterface;
    use serde_json::Value;

    use super::Escrow::{EscrowCalls, EscrowErrors, EscrowEvents};

    fn type_of(input: &Value) -> String {
        let kind = input["type"].as_str().unwrap();
        match kind.strip_prefix("tuple") {
            Some(array) => format!("{}{array}", arguments(&input["components"])),
            None => kind.to_owned(),
        }
    }

    fn arguments(inputs: &Value) -> String {
        format!("({})", inputs.as_array().unwrap().iter().map(type_of).collect::<Vec<_>>().join(","))
    }

    /// Hashes of the signatures of one kind of thing in the compiled contract, with their texts.
    fn compiled(kind: &str) -> BTreeMap<String, String> {
        let artifact: Value = serde_json::from_str(crate::code::ARTIFACT).unwrap();
        let entries = artifact["abi"].as_array().unwrap().iter().filter(|entry| entry["type"] == kind);
        entries
            .map(|entry| {
                let text = format!("{}{}", entry["name"].as_str().unwrap(), arguments(&entry["inputs"]));
                let hash = keccak256(&text);
                (if kind == "event" { hex::encode(hash) } else { hex::encode(&hash[..4]) }, text)
            })
            .collect()
    }

    fn same(ours: impl Iterator<Item = String>, kind: &str) {
        let ours: Vec<String> = ours.collect();
        let theirs = compiled(kind);
        assert!(theirs.len() > 15, "{kind}: the artifact has only {}", theirs.len());
        for (hash, text) in &theirs {
            assert!(ours.contains(hash), "{kind} {text} is not known here");
        }
        assert_eq!(ours.len(), theirs.len(), "{kind}: more is known here than was compiled");
    }

    #[test]
    fn functions_events_and_errors_are_those_of_the_compiled_contract() {
        same(EscrowCalls::selectors().map(hex::encode), "function");
        same(EscrowErrors::selectors().map(hex::encode), "error");
        same(EscrowEvents::SELECTORS.iter().map(hex::encode), "event");
    }

    #[test]
    fn indexed_fields_of_events_are_those_of_the_compiled_contract() {
        let artifact: Value = serde_json::from_str(crate::code::ARTIFACT).unwrap();
        let text = include_str!("abi.rs");
        for event in artifact["abi"].as_array().unwrap().iter().filter(|entry| entry["type"] == "event") {
            let fields: Vec<String> = event["inputs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|input| {
                    let kind = input["type"].as_str().unwrap();
                    let indexed = if input["indexed"] == true { " indexed" } else { "" };
                    format!("{kind}{indexed} {}", input["name"].as_str().unwrap())
                })
                .collect();
            let line = format!("event {}({});", event["name"].as_str().unwrap(), fields.join(", "));
            assert!(text.contains(&line), "{line}");
        }
    }
}
