//! What a signature covers and which forms of it are taken: every field of terms and offers, every code of a receipt, one form of every signature and text.

use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::offer::{Confinement, Offer, Parameter, ParameterKind};
use orien_protocol::peer::PeerId;
use orien_protocol::receipt::{EndReason, Outcome, Party};
use orien_protocol::signing::{
    Address, Layout, MoneyDomain, MoneyKey, MoneySignature, MoneyStatement, PeerKey, PeerSignature, Signed, Statement, keccak,
};
use orien_protocol::terms::{ProposedTerms, Terms, TermsError};
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use orien_protocol::voucher::{Close, MoneySigned, MoneyVerified};

use secp256k1::Message;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};

use crate::kit::{Kit, START, usdc};
use crate::limits::offer;

const ENDS: [(EndReason, &str, Party); 14] = [
    (EndReason::Exited, "exited", Party::Nobody),
    (EndReason::Signalled, "signalled", Party::Tool),
    (EndReason::Cancelled, "cancelled", Party::Agent),
    (EndReason::TimedOut, "timed_out", Party::Tool),
    (EndReason::CostReached, "cost_reached", Party::Agent),
    (EndReason::BudgetReached, "budget_reached", Party::Agent),
    (EndReason::CreditExhausted, "credit_exhausted", Party::Agent),
    (EndReason::MemoryLimit, "memory_limit", Party::Tool),
    (EndReason::CpuLimit, "cpu_limit", Party::Tool),
    (EndReason::OutputLimit, "output_limit", Party::Tool),
    (EndReason::DiskLimit, "disk_limit", Party::Tool),
    (EndReason::SetupFailed, "setup_failed", Party::Provider),
    (EndReason::ProviderStopped, "provider_stopped", Party::Provider),
    (EndReason::SessionEnded, "session_ended", Party::Agent),
];

#[test]
fn every_end_and_party_is_signed_as_its_own_number_and_named_once() {
    let kit = Kit::new();
    let parties = [(Party::Nobody, "nobody"), (Party::Agent, "agent"), (Party::Provider, "provider"), (Party::Tool, "tool")];
    for (party, name) in parties {
        assert_eq!(party.name(), name);
    }
    for (code, (end, name, party)) in (0_u8..).zip(ENDS) {
        assert_eq!((end.name(), end.party()), (name, party));
        let mut receipt = crate::golden::receipt();
        let outcome = Outcome::of(end, None);
        assert_eq!(outcome.party, party);
        receipt.work.as_mut().unwrap().outcome = Some(outcome);
        let message = receipt.message(&kit.network);
        let number = (0_u8..).zip(parties).find(|(_, (p, _))| *p == party).unwrap().0;
        // Before the charge of eight bytes: outcome, end, party, no exit code.
        assert_eq!(message[message.len() - 12..message.len() - 8], [1, code, number, 0], "{name}");
    }
}

#[test]
fn only_an_exit_by_itself_with_code_zero_is_a_success() {
    let rows = [(EndReason::Exited, Some(0), true), (EndReason::Exited, Some(1), false), (EndReason::Exited, None, false)];
    for (end, code, success) in rows.into_iter().chain([(EndReason::Cancelled, Some(0), false), (EndReason::TimedOut, Some(137), false)]) {
        assert_eq!(Outcome::of(end, code).succeeded(), success, "{end:?} {code:?}");
    }
}

/// One change of one field of an offer.
type Change<T> = fn(&mut T);

