//! A network on loopback: a settlement that grants what it is told to, a gateway, and as many shops as a test wants.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orien_bootstrap::{DataDir, DoorFile, DoorSettings, FaultyDisk, Keys, Network, NetworkChain, Peer, PeerConfig, RoleName, Settlement};
use orien_chain::anvil::{LocalChain, LocalSettings, chain_for_test};
use orien_gateway::{Config, RunGatewayError};
use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{Answer, ChannelState, Funds, Question};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::Millis;
use orien_protocol::voucher::{Allowance, MoneyVerified};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, HUNG};
use crate::shop::{Shop, ShopPlan};

/// What the account can reserve in all.
pub(crate) const FUNDS: Usdc = Usdc::from_micros(10_000_000);

pub(crate) struct World {
    root: TempDir,
    pub(crate) network: Network,
    settlement: Arc<Peer>,
    settling: JoinHandle<()>,
    /// Whether settlement leaves every question without an answer.
    pub(crate) silent: Arc<AtomicBool>,
    /// What is reserved, by channel.
    held: Held,
    gateway: Option<Running>,
    /// The account that pays, if it is another than the gateway's own key.
    account: Option<Address>,
    spending_key: Address,
}

type Held = Arc<Mutex<BTreeMap<ChannelId, Usdc>>>;

struct Running {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), RunGatewayError>>,
    client: Client,
}

impl World {
    /// A network with a settlement and a gateway.
    pub(crate) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let network = Network::new_ledger("test", settlement_in(&root), Vec::new()).unwrap();
        Self::begin(root, network, None).await
    }

    /// The same on a chain, whose escrow holds what `account` deposited; nothing is there yet.
    pub(crate) async fn on_chain(account: Address, chain_id: u64) -> Option<(Self, LocalChain)> {
        let root = tempfile::tempdir().unwrap();
        let settlement = settlement_in(&root);
        let mut settings = LocalSettings::new(settlement.signer);
        settings.anvil.chain_id = chain_id;
        let local = chain_for_test(&settings).await?;
        let chain = NetworkChain { facts: *local.facts(), preset: None, rpc: vec![local.anvil.rpc().clone()] };
        let (exit_delay, lag) = (Millis::from_secs(settings.exit_delay.0), Millis::from_secs(60));
        let network = Network::new_evm("test", settlement, chain, exit_delay, lag, Vec::new()).unwrap();
        Some((Self::begin(root, network, Some(account)).await, local))
    }

    /// The key that promises the account's money.
    pub(crate) fn spending_key(&self) -> Address {
        self.spending_key
    }

    async fn begin(root: TempDir, network: Network, account: Option<Address>) -> Self {
        let home = root.path().join("settlement");
        let gateway = DataDir::open(&root.path().join("gateway"), RoleName::Gateway).unwrap();
        let spending_key = Keys::load_or_create(&gateway).unwrap().money().address();
        drop(gateway);
        let peer = Arc::new(
            Peer::start(PeerConfig::loopback(RoleName::Settlement, home, network.clone()), CancellationToken::new()).await.unwrap(),
        );
        let network = network.with_bootstrap(&peer.net().listen_addresses().await.unwrap()).unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        let held = Held::default();
        let settling = tokio::spawn(settle(Arc::clone(&peer), Arc::clone(&silent), Arc::clone(&held)));
        let mut world = Self { root, network, settlement: peer, settling, silent, held, gateway: None, account, spending_key };
        world.start_gateway().await;
        world
    }

    pub(crate) async fn start_gateway(&mut self) {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(orien_gateway::run(self.config(), cancel.clone()));
        self.started(cancel, task).await;
    }

    /// Starts it with its sessions on a disk that may fail.
    pub(crate) async fn start_gateway_over(&mut self, disk: &FaultyDisk) {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(orien_gateway::run_over(disk.clone(), self.config(), cancel.clone()));
        self.started(cancel, task).await;
    }

    fn home(&self) -> PathBuf {
        self.root.path().join("gateway")
    }

    fn config(&self) -> Config {
        Config {
            peer: PeerConfig::loopback(RoleName::Gateway, self.home(), self.network.clone()),
            door: DoorSettings::local(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            account: self.account,
            approve_above: None,
        }
    }

    async fn started(&mut self, cancel: CancellationToken, task: JoinHandle<Result<(), RunGatewayError>>) {
        let home = self.home();
        let file = until("the gateway's door", || async { DoorFile::read(&home).ok() }).await;
        let token = orien_door::Token::read(&file.token_file).unwrap().expose().to_owned();
        self.gateway = Some(Running { cancel, task, client: Client { address: file.address, token } });
    }

    /// Waits until the gateway has ended by itself, and gives why.
    pub(crate) async fn failed(&mut self) -> RunGatewayError {
        let Running { task, .. } = self.gateway.take().unwrap();
        tokio::time::timeout(HUNG, task).await.unwrap().unwrap().unwrap_err()
    }

    pub(crate) async fn stop_gateway(&mut self) {
        let Running { cancel, task, .. } = self.gateway.take().unwrap();
        cancel.cancel();
        tokio::time::timeout(HUNG, task).await.unwrap().unwrap().unwrap();
    }

    /// How many channels hold something.
    pub(crate) fn reserved(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    pub(crate) fn client(&self) -> Client {
        self.gateway.as_ref().unwrap().client.clone()
    }

    /// A provider that the gateway knows.
    pub(crate) async fn shop(&self, name: &str, plan: ShopPlan) -> Shop {
        let shop = Shop::open(PeerConfig::loopback(RoleName::Node, self.root.path().join(name), self.network.clone()), plan).await;
        let (client, path) = (self.client(), format!("/api/providers/{}", shop.id()));
        until("the offer at the gateway", || async { (client.get(&path).await.status == 200).then_some(()) }).await;
        shop
    }

    /// Opens a session and gives its id.
    pub(crate) async fn open(&self, key: &str, shop: &Shop, budget: &str) -> String {
        let body = json!({ "providerId": shop.id().to_string(), "budgetAllowance": budget });
        text(&self.client().post("/api/sessions", key, &body).await.ok(201), "id")
    }

    /// Starts a run and gives its id.
    pub(crate) async fn run(&self, key: &str, session: &str, tool: &str, args: Value) -> String {
        let body = json!({ "sessionId": session, "toolId": tool, "args": args });
        text(&self.client().post("/tools/run", key, &body).await.ok(201), "executionId")
    }

    /// Waits until a run is over and gives it.
    pub(crate) async fn over(&self, execution: &str) -> Value {
        let (client, path) = (self.client(), format!("/executions/{execution}"));
        until("the end of a run", || async {
            let run = client.get(&path).await.ok(200);
            ["completed", "failed"].contains(&run["status"].as_str().unwrap()).then_some(run)
        })
        .await
    }

    pub(crate) async fn close(mut self) {
        self.stop_gateway().await;
        self.settling.abort();
        self.settlement.stop().await;
    }
}

/// Settlement's keys, made in its directory.
fn settlement_in(root: &TempDir) -> Settlement {
    let home = root.path().join("settlement");
    let keys = Keys::load_or_create(&DataDir::open(&home, RoleName::Settlement).unwrap()).unwrap();
    Settlement { peer: keys.peer().id(), signer: keys.money().address(), addresses: Vec::new() }
}

pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

/// Looks again and again until there is something.
pub(crate) async fn until<T, W: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> W) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HUNG, looking).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn settle(peer: Arc<Peer>, silent: Arc<AtomicBool>, held: Held) {
    let mut unanswered = Vec::new();
    let mut questions = peer.take_questions().unwrap();
    while let Some(inbound) = questions.recv().await {
        if silent.load(Ordering::SeqCst) {
            unanswered.push(inbound);
            continue;
        }
        let answer = answer(&peer, inbound.question, &mut held.lock().unwrap());
        inbound.reply.answer(&answer).await.unwrap();
    }
}

