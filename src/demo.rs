//! `orien demo`: the whole main job once, on real input, over HTTP and libp2p, with nothing taken for granted.
//!
//! It succeeds only if every step held: the build ran, the downloaded program has the announced hash and does its work here, every receipt carries two good signatures, settlement split the charge
//! 90/7/3, and an audit of the published evidence gives the same sums.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use orien_bootstrap::RoleName;
use orien_chain::TxHash;
use orien_protocol::hash::Hash;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::Address;
use serde_json::{Value, json};

use crate::cli::{ChainName, DemoArgs};
use crate::client::Client;
use crate::dev::{DevChain, DevNetwork, DevPlan};
use crate::{examples, output};

/// What the agent is willing to spend.
const BUDGET: &str = "0.5";
/// Longest wait for something that another role does by itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for a payout to be final on a chain that makes a block each second.
const CHAIN_PATIENCE: Duration = Duration::from_secs(90);
/// What the account has.
const CREDIT: Usdc = Usdc::from_micros(10_000_000);

/// Runs the demonstration.
pub(crate) async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let step = Arc::new(Steps::new());
    match args.chain {
        Some(ChainName::Anvil) => step.begin("starting a chain, its token, an escrow, settlement, bootstrap, node and gateway on loopback"),
        None => step.begin("starting settlement, bootstrap, node and gateway on loopback"),
    }
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let plan = DevPlan { data_dir: None, tools: None, gateway_http: free, credit: CREDIT, chain: args.chain, approve_above: None };
    let mut dev = DevNetwork::start(plan).await?;
    if let Some(chain) = dev.chain() {
        step.done(format!("{}; {CREDIT} USDC deposited by {}", chain.describe(), chain.account()));
    }
    let gateway = dev.door(RoleName::Gateway).await?;
    let settlement = dev.door(RoleName::Settlement).await?;
    let scratch = dev.root().join("download");
    let own = Arc::clone(&step);
    let job = tokio::task::spawn_blocking(move || main_job(&own, &gateway, &settlement, &scratch)).await.context("the job broke off");
    let job = match (job, dev.chain()) {
        (Ok(Ok(mut summary)), Some(chain)) => {
            let payee = dev.money_address(RoleName::Node)?.parse()?;
            on_chain(&step, chain, &payee, &summary["settlement"]).await.map(|found| {
                summary["chain"] = found;
                summary
            })
        }
        (job, _) => job?,
    };
    dev.stop().await?;
    let mut summary = job?;
    summary["seconds"] = json!(format!("{:.1}", begun.elapsed().as_secs_f64()));
    if args.json {
        output::json(&summary)?;
    } else {
        output::line(format!("done in {} s: everything held", summary["seconds"].as_str().unwrap_or_default()));
    }
    Ok(())
}

fn main_job(step: &Steps, gateway: &Client, settlement: &Client, scratch: &Path) -> anyhow::Result<Value> {
    step.begin("looking for a provider that offers run_build");
    let providers = wait_for("a provider of run_build", || {
        let found = gateway.get("/api/providers?tool=run_build")?;
        Ok(found["providers"].as_array().filter(|list| !list.is_empty()).cloned())
    })?;
    step.done(format!("{} at {} USDC per minute", text(&providers[0], "name")?, providers[0]["pricePerMinute"]));

    step.begin("opening a session");
    let order = json!({ "providerId": "auto", "tools": ["run_build"], "budgetAllowance": BUDGET, "mission": "build a C program" });
    let session = gateway.post("/api/sessions", &order, None)?;
    let id = text(&session, "id")?;
    step.done(format!("{id}, budget {BUDGET} USDC; chosen because: {}", session["whyProvider"].as_str().unwrap_or("-")));

    upload(step, gateway, &id)?;
    let execution = build(step, gateway, &id)?;
    let binary = fetch(step, gateway, &id)?;
    try_out(step, &binary, scratch)?;

    step.begin("ending the session");
    let ended = gateway.post(&format!("/api/sessions/{id}/end"), &json!({}), None)?;
    ensure!(ended["status"] == "completed", "the session did not complete: {ended}");
    step.done(format!("consumed {} of {BUDGET} USDC", ended["budgetConsumed"]));
    let receipts = receipts(step, gateway, &id)?;
    let settled = settlement_of(step, settlement, &id, receipts.last().map_or(&Value::Null, |receipt| &receipt["charged"]))?;
    let audit = audit(step, settlement)?;
    Ok(json!({ "session": id, "execution": execution, "receipts": receipts, "settlement": settled, "audit": audit }))
}

