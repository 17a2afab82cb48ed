//! Settlement as it runs: asked by real peers over a real network, and by an operator through its local door.

use std::path::Path;
use std::time::Duration;

use orien_bootstrap::clock::{random_id, wall};
use orien_bootstrap::door::{DoorFile, DoorSettings};
use orien_bootstrap::{AskError, DataDir, Keys, Network, Peer, PeerConfig, RoleName, Settlement};
use orien_protocol::binding::SignedBinding;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{Answer, Claim, Question};
use orien_protocol::hash::Hash;
use orien_protocol::id::{RequestId, SessionId};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::Receipt;
use orien_protocol::signing::Verified;
use orien_protocol::terms::{ProposedTerms, Terms, ToolPrice, VerifiedTerms};
use orien_protocol::time::Millis;
use orien_protocol::voucher::{Close, MoneyVerified, SignedAllowance, Voucher};
use orien_settlement::audit::audit;
use orien_settlement::books::Grant;
use orien_settlement::offline::{OfflineDesk, OpenOfflineError};
use orien_settlement::{ChainConfig, Config, RunError, run};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::door::try_http;
use crate::kit::{Party, usdc};

/// After this a test counts as hung. Nothing is measured by it.
const HUNG: Duration = Duration::from_secs(60);

/// A settlement and one agent's peer that is connected to it.
struct Live {
    network: Network,
    folder: tempfile::TempDir,
    agent: Peer,
    cancel: CancellationToken,
    running: Option<JoinHandle<Result<(), RunError>>>,
}

impl Live {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("settlement"), RoleName::Settlement).unwrap();
        let keys = Keys::load_or_create(&data).unwrap();
        let named = Settlement { peer: keys.peer().id(), signer: keys.money().address(), addresses: Vec::new() };
        let network = Network::new_ledger("test", named, Vec::new()).unwrap();
        network.save(&data.network_file()).unwrap();
        drop(data);
        let config = PeerConfig::loopback(RoleName::Gateway, folder.path().join("agent"), network.clone());
        let agent = Peer::start(config, CancellationToken::new()).await.unwrap();
        let mut live = Self { network, folder, agent, cancel: CancellationToken::new(), running: None };
        live.resume().await;
        live
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("settlement")
    }

    /// Runs settlement, and waits until the agent's peer reaches it.
    async fn resume(&mut self) {
        let mut peer = PeerConfig::loopback(RoleName::Settlement, self.data_dir(), self.network.clone());
        peer.bootstrap = self.agent.net().listen_addresses().await.unwrap();
        let door = DoorSettings::local(([127, 0, 0, 1], 0).into());
        let config = Config { peer, door, batch_interval: Duration::from_secs(3600), chain: ChainConfig::default() };
        self.cancel = CancellationToken::new();
        self.running = Some(tokio::spawn(run(config, self.cancel.clone())));
        let question = Question::Balance(self.agent.money_key().address());
        let reached = async {
            while self.agent.ask(self.network.settlement().peer, &question).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(HUNG, reached).await.unwrap();
    }

    async fn stop(&mut self) -> Result<(), RunError> {
        self.cancel.cancel();
        tokio::time::timeout(HUNG, self.running.take().unwrap()).await.unwrap().unwrap()
    }

    async fn ask(&self, question: Question) -> Answer {
        match self.agent.ask(self.network.settlement().peer, &question).await {
            Err(AskError::Refused { fault, .. }) => Answer::Refused(fault),
            answer => answer.unwrap(),
        }
    }

    fn terms(&self, provider: &Party) -> VerifiedTerms {
        let (network, domain, now) = (self.network.id(), self.network.domain(), wall());
        let terms = Terms {
            session: random_id(SessionId::from_parts).unwrap(),
            agent: self.agent.binding(self.agent.money_key().address()),
            provider: SignedBinding::make(&provider.peer, &provider.money, provider.principal, network, &domain),
            domain,
            settlement_signer: self.network.settlement().signer,
            offer: Hash::of(b"offer"),
            prices: vec![ToolPrice { tool: "run_build".to_owned(), price: Price { per_minute: usdc("0.6"), call_fee: Usdc::ZERO } }],
            minimum_charge: usdc("0.05"),
            metering_interval: Millis::from_secs(5),
            time_tolerance: Millis(2_000),
            runs_at_once: 1,
            confinement: Confinement::S0,
            issued_at: now,
            work_until: now.plus(Millis::from_secs(3600)).seconds(),
            redeem_until: now.plus(Millis::from_secs(7200)).seconds(),
        };
        ProposedTerms::make(terms, network, &self.agent.key()).unwrap().countersign(network, &provider.peer).unwrap()
    }

    async fn reserve(&self, terms: &VerifiedTerms, ceiling: &str) -> Answer {
        let request = random_id(RequestId::from_parts).unwrap();
        self.ask(Question::Reserve { request, terms: Box::new(terms.to_signed()), ceiling: usdc(ceiling) }).await
    }

    fn claim(&self, terms: &VerifiedTerms, allowance: SignedAllowance, provider: &Party, total: &str) -> Claim {
        let domain = self.network.domain();
        let receipt = Receipt {
            session: terms.session,
            terms: terms.hash(),
            number: 1,
            previous: Hash::ZERO,
            at: wall(),
            confinement: Confinement::S0,
            work: None,
            charged: usdc(total),
        };
        let receipt = Verified::sign(receipt, self.network.id(), &provider.peer);
        let voucher = Voucher { channel: terms.channel(), total: usdc(total), receipt_number: 1, receipt_hash: receipt.hash() };
        let close = Close { channel: terms.channel(), total: usdc(total) };
        Claim {
            terms: terms.to_signed(),
            allowance,
            voucher: *MoneyVerified::sign(voucher, &domain, &self.agent.money_key()).signed(),
            receipt: receipt.into_signed(),
            close: Some(*MoneyVerified::sign(close, &domain, &provider.money).signed()),
        }
    }

    /// A request to the door: status and body.
    async fn http(&self, line: &str, key: Option<&str>, body: &str) -> (u16, String) {
        http(&self.data_dir(), line, key, body).await
    }

    async fn json(&self, line: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.http(line, key, &body).await;
        (status, serde_json::from_str(&text).unwrap())
    }
}

