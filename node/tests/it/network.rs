//! The whole role over a real network: a node, a settlement peer and an agent's peer on loopback.

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::{DataDir, DoorSettings, FrameStream, Keys, Network, Peer, PeerConfig, RoleName, Settlement};
use orien_net::StreamKind;
use orien_node::{Config, Ready, RunNodeError};
use orien_protocol::frame::{Answer, CONTROL_FRAME_LIMIT, ChannelState, Claim, CloseReason, Question};
use orien_protocol::session::agent::AgentKeys;
use orien_protocol::session::provider::ProviderKeys;
use orien_protocol::signing::MoneyKey;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::kit::{HELPER, HUNG, Kit, TOOLS};

/// Secret of the settlement peer's money key.
const SETTLEMENT_SEED: [u8; 32] = [9; 32];

struct Cast {
    directory: TempDir,
    network: Network,
    settlement: Peer,
    cancel: CancellationToken,
    node: JoinHandle<Result<(), RunNodeError>>,
    ready: Ready,
    claims: mpsc::Receiver<Claim>,
    answering: JoinHandle<()>,
}

impl Cast {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let keys = Keys::load_or_create(&DataDir::open(&at("settlement"), RoleName::Settlement).unwrap()).unwrap();
        let signer = MoneyKey::from_bytes(&SETTLEMENT_SEED).unwrap().address();
        let named = Settlement { peer: keys.peer().id(), signer, addresses: Vec::new() };
        let network = Network::new_ledger("test", named.clone(), Vec::new()).unwrap();
        let config = PeerConfig::loopback(RoleName::Settlement, at("settlement"), network);
        let settlement = Peer::start(config, CancellationToken::new()).await.unwrap();
        let addresses = settlement.net().listen_addresses().await.unwrap();
        let network = Network::new_ledger("test", Settlement { addresses, ..named }, Vec::new()).unwrap();
        let (claims_in, claims) = mpsc::channel(64);
        let mut questions = settlement.take_questions().unwrap();
        let answering = tokio::spawn(async move {
            while let Some(inbound) = questions.recv().await {
                let Question::Claim(claim) = inbound.question else { continue };
                let state =
                    ChannelState { redeemed: claim.voucher.unverified().total, closed: claim.close.is_some(), ..ChannelState::default() };
                inbound.reply.answer(&Answer::Claimed(state)).await.unwrap();
                claims_in.send(*claim).await.unwrap();
            }
        });

