//! Reads our own transactions back, by hand: RLP of an EIP-1559 transaction, and the words of a call of `redeem`.

use orien_protocol::channel::{Channel, ChannelId};
use orien_protocol::id::SessionId;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, MoneyDomain};

/// What decides about a transaction.
#[derive(Clone, Debug)]
pub(crate) struct OnWire {
    pub(crate) nonce: u64,
    pub(crate) max_fee: u128,
    pub(crate) data: Vec<u8>,
}

/// One item of RLP and what follows it.
fn item(bytes: &[u8]) -> (&[u8], &[u8]) {
    let long = |of_length: usize| {
        let length = bytes[1..=of_length].iter().fold(0_usize, |length, byte| length * 256 + usize::from(*byte));
        bytes[1 + of_length..].split_at(length)
    };
    match bytes[0] {
        0..=0x7f => bytes.split_at(1),
        short @ 0x80..=0xb7 => bytes[1..].split_at(usize::from(short - 0x80)),
        of @ 0xb8..=0xbf => long(usize::from(of - 0xb7)),
        short @ 0xc0..=0xf7 => bytes[1..].split_at(usize::from(short - 0xc0)),
        of @ 0xf8..=0xff => long(usize::from(of - 0xf7)),
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number * 256 + u128::from(*byte))
}

pub(crate) fn transaction_of(raw: &[u8]) -> OnWire {
    assert_eq!(raw[0], 2, "an EIP-1559 transaction");
    let (list, _) = item(&raw[1..]);
    let (_, rest) = item(list);
    let (nonce, rest) = item(rest);
    let (_, rest) = item(rest);
    let (max_fee, rest) = item(rest);
    let (_, rest) = item(rest);
    let (_, rest) = item(rest);
    let (_, rest) = item(rest);
    let (data, _) = item(rest);
    OnWire { nonce: u64::try_from(number(nonce)).unwrap(), max_fee: number(max_fee), data: data.to_vec() }
}

/// The fields of one claim that the escrow decides by.
#[derive(Clone, Debug)]
pub(crate) struct ClaimOnWire {
    pub(crate) account: Address,
    pub(crate) payout: Address,
    spending_key: Address,
    provider: [u8; 32],
    signer: Address,
    lane: [u8; 16],
    pub(crate) total: u64,
    pub(crate) ceiling: u64,
    pub(crate) redeem_until: u64,
    pub(crate) close: Option<u64>,
}

const WORDS: usize = 21;

pub(crate) fn claims_of(data: &[u8]) -> Vec<ClaimOnWire> {
    let words: Vec<&[u8]> = data[4..].chunks(32).collect();
    let count = usize::try_from(number(words[1])).unwrap();
    assert_eq!(words.len(), 2 + count * WORDS);
    words[2..].chunks(WORDS).map(claim_of).collect()
}

fn claim_of(words: &[&[u8]]) -> ClaimOnWire {
    let address = |at: usize| Address::from_bytes(words[at][12..].try_into().unwrap());
    let amount = |at: usize| u64::try_from(number(&words[at][16..])).unwrap();
    ClaimOnWire {
        account: address(0),
        spending_key: address(1),
        payout: address(2),
        provider: words[3].try_into().unwrap(),
        signer: address(4),
        lane: words[5][..16].try_into().unwrap(),
        total: amount(6),
        ceiling: amount(11),
        redeem_until: amount(13),
        close: words[19].iter().any(|byte| *byte != 0).then(|| amount(18)),
    }
}

impl ClaimOnWire {
    pub(crate) fn channel(&self, domain: MoneyDomain) -> ChannelId {
        let channel = Channel {
            domain,
            account: self.account,
            spending_key: self.spending_key,
            payout: self.payout,
            provider: PeerId::from_bytes(self.provider),
            settlement_signer: self.signer,
            lane: SessionId::from_bytes(self.lane),
        };
        channel.id()
    }
}
