//! A network and offers for the tests of this crate.

use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::{Capacity, Confinement, Hardware, Offer, Record, Tool};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, PeerKey};
use orien_protocol::time::{Millis, Timestamp};

use crate::network_file::{Network, Settlement};

pub(crate) fn network() -> Network {
    let settlement = Settlement { peer: PeerKey::from_seed(&[1; 32]).id(), signer: Address::from_bytes([2; 20]), addresses: Vec::new() };
    Network::new_ledger("test", settlement, Vec::new()).unwrap()
}

pub(crate) fn tool(id: &str) -> Tool {
    Tool {
        id: id.to_owned(),
        name: id.to_owned(),
        description: String::new(),
        command: id.to_owned(),
        parameters: Vec::new(),
        max_duration: Millis::from_secs(60),
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        price: price(),
        workspace_required: true,
        capabilities: Vec::new(),
    }
}

fn price() -> Price {
    Price { per_minute: Usdc::from_micros(1000), call_fee: Usdc::ZERO }
}

pub(crate) fn offer(provider: PeerId, version: u64, issued_at: Timestamp, expires_at: Timestamp) -> Offer {
    Offer {
        provider,
        version,
        issued_at,
        expires_at,
        label: "provider_xyz".to_owned(),
        name: "Sample".to_owned(),
        description: String::new(),
        ens_name: None,
        region: Some("eu".to_owned()),
        binding: orien_protocol::binding::SignedBinding {
            by_peer: orien_protocol::signing::Signed::join(
                orien_protocol::binding::Binding {
                    peer: provider,
                    money_key: Address::from_bytes([6; 20]),
                    principal: Address::from_bytes([5; 20]),
                    network: "test".parse().unwrap(),
                },
                orien_protocol::signing::PeerSignature::from_bytes([0; 64]),
            ),
            by_money_key: orien_protocol::signing::MoneySignature::from_bytes(&[0; 65]),
        },
        price: price(),
        minimum_charge: Usdc::from_micros(100),
        metering_interval: Millis::from_secs(5),
        tools: vec![tool("run_build")],
        confinement: Confinement::S0,
        hardware: Hardware::default(),
        capacity: Capacity { sessions: 4, free: 4, runs_per_session: 1 },
        record: Record::default(),
        addresses: Vec::new(),
    }
}