#[test]
fn every_field_of_an_offer_is_signed() {
    let changes: &[Change<Offer>] = &[
        |o| o.provider = PeerId::from_bytes([9; 32]),
        |o| o.version += 1,
        |o| o.issued_at = Timestamp(1),
        |o| o.expires_at = Timestamp(1),
        |o| o.label.push('x'),
        |o| o.name.push('x'),
        |o| o.description.push('x'),
        |o| o.ens_name = None,
        |o| o.region = None,
        |o| o.binding = Kit::new().terms().agent,
        |o| o.price.per_minute = usdc(1),
        |o| o.price.call_fee = usdc(1),
        |o| o.minimum_charge = usdc(1),
        |o| o.metering_interval = Millis(1),
        |o| o.tools.truncate(1),
        |o| o.tools.reverse(),
        |o| o.tools[0].id.push('x'),
        |o| o.tools[0].name.push('x'),
        |o| o.tools[0].description.push('x'),
        |o| o.tools[0].command.push('x'),
        |o| o.tools[0].parameters.clear(),
        |o| o.tools[0].parameters[0].name.push('x'),
        |o| o.tools[0].parameters[0].description.push('x'),
        |o| o.tools[0].parameters[0].required = false,
        |o| o.tools[0].max_duration = Millis(1),
        |o| o.tools[0].cpu_millis += 1,
        |o| o.tools[0].memory_bytes += 1,
        |o| o.tools[0].price.per_minute = usdc(1),
        |o| o.tools[0].price.call_fee = usdc(1),
        |o| o.tools[0].workspace_required = false,
        |o| o.tools[0].capabilities.truncate(1),
        |o| o.confinement = Confinement::S2,
        |o| o.hardware.cpus += 1,
        |o| o.hardware.memory_bytes += 1,
        |o| o.hardware.system.push('x'),
        |o| o.capacity.sessions += 1,
        |o| o.capacity.free += 1,
        |o| o.capacity.runs_per_session += 1,
        |o| o.record.up_since = Timestamp(1),
        |o| o.record.uptime_permyriad -= 1,
        |o| o.record.sessions_total += 1,
        |o| o.record.sessions_completed += 1,
        |o| o.addresses.clear(),
    ];
    all_differ(&offer(), changes);
    let kinds: &[Change<Offer>] = &[
        |o| kind(o, ParameterKind::Text { max_bytes: 1 }),
        |o| kind(o, ParameterKind::Text { max_bytes: 2 }),
        |o| kind(o, ParameterKind::Integer { min: 1, max: 2 }),
        |o| kind(o, ParameterKind::Integer { min: 1, max: 3 }),
        |o| kind(o, ParameterKind::Integer { min: 0, max: 2 }),
        |o| kind(o, ParameterKind::Number { min: 1, max: 2 }),
        |o| kind(o, ParameterKind::Boolean),
        |o| kind(o, ParameterKind::File),
        |o| kind(o, ParameterKind::Choice(Vec::new())),
        |o| kind(o, ParameterKind::Choice(vec!["slow".to_owned()])),
    ];
    all_differ(&offer(), kinds);
}

fn kind(offer: &mut Offer, kind: ParameterKind) {
    offer.tools[0].parameters[0] = Parameter { kind, ..offer.tools[0].parameters[0].clone() };
}

/// No two of the statements that the changes make are the same, nor the same as the one they change.
fn all_differ<T: Statement + Clone>(body: &T, changes: &[Change<T>]) {
    let network = Kit::new().network;
    let mut hashes = vec![body.hash(&network)];
    for (index, change) in changes.iter().enumerate() {
        let mut changed = body.clone();
        change(&mut changed);
        let hash = changed.hash(&network);
        assert!(!hashes.contains(&hash), "change {index} is not signed");
        hashes.push(hash);
    }
}

#[test]
fn every_field_of_terms_is_signed() {
    let changes: &[Change<Terms>] = &[
        |t| t.session = SessionId::from_parts(1, 1),
        |t| t.agent = t.provider.clone(),
        |t| t.provider = t.agent.clone(),
        |t| t.domain.chain_id += 1,
        |t| t.domain.escrow = Address::from_bytes([1; 20]),
        |t| t.settlement_signer = Address::from_bytes([2; 20]),
        |t| t.offer = Hash::ZERO,
        |t| t.prices.truncate(1),
        |t| t.prices[0].tool.push('x'),
        |t| t.prices[0].price.per_minute = usdc(1),
        |t| t.prices[0].price.call_fee = usdc(1),
        |t| t.minimum_charge = usdc(1),
        |t| t.metering_interval = Millis(1),
        |t| t.time_tolerance = Millis(1),
        |t| t.runs_at_once += 1,
        |t| t.confinement = Confinement::S3,
        |t| t.issued_at = Timestamp(1),
        |t| t.work_until = UnixSeconds(1),
        |t| t.redeem_until = UnixSeconds(1),
    ];
    all_differ(&Kit::new().terms(), changes);
}