fn upload(step: &Steps, gateway: &Client, session: &str) -> anyhow::Result<()> {
    step.begin("uploading the source tree examples/wordfreq");
    for (path, contents) in examples::WORDFREQ {
        let stored = gateway.put(&format!("/api/sessions/{session}/files/{path}"), contents.as_bytes())?;
        let hash = text(&stored, "hash")?;
        ensure!(hash.ends_with(&Hash::of(contents.as_bytes()).to_string()), "{path} arrived with another hash: {hash}");
    }
    step.done(format!("{} files, every hash confirmed by the provider", examples::WORDFREQ.len()));
    Ok(())
}

fn build(step: &Steps, gateway: &Client, session: &str) -> anyhow::Result<Value> {
    step.begin("running the provider's tool run_build");
    let run = gateway.post("/tools/run", &json!({ "sessionId": session, "toolId": "run_build", "args": {} }), None)?;
    let execution = text(&run, "executionId")?;
    let mut lines = 0;
    gateway.follow(&format!("/logs/{execution}"), |event| {
        if let Some(line) = event.data["line"].as_str() {
            lines += 1;
            step.say(format!("    | {line}"));
        }
        event.name != "end"
    })?;
    ensure!(lines > 0, "the build left no log");
    let done = wait_for("the end of the build", || {
        let state = gateway.get(&format!("/executions/{execution}"))?;
        Ok((state["status"] == "completed" || state["status"] == "failed").then_some(state))
    })?;
    ensure!(done["status"] == "completed" && done["exitCode"] == 0, "the build failed: {done}");
    step.done(format!("exit code 0 after {} s, cost {} USDC", done["effectiveDurationSeconds"], done["cost"]));
    Ok(done)
}

fn fetch(step: &Steps, gateway: &Client, session: &str) -> anyhow::Result<Vec<u8>> {
    step.begin("downloading build/wordfreq");
    let (binary, announced) = gateway.download(&format!("/api/sessions/{session}/files/build/wordfreq"))?;
    let hash = Hash::of(&binary).to_string();
    ensure!(announced.as_deref().is_some_and(|announced| announced.ends_with(&hash)), "announced {announced:?}, arrived {hash}");
    step.done(format!("{} bytes, hash {}... as announced", binary.len(), &hash[..16]));
    Ok(binary)
}

/// Runs what was built, here, on the sample, and compares what it prints.
fn try_out(step: &Steps, binary: &[u8], scratch: &Path) -> anyhow::Result<()> {
    step.begin("running the downloaded program here");
    std::fs::create_dir_all(scratch)?;
    let (program, sample) = (scratch.join("wordfreq"), scratch.join("sample.txt"));
    std::fs::write(&program, binary)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    std::fs::write(&sample, examples::WORDFREQ_SAMPLE)?;
    let output = Command::new(&program)
        .arg("3")
        .stdin(Stdio::from(std::fs::File::open(&sample)?))
        .output()
        .context("the downloaded program does not start")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && printed == examples::WORDFREQ_EXPECTED, "it printed something else: {printed}");
    step.done("it prints what it should");
    Ok(())
}

fn receipts(step: &Steps, gateway: &Client, session: &str) -> anyhow::Result<Vec<Value>> {
    step.begin("checking the receipts");
    let answer = gateway.get(&format!("/api/sessions/{session}/receipts"))?;
    let Some(receipts) = answer["receipts"].as_array().filter(|list| !list.is_empty()) else { bail!("there are no receipts: {answer}") };
    for receipt in receipts {
        ensure!(receipt["providerSignatureValid"] == true && receipt["voucherSignatureValid"] == true, "a signature is wrong: {receipt}");
        let what = receipt["work"]["toolId"].as_str().unwrap_or("opening");
        let end = receipt["work"]["endReason"].as_str().unwrap_or(if what == "opening" { "minimum charge" } else { "running" });
        step.say(format!(
            "    | no. {} {what} ({end}): session charge {} USDC, signed by provider and agent",
            receipt["number"], receipt["charged"]
        ));
    }
    step.done(format!("{} receipts, both signatures of each verified", receipts.len()));
    Ok(receipts.clone())
}

