//! What is written into transactions: calls of the escrow and of the token.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolValue};
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneySignature};
use orien_protocol::time::UnixSeconds;

use crate::abi::{Escrow, EscrowSetup, Token};
use crate::claim::OnChainClaim;
use crate::code;
use crate::deposit::{Authorization, PermittedDeposit};
use crate::error::ChainError;
use crate::rpc::wire::{theirs, word};

/// Pays what is new in each claim; anybody may send it. Claims of one payout address that stand beside each other become one transfer.
pub fn redeem(claims: &[OnChainClaim]) -> Vec<u8> {
    Escrow::redeemCall { claims: claims.iter().map(OnChainClaim::typed).collect() }.abi_encode()
}

/// Sets what is left under a claim's allowance aside for its channel.
pub fn lock(claim: &OnChainClaim) -> Vec<u8> {
    Escrow::lockCall { claim: claim.typed() }.abi_encode()
}

/// Gives back what is left of a lock.
pub fn unlock(claim: &OnChainClaim) -> Vec<u8> {
    Escrow::unlockCall { claim: claim.typed() }.abi_encode()
}

/// Deposits the sender's own money, which it has approved before.
pub fn deposit(amount: Usdc, spending_key: &Address) -> Vec<u8> {
    Escrow::depositCall { amount: amount.micros(), spendingKey: theirs(spending_key) }.abi_encode()
}

/// Deposits by a signed authorisation (EIP-3009); anybody may send it.
pub fn deposit_with_authorization(authorization: &Authorization, signature: &MoneySignature) -> Vec<u8> {
    Escrow::depositWithAuthorizationCall {
        account: theirs(&authorization.account),
        amount: authorization.amount.micros(),
        spendingKey: theirs(&authorization.spending_key),
        salt: word(&authorization.salt),
        validAfter: U256::from(authorization.valid_after.0),
        validBefore: U256::from(authorization.valid_before.0),
        signature: Bytes::copy_from_slice(&signature.to_bytes()),
    }
    .abi_encode()
}

/// Deposits by a permit of the token (EIP-2612) and the account's own signed deposit; anybody may send it.
pub fn deposit_with_permit(deposit: &PermittedDeposit, signature: &MoneySignature, permit: &MoneySignature) -> Vec<u8> {
    let permit = permit.to_bytes();
    let mut words = [Hash::ZERO; 2];
    for (place, bytes) in words.iter_mut().zip(permit.chunks_exact(32)) {
        *place = bytes.try_into().map_or(Hash::ZERO, Hash::from_bytes);
    }
    Escrow::depositWithPermitCall {
        account: theirs(&deposit.account),
        amount: deposit.amount.micros(),
        spendingKey: theirs(&deposit.spending_key),
        salt: word(&deposit.salt),
        deadline: deposit.deadline.0,
        signature: Bytes::copy_from_slice(&signature.to_bytes()),
        v: permit[64],
        r: word(&words[0]),
        s: word(&words[1]),
    }
    .abi_encode()
}

/// Lets a key promise the sender's money.
pub fn authorize_key(key: &Address) -> Vec<u8> {
    Escrow::authorizeKeyCall { key: theirs(key) }.abi_encode()
}

/// Ends a key of the sender's.
pub fn revoke_key(key: &Address) -> Vec<u8> {
    Escrow::revokeKeyCall { key: theirs(key) }.abi_encode()
}

/// Caps what may be reserved of the sender's account in a day; zero lifts the cap.
pub fn set_daily_cap(cap: Usdc) -> Vec<u8> {
    Escrow::setDailyCapCall { cap: cap.micros() }.abi_encode()
}

/// Asks for money back; it can be withdrawn after the exit delay.
pub fn request_exit(amount: Usdc) -> Vec<u8> {
    Escrow::requestExitCall { amount: amount.micros() }.abi_encode()
}

/// Takes the request back.
pub fn cancel_exit() -> Vec<u8> {
    Escrow::cancelExitCall {}.abi_encode()
}

/// Takes what was asked back.
pub fn withdraw() -> Vec<u8> {
    Escrow::withdrawCall {}.abi_encode()
}

/// Sends the platform's fees to the platform.
pub fn collect_platform() -> Vec<u8> {
    Escrow::collectPlatformCall {}.abi_encode()
}

/// Sends the reserve's fees to the reserve.
pub fn collect_reserve() -> Vec<u8> {
    Escrow::collectReserveCall {}.abi_encode()
}

/// Tries an undelivered payment again.
pub fn pay_credit(payee: &Address) -> Vec<u8> {
    Escrow::payCreditCall { payee: theirs(payee) }.abi_encode()
}

/// Replaces settlement's signer; the operator alone may.
pub fn change_signer(next: &Address) -> Vec<u8> {
    Escrow::changeSignerCall { next: theirs(next) }.abi_encode()
}

/// Lets another take an amount of the sender's token; sent to the token.
pub fn approve(spender: &Address, amount: Usdc) -> Vec<u8> {
    Token::approveCall { spender: theirs(spender), value: U256::from(amount.micros()) }.abi_encode()
}

/// Sends an amount of the token; sent to the token.
pub fn transfer(to: &Address, amount: Usdc) -> Vec<u8> {
    Token::transferCall { to: theirs(to), value: U256::from(amount.micros()) }.abi_encode()
}

/// What is fixed when an escrow is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The token: USDC.
    pub token: Address,
    /// May change the settlement signer, and after the exit delay the recipients of fees.
    pub operator: Address,
    /// Settlement's signer.
    pub signer: Address,
    /// Receives seven tenths of the fees.
    pub platform: Address,
    /// Receives three tenths of the fees.
    pub reserve: Address,
    /// Between asking for an exit and taking it: an hour to thirty days.
    pub exit_delay: UnixSeconds,
}

/// Gas that deploying the escrow needs, with some to spare.
pub const DEPLOY_GAS: u64 = 6_000_000;

/// The data of a transaction without receiver that deploys an escrow.
pub fn deploy_escrow(setup: &Setup) -> Result<Vec<u8>, ChainError> {
    let arguments = EscrowSetup {
        token: theirs(&setup.token),
        operator: theirs(&setup.operator),
        signer: theirs(&setup.signer),
        platform: theirs(&setup.platform),
        reserve: theirs(&setup.reserve),
        exitDelay: setup.exit_delay.0,
    };
    let mut data = code::creation()?.to_vec();
    data.extend_from_slice(&arguments.abi_encode());
    Ok(data)
}

/// The address of a contract that `sender` deploys by its transaction with this nonce.
pub fn deployed_address(sender: &Address, nonce: u64) -> Address {
    crate::rpc::wire::ours(theirs(sender).create(nonce))
}