#[test]
fn terms_are_refused_for_every_reason_alone_and_taken_at_the_limit() {
    let kit = Kit::new();
    let made = |change: &dyn Fn(&mut Terms)| {
        let mut terms = kit.terms();
        change(&mut terms);
        ProposedTerms::make(terms, &kit.network, &kit.agent.peer).map(|_| ())
    };
    let named = |n: usize, length: usize| {
        let price = kit.terms().prices[0].clone();
        move |t: &mut Terms| t.prices = vec![orien_protocol::terms::ToolPrice { tool: "x".repeat(length), ..price.clone() }; n]
    };
    assert_eq!((made(&named(64, 64)), made(&named(1, 1))), (Ok(()), Ok(())));
    assert_eq!(made(&|t| t.work_until = UnixSeconds(START.0 / 1000 + 1)), Ok(()));
    assert_eq!(made(&|t| t.redeem_until = UnixSeconds(t.work_until.0 + 1)), Ok(()));
    let senseless = |change: &dyn Fn(&mut Terms)| assert!(matches!(made(change), Err(TermsError::Senseless(_))));
    senseless(&named(0, 1));
    senseless(&named(65, 1));
    senseless(&named(1, 65));
    senseless(&|t| t.metering_interval = Millis(0));
    senseless(&|t| t.runs_at_once = 0);
    senseless(&|t| t.work_until = t.issued_at.seconds());
    senseless(&|t| t.redeem_until = t.work_until);
    let stranger = ProposedTerms::make(kit.terms(), &kit.network, &PeerKey::from_seed(&[66; 32]));
    assert!(matches!(stranger, Err(TermsError::Senseless(_))));
}

#[test]
fn an_interval_costs_at_least_the_smallest_amount_unless_every_tool_is_free() {
    let interval = |change: &dyn Fn(&mut Terms)| {
        let mut terms = Kit::new().terms();
        change(&mut terms);
        terms.interval_charge()
    };
    assert_eq!(interval(&|_| {}), usdc(5_500));
    let free = |t: &mut Terms, n: usize| t.prices[n].price = orien_protocol::money::Price::default();
    assert_eq!(interval(&|t| free(t, 1)), usdc(5_000));
    assert_eq!(interval(&|t| (free(t, 0), free(t, 1), t.prices[1].price.per_minute = usdc(1)).2), usdc(1));
    assert_eq!(interval(&|t| (free(t, 0), free(t, 1)).0), usdc(0));
}

#[test]
fn verified_terms_name_both_parties_their_keys_and_their_addresses() {
    let kit = Kit::new();
    let proposed = ProposedTerms::make(kit.terms(), &kit.network, &kit.agent.peer).unwrap();
    let terms = proposed.countersign(&kit.network, &kit.provider.peer).unwrap();
    assert_eq!((terms.agent(), terms.provider()), (kit.agent.peer.id(), kit.provider.peer.id()));
    assert_eq!((terms.spending_key(), terms.account()), (kit.agent.spending.address(), kit.agent.spending.address()));
    assert_eq!((terms.claim_key(), terms.payout()), (kit.provider.claim.address(), kit.terms().provider.unverified().principal));
    assert_eq!((terms.channel(), terms.hash()), (kit.terms().channel().id(), kit.terms().hash(&kit.network)));
    assert_eq!(terms.price("work"), Some(kit.terms().prices[0].price));
    assert_eq!(terms.price("nap"), None);
    assert!(terms.to_signed().verify(&kit.network).is_ok());
}