fn settlement_of(step: &Steps, settlement: &Client, session: &str, charged: &Value) -> anyhow::Result<Value> {
    step.begin("waiting for the settlement");
    let settled = wait_so_long(CHAIN_PATIENCE, "the settlement", || {
        let all = settlement.get("/api/settlements")?;
        let mine = all["settlements"].as_array().into_iter().flatten().find(|settled| settled["sessionId"] == session);
        Ok(mine.cloned())
    })?;
    let amount = |name: &str| -> anyhow::Result<Usdc> { Ok(text(&settled, name)?.parse()?) };
    let total = amount("totalCost")?;
    let split = Split::of(total);
    ensure!(charged.to_string().trim_matches('"') == total.to_string(), "settled {total} USDC and charged {charged}");
    ensure!(
        (amount("providerPayout")?, amount("platformFee")?, amount("reserve")?) == (split.provider, split.platform, split.reserve),
        "not 90/7/3: {settled}"
    );
    let how = match settled["txHash"].as_str() {
        Some(transaction) => format!("paid by transaction {transaction}"),
        None => "ledger rail: credit, not USDC".to_owned(),
    };
    step.done(format!(
        "{total} USDC: provider {} (90 %), platform {} (7 %), reserve {} (3 %); {how}",
        split.provider, split.platform, split.reserve
    ));
    Ok(settled)
}

/// Looks at the chain itself: whether the transaction is in a final block, and who has how much now.
async fn on_chain(step: &Steps, chain: &DevChain, payee: &Address, settled: &Value) -> anyhow::Result<Value> {
    step.begin("looking at the chain");
    let transaction: TxHash = text(settled, "txHash")?.parse()?;
    let receipt = chain.chain().receipt(&transaction).await?.context("the chain does not know the transaction")?;
    let last = chain.chain().final_block().await?;
    ensure!(receipt.success && receipt.block <= last.number, "the payout in block {} is not final at block {}", receipt.block, last.number);
    let amount = |name: &str| -> anyhow::Result<Usdc> { Ok(text(settled, name)?.parse()?) };
    let paid = chain.chain().token_balance(payee, &last).await?;
    ensure!(paid == amount("providerPayout")?, "the provider has {paid} USDC on chain: {settled}");
    let fees = chain.chain().fees(&last).await?;
    ensure!((fees.platform, fees.reserve) == (amount("platformFee")?, amount("reserve")?), "the escrow owes {fees:?} in fees: {settled}");
    let left = chain.chain().account(&chain.account(), &last).await?.balance;
    ensure!(left.plus(amount("totalCost")?)? == CREDIT, "{left} USDC are left in the escrow: {settled}");
    step.done(format!("block {} is final: {payee} has {paid} USDC, the escrow {left} of {CREDIT} and the fees", receipt.block));
    Ok(json!({
        "transaction": transaction.to_string(), "block": receipt.block, "finalBlock": last.number, "gasUsed": receipt.gas_used,
        "payee": payee.to_string(), "paid": paid.to_string(), "left": left.to_string(),
    }))
}

fn audit(step: &Steps, settlement: &Client) -> anyhow::Result<Value> {
    step.begin("auditing the batch from its evidence");
    let batches = settlement.get("/api/batches")?;
    let Some(id) = batches["batches"][0]["id"].as_str() else { bail!("there is no batch: {batches}") };
    let file = settlement.text(&format!("/api/batches/{id}"))?;
    let report = orien_settlement::audit::audit(file.as_bytes(), None)?;
    ensure!(report.clean(), "the audit found: {:?}", report.findings);
    step.done(format!("{id}: clean, root {}...", &report.merkle_root[..16]));
    Ok(serde_json::to_value(report)?)
}

fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("there is no `{name}` in {value}"))
}

fn wait_for<T>(what: &str, look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    wait_so_long(PATIENCE, what, look)
}

fn wait_so_long<T>(patience: Duration, what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begun.elapsed() < patience, "{what} did not come within {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Progress on standard error: a moving line on a terminal, plain lines elsewhere.
struct Steps(ProgressBar);

impl Steps {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    fn begin(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.say(format!("- {what}"));
    }

    fn say(&self, line: impl std::fmt::Display) {
        self.0.suspend(|| output::note(line));
    }

    fn done(&self, what: impl std::fmt::Display) {
        self.say(format!("  {what}"));
    }
}