        std::fs::write(at("provider-config.json"), TOOLS).unwrap();
        let mut config = Config::new(PeerConfig::loopback(RoleName::Node, at("node"), network.clone()), at("provider-config.json"));
        config.door = DoorSettings::local(([127, 0, 0, 1], 0).into());
        config.sandbox_helper = Some(HELPER.into());
        let (cancel, (told, ready)) = (CancellationToken::new(), oneshot::channel());
        let node = tokio::spawn(orien_node::run(config, cancel.clone(), told));
        let ready = tokio::time::timeout(HUNG, ready).await.unwrap().unwrap();
        Self { directory, network, settlement, cancel, node, ready, claims, answering }
    }

    async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let token = std::fs::read_to_string(&self.ready.token_file).unwrap();
        let mut stream = tokio::net::TcpStream::connect(self.ready.http).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            self.ready.http,
            token.trim()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_publishes_its_offer_serves_a_session_and_its_door_and_redeems_at_settlement() {
    let mut cast = Cast::start().await;
    let config = PeerConfig::loopback(RoleName::Gateway, cast.directory.path().join("gateway"), cast.network.clone());
    let gateway = Peer::start(config, CancellationToken::new()).await.unwrap();
    gateway.net().connect(cast.ready.peer_id, &cast.ready.addresses).await.unwrap();
    let Answer::Offer(Some(offer)) = gateway.ask(cast.ready.peer_id, &Question::Offer).await.unwrap() else { panic!("no offer") };
    let offer = offer.verify(cast.network.id(), &cast.ready.peer_id).unwrap();
    offer.check().unwrap();
    assert_eq!(offer.payout(), offer.claim_key(), "without a payout address earnings go to the node's own key");

    // The same kit as everywhere, with the parties of this network.
    let node_keys = keys(&cast, "node");
    let mut kit = Kit::new();
    (kit.network, kit.domain, kit.provider, kit.payout) = (cast.network.id().clone(), cast.network.domain(), node_keys, offer.payout());
    let agent_keys = AgentKeys { peer: gateway.key(), spending: gateway.money_key() };
    let stream = gateway.net().open(cast.ready.peer_id, StreamKind::Control).await.unwrap();
    let stream = FrameStream::new(Box::new(stream) as Box<dyn crate::agent::Io>, CONTROL_FRAME_LIMIT);
    let terms = kit.terms(&offer, offer.hash(), &agent_keys);
    let mut agent = Agent::propose_over(&kit, stream, terms, agent_keys, 5_000_000).await;
    agent.opened().await;
    assert!(agent.run_to_end("echo", &[("text", "over the network")]).await.outcome.unwrap().succeeded());

    let (status, health) = cast.get("/health").await;
    assert_eq!(
        (status, health["status"].as_str(), health["activeSession"].as_str()),
        (200, Some("ok"), Some(agent.session.id().to_string().as_str()))
    );
    assert_eq!(health["freeSessions"], 3);
    let (_, tools) = cast.get("/tools").await;
    let sleep = tools["tools"].as_array().unwrap().iter().find(|tool| tool["id"] == "sleep").unwrap().clone();
    assert_eq!(
        (&sleep["maxDurationSeconds"], &sleep["args"], &sleep["available"]),
        (&300.into(), &serde_json::json!(["seconds"]), &true.into())
    );
    let absent = tools["tools"].as_array().unwrap().iter().find(|tool| tool["id"] == "absent").unwrap().clone();
    assert!(absent["available"] == false && absent["reason"].is_string(), "{absent}");

    assert_eq!(agent.end().await, CloseReason::Ended);
    let claim = tokio::time::timeout(HUNG, cast.claims.recv()).await.unwrap().unwrap();
    assert_eq!(claim.voucher.unverified().total, agent.session.charged());
    let (_, earnings) = cast.get("/earnings").await;
    assert_eq!(earnings["charged"], agent.session.charged().to_string());

    cast.cancel.cancel();
    tokio::time::timeout(HUNG, &mut cast.node).await.unwrap().unwrap().unwrap();
    gateway.stop().await;
    cast.settlement.stop().await;
    tokio::time::timeout(Duration::from_secs(60), cast.answering).await.unwrap().unwrap();
}

/// The node's own keys, from its directory; it holds the lock, so they are read as files.
fn keys(cast: &Cast, name: &str) -> ProviderKeys {
    let read = |file: &str| -> [u8; 32] {
        let text = std::fs::read_to_string(cast.directory.path().join(name).join(file)).unwrap();
        let text = text.trim();
        let bytes: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    };
    ProviderKeys {
        peer: Arc::new(orien_protocol::signing::PeerKey::from_seed(&read("peer.key"))),
        claim: Arc::new(MoneyKey::from_bytes(&read("money.key")).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_tools_file_is_refused_with_its_faults_before_anything_starts() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("provider-config.json");
    std::fs::write(&file, r#"{"providerId": "x", "tools": [{"id": "A B", "command": "ls | wc"}]}"#).unwrap();
    let settlement = Settlement {
        peer: orien_protocol::peer::PeerId::from_bytes([3; 32]),
        signer: MoneyKey::from_bytes(&SETTLEMENT_SEED).unwrap().address(),
        addresses: Vec::new(),
    };
    let network = Network::new_ledger("test", settlement, Vec::new()).unwrap();
    let config = Config::new(PeerConfig::loopback(RoleName::Node, directory.path().join("node"), network), &file);
    let error = orien_node::run(config, CancellationToken::new(), oneshot::channel().0).await.unwrap_err();
    assert!(matches!(&error, RunNodeError::Tools { faults, .. } if faults.len() >= 2), "{error}");
    assert!(!directory.path().join("node").exists());
}