#[test]
fn a_money_signature_is_taken_in_one_form_only() {
    let kit = Kit::new();
    let signed =
        *MoneyVerified::sign(Close { channel: ChannelId::from_hash(Hash::ZERO), total: usdc(1) }, &kit.domain, &kit.settlement).signed();
    let bytes = signed.signature().to_bytes();
    assert_eq!(MoneySignature::from_bytes(&bytes).to_bytes(), bytes);
    let verify = |bytes: [u8; 65]| with_signature(&signed, bytes).verify(&kit.domain, &kit.settlement.address()).is_ok();
    assert!(verify(bytes));
    // The same point with the other S, which the contract refuses.
    let order = hex_bytes("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    let mut high = bytes;
    high[32..64].copy_from_slice(&difference(&order, &bytes[32..64]));
    high[64] = 27 + 28 - bytes[64];
    assert!(!verify(high));
    for v in [0, 1, 26, 29, 30, 255, 27 + 28 - bytes[64]] {
        let mut other = bytes;
        other[64] = v;
        assert!(!verify(other), "v {v}");
    }
    for at in 0..64 {
        let mut other = bytes;
        other[at] ^= 1;
        assert!(!verify(other), "byte {at}");
    }
}

#[test]
fn both_recovery_ids_are_signed_as_27_and_28_and_taken() {
    let kit = Kit::new();
    let mut seen = [false; 2];
    for total in 0..32 {
        let close = Close { channel: ChannelId::from_hash(Hash::ZERO), total: usdc(total) };
        let signed = *MoneyVerified::sign(close, &kit.domain, &kit.settlement).signed();
        seen[usize::from(signed.signature().to_bytes()[64] - 27)] = true;
        assert!(signed.verify(&kit.domain, &kit.settlement.address()).is_ok());
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn a_signature_whose_point_lies_beyond_the_order_is_refused_although_it_leads_to_a_key() {
    let kit = Kit::new();
    let close = Close { channel: ChannelId::from_hash(Hash::ZERO), total: usdc(1) };
    let digest = *close.digest(&kit.domain).as_bytes();
    // Nobody can sign so on purpose; v 29 says that r was reduced. The contract knows 27 and 28 only.
    let (bytes, signer) = (1..=255_u8)
        .find_map(|r| {
            let mut compact = [0; 64];
            (compact[31], compact[63]) = (r, 1);
            let signature = RecoverableSignature::from_compact(&compact, RecoveryId::from_u8_masked(2)).ok()?;
            let key = signature.recover_ecdsa(Message::from_digest(digest)).ok()?.serialize_uncompressed();
            let mut bytes = [0; 65];
            bytes[..64].copy_from_slice(&compact);
            bytes[64] = 29;
            Some((bytes, Address::from_bytes(keccak(&key[1..]).as_bytes()[12..].try_into().unwrap())))
        })
        .unwrap();
    let signed = *MoneyVerified::sign(close, &kit.domain, &kit.settlement).signed();
    assert!(with_signature(&signed, bytes).verify(&kit.domain, &signer).is_err());
}

#[test]
fn an_address_in_one_case_needs_no_checksum() {
    let lower = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
    let upper = format!("0x{}", lower[2..].to_uppercase());
    let address: Address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse().unwrap();
    assert_eq!((lower.parse(), upper.parse()), (Ok(address), Ok(address)));
}

/// The same statement with other bytes for its signature, as it would arrive.
fn with_signature(signed: &MoneySigned<Close>, bytes: [u8; 65]) -> MoneySigned<Close> {
    use orien_protocol::codec::{VALUE_LIMIT_BYTES, decode, encode};
    let mut wire = encode(signed).unwrap();
    let at = wire.len() - 65;
    wire[at..].copy_from_slice(&bytes);
    let changed: MoneySigned<Close> = decode(&wire, VALUE_LIMIT_BYTES).unwrap();
    assert_eq!(changed.signature().to_bytes(), bytes);
    changed
}

fn hex_bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// `a - b` of two big-endian numbers of the same length, by hand.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let (mut result, mut borrow) = (vec![0; a.len()], 0_i16);
    for i in (0..a.len()).rev() {
        let digit = i16::from(a[i]) - i16::from(b[i]) - borrow;
        borrow = i16::from(digit < 0);
        result[i] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    result
}

#[test]
fn signatures_and_ids_come_back_from_their_bytes_and_print_as_hex() {
    let kit = Kit::new();
    let terms = kit.terms();
    let signature = *terms.agent.by_peer.signature();
    assert_eq!(PeerSignature::from_bytes(signature.to_bytes()), signature);
    assert_eq!(format!("{signature:?}"), signature.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let joined = Signed::join(terms.agent.unverified().clone(), PeerSignature::from_bytes(signature.to_bytes()));
    assert!(joined.verify(&kit.network, &kit.agent.peer.id()).is_ok());
    let hash = Hash::of(b"x");
    assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
    assert_eq!((format!("{hash:?}"), hash.to_string().len()), (hash.to_string(), 64));
    assert!(hash.to_string()[1..].parse::<Hash>().is_err());
    let channel = terms.channel().id();
    assert_eq!((format!("{channel:?}"), channel.to_string()), (format!("0x{}", channel.hash()), format!("0x{}", channel.hash())));
    assert_eq!(format!("{:?}", usdc(1_250_000)), "1.25 USDC");
}

#[test]
fn a_key_prints_what_it_proves_and_nothing_of_its_secret() {
    let (money, peer) = (MoneyKey::from_bytes(&[0x5a; 32]).unwrap(), PeerKey::from_seed(&[0x5a; 32]));
    assert_eq!(format!("{money:?}"), format!("MoneyKey({})", money.address()));
    assert_eq!(format!("{peer:?}"), format!("PeerKey({})", peer.id()));
    assert_eq!(format!("{:?}", money.address()), money.address().to_string());
    assert!(MoneyKey::from_bytes(&[0; 32]).is_err());
}

#[test]
fn a_layout_writes_every_width_big_endian_and_counts_what_follows() {
    let kit = Kit::new();
    let mut out = Layout::open("d", &kit.network);
    let start = Layout::open("d", &kit.network).finish().len();
    out.u8(1);
    out.u16(0x0203);
    out.u32(0x0405_0607);
    out.u64(8);
    out.i64(-2);
    out.text("ab");
    out.list(&[7_u8, 9], |out, item| out.u8(*item));
    out.option(Some(&5_u8), |out, item| out.u8(*item));
    out.option(None::<&u8>, |out, item| out.u8(*item));
    let expected: Vec<u8> = [
        &[1, 2, 3, 4, 5, 6, 7][..],
        &[0, 0, 0, 0, 0, 0, 0, 8],
        &[255, 255, 255, 255, 255, 255, 255, 254],
        &[0, 0, 0, 2, b'a', b'b'],
        &[0, 0, 0, 2, 7, 9],
        &[1, 5, 0],
    ]
    .concat();
    assert_eq!(out.finish()[start..], expected);
}

#[test]
fn only_the_reserved_chain_is_the_ledger_and_its_escrow_depends_on_network_and_signer() {
    let kit = Kit::new();
    assert!(kit.domain.is_ledger());
    assert!(!MoneyDomain { chain_id: 8453, ..kit.domain }.is_ledger());
    let signer = kit.settlement.address();
    assert_eq!(MoneyDomain::ledger(kit.network.as_str(), &signer), kit.domain);
    assert_ne!(MoneyDomain::ledger("other", &signer).escrow, kit.domain.escrow);
    assert_ne!(MoneyDomain::ledger(kit.network.as_str(), &kit.agent.spending.address()).escrow, kit.domain.escrow);
}