async fn http(data_dir: &Path, line: &str, key: Option<&str>, body: &str) -> (u16, String) {
    let door = DoorFile::read(data_dir).unwrap();
    tokio::time::timeout(HUNG, try_http(&door, line, key, body)).await.unwrap().unwrap()
}

fn fault(answer: Answer) -> (FaultCode, Option<Usdc>) {
    match answer {
        Answer::Refused(fault) => (fault.code, fault.missing),
        other => unreachable!("not refused: {other:?}"),
    }
}

fn allowance(answer: Answer) -> SignedAllowance {
    match answer {
        Answer::Allowance(allowance) => allowance,
        other => unreachable!("no allowance: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_granted_reserved_redeemed_settled_and_exported_by_real_peers_and_an_operator() {
    let mut live = Live::start().await;
    let (account, provider) = (live.agent.money_key().address(), Party::new(7));
    let terms = live.terms(&provider);
    assert_eq!(fault(live.reserve(&terms, "2").await), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc("2"))));

    let body = json!({"account": account.to_string(), "amount": "10.5"});
    let (status, granted) = live.json("POST /api/grants", Some("g1"), &body).await;
    assert_eq!((status, &granted["available"]), (200, &json!("10.5")), "{granted}");
    let allowance = allowance(live.reserve(&terms, "2").await);
    let claim = live.claim(&terms, allowance, &provider, "1.000001");
    assert!(
        matches!(live.ask(Question::Claim(Box::new(claim.clone()))).await, Answer::Claimed(state) if state.closed && state.redeemed == usdc("1.000001"))
    );

    // Settlement is stopped and started again; a replay changes nothing.
    live.stop().await.unwrap();
    live.resume().await;
    assert!(matches!(live.ask(Question::Claim(Box::new(claim))).await, Answer::Claimed(state) if state.closed));
    assert!(matches!(live.ask(Question::Balance(account)).await, Answer::Balance(funds) if funds.available == usdc("9.499999")));

    let (_, made) = live.json("POST /api/batches", Some("b1"), &Value::Null).await;
    let batch = made["batchId"].as_str().unwrap().to_owned();
    let (_, again) = live.json("POST /api/batches", Some("b1"), &Value::Null).await;
    assert_eq!(again, made);
    let (status, file) = live.http(&format!("GET /api/batches/{batch}"), None, "").await;
    assert_eq!(status, 200);
    let report = audit(file.as_bytes(), None).unwrap();
    assert!(report.clean(), "{:?}", report.findings);

    let (_, settled) = live.json("GET /api/settlements", None, &Value::Null).await;
    let line = &settled["settlements"][0];
    assert_eq!(
        [
            &line["sessionId"],
            &line["totalCost"],
            &line["providerPayout"],
            &line["platformFee"],
            &line["reserve"],
            &line["txHash"],
            &line["rail"]
        ],
        [
            &json!(terms.session.to_string()),
            &json!("1.000001"),
            &json!("0.900001"),
            &json!("0.07"),
            &json!("0.03"),
            &Value::Null,
            &json!("ledger")
        ]
    );
    let (_, csv) = live.http("POST /api/payouts/export?format=csv", Some("x1"), "").await;
    assert!(
        csv.starts_with("id,batchId,payee,amount,currency,rail,state,exportedAt,txHash\n")
            && csv.contains(",0.900001,USDC,ledger,exported,"),
        "{csv}"
    );
    assert_eq!(csv, live.http("POST /api/payouts/export?format=csv", Some("x1"), "").await.1);
    assert!(
        matches!(live.ask(Question::Earnings(provider.principal)).await, Answer::Earnings(earned) if earned.settled == usdc("0.900001") && earned.pending == Usdc::ZERO)
    );
    let (_, ledger) = live.json("GET /api/ledger", None, &Value::Null).await;
    assert_eq!((&ledger["balanced"], &ledger["settled"], &ledger["granted"]), (&json!(true), &json!("0.900001"), &json!("10.5")));
    live.stop().await.unwrap();
    live.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_refuses_bad_input_with_its_own_codes_and_stays_well() {
    let mut live = Live::start().await;
    let account = live.agent.money_key().address().to_string();
    let cases = [
        ("POST /api/grants", None, json!({"account": account, "amount": "1"}), 400, "idempotency_key_required"),
        ("POST /api/grants", Some("k"), json!({"account": account, "amount": 0.1}), 422, "invalid_body"),
        ("POST /api/grants", Some("k"), json!({"account": account, "amount": "1", "more": 1}), 422, "invalid_body"),
        ("POST /api/grants", Some("k"), json!({"account": "0x12", "amount": "1"}), 422, "invalid_value"),
        ("POST /api/grants", Some("k"), json!({"account": account, "amount": "-1"}), 422, "invalid_value"),
        ("POST /api/grants", Some("k"), json!({"account": account, "amount": "0.0000001"}), 422, "invalid_value"),
        ("POST /api/grants", Some("k"), json!({"account": account, "amount": "0"}), 422, "malformed"),
        ("GET /api/accounts/nobody", None, Value::Null, 422, "invalid_value"),
        ("GET /api/batches/batch_00000000000000000000000000", None, Value::Null, 404, "not_found"),
        ("GET /api/batches/xyz", None, Value::Null, 422, "invalid_value"),
        ("GET /api/payouts?format=xml", None, Value::Null, 400, "invalid_query"),
        ("GET /api/settlements?after=zzz", None, Value::Null, 422, "invalid_value"),
        ("POST /api/payouts/export", None, Value::Null, 400, "idempotency_key_required"),
    ];
    for (line, key, body, status, code) in cases {
        let (found, problem) = live.json(line, key, &body).await;
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{line}: {problem}");
    }
    let grant = json!({"account": account, "amount": 3});
    assert_eq!(live.json("POST /api/grants", Some("k"), &grant).await.1["funded"], json!("3"));
    let (status, problem) = live.json("POST /api/grants", Some("k"), &json!({"account": account, "amount": "4"})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    live.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_commands_work_while_settlement_is_stopped_and_are_locked_out_while_it_runs() {
    let mut live = Live::start().await;
    let account = live.agent.money_key().address();
    let locked_out = OfflineDesk::open(&live.data_dir()).unwrap_err();
    assert!(matches!(locked_out, OpenOfflineError::DataDir(_)), "{locked_out}");
    live.stop().await.unwrap();
    let offline = OfflineDesk::open(&live.data_dir()).unwrap();
    assert_eq!(offline.grant("cli", &Grant::of(account, usdc("2"))).unwrap().available, usdc("2"));
    assert_eq!(offline.batch().unwrap(), None);
    assert!(offline.export("cli").unwrap().is_empty());
    drop(offline);
    live.resume().await;
    assert!(matches!(live.ask(Question::Balance(account)).await, Answer::Balance(funds) if funds.available == usdc("2")));
    live.stop().await.unwrap();
    assert!(OfflineDesk::open(&live.folder.path().join("nowhere")).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_names_another_settlement_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let other = Party::new(5);
    let named = Settlement { peer: other.peer.id(), signer: other.money.address(), addresses: Vec::new() };
    let network = Network::new_ledger("test", named, Vec::new()).unwrap();
    let peer = PeerConfig::loopback(RoleName::Settlement, folder.path().join("data"), network);
    let config =
        Config { peer, door: DoorSettings::local(([127, 0, 0, 1], 0).into()), batch_interval: HUNG, chain: ChainConfig::default() };
    let stopped = tokio::time::timeout(HUNG, run(config, CancellationToken::new())).await.unwrap();
    assert!(matches!(stopped, Err(RunError::NotSettlement(_))), "{stopped:?}");
}