fn answer(peer: &Peer, question: Question, ceilings: &mut BTreeMap<ChannelId, Usdc>) -> Answer {
    match question {
        Question::Reserve { terms, ceiling, .. } => {
            let terms = terms.verify(peer.network().id()).unwrap();
            let others: u64 =
                ceilings.iter().filter(|(channel, _)| **channel != terms.channel()).map(|(_, held): (_, &Usdc)| held.micros()).sum();
            let missing = Usdc::from_micros(others).plus(ceiling).unwrap().excess_over(FUNDS);
            if missing > Usdc::ZERO {
                Answer::Refused(Fault::new(FaultCode::INSUFFICIENT_FUNDS, "the account has less").missing(missing))
            } else {
                ceilings.insert(terms.channel(), ceiling);
                Answer::Allowance(allowance(peer, &terms, ceiling))
            }
        }
        Question::Release { terms, close } => {
            let terms = terms.verify(peer.network().id()).unwrap();
            let close = close.verify(&terms.domain, &terms.claim_key()).unwrap();
            assert_eq!((close.channel, close.total), (terms.channel(), Usdc::ZERO));
            let ceiling = ceilings.remove(&terms.channel()).unwrap_or_default();
            Answer::Claimed(ChannelState { ceiling, redeemed: Usdc::ZERO, closed: true })
        }
        Question::Balance(_) => {
            let reserved = Usdc::from_micros(ceilings.values().map(|held| held.micros()).sum());
            Answer::Balance(Funds { funded: FUNDS, reserved, redeemed: Usdc::ZERO, available: FUNDS.minus(reserved).unwrap() })
        }
        _ => Answer::Refused(Fault::new(FaultCode::NOT_FOUND, "not in this script")),
    }
}

fn allowance(peer: &Peer, terms: &VerifiedTerms, ceiling: Usdc) -> orien_protocol::voucher::SignedAllowance {
    let allowance = Allowance {
        channel: terms.channel(),
        ceiling,
        work_until: terms.work_until,
        redeem_until: terms.redeem_until,
        terms: terms.hash(),
        claim_key: terms.claim_key(),
    };
    *MoneyVerified::sign(allowance, &terms.domain, &peer.money_key()).signed()
}
