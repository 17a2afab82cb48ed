//! `orien audit`: recomputes a settlement batch or the evidence of a session from its file alone. Works offline and needs no data directory.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use orien_bootstrap::Network;
use orien_protocol::evidence;
use orien_protocol::evidence::audit::SessionReport;
use orien_settlement::audit::AuditReport;
use orien_settlement::house::NetworkFacts;
use serde::Deserialize;

use crate::cli::AuditArgs;
use crate::output;

/// Largest file that is read: the evidence of a session of a hundred thousand receipts.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What every file that can be audited says first.
#[derive(Deserialize)]
struct Kind {
    format: String,
}

pub(crate) fn run(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let bytes = read(args)?;
    let expected = args.network.as_deref().map(Network::load).transpose()?;
    let is_session = serde_json::from_slice::<Kind>(&bytes).is_ok_and(|kind| kind.format == evidence::FORMAT);
    let clean = if is_session {
        let bundle = serde_json::from_slice(&bytes).context("the file is not the evidence of a session")?;
        let report = evidence::audit::audit(&bundle, expected.as_ref().map(session_facts).as_ref());
        show(args, &report, session_lines)?;
        report.clean()
    } else {
        let report = orien_settlement::audit::audit(&bytes, expected.as_ref().map(batch_facts).as_ref())
            .context("this can neither be read as a batch nor as the evidence of a session")?;
        show(args, &report, batch_lines)?;
        report.clean()
    };
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(args: &AuditArgs) -> anyhow::Result<Vec<u8>> {
    let name = args.file.display();
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX.saturating_add(1);
    if args.file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(&args.file).with_context(|| format!("cannot read {name}"))?;
        file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    }
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "{name} has more than {FILE_BYTES_MAX} bytes");
    Ok(bytes)
}

fn show<R: serde::Serialize>(args: &AuditArgs, report: &R, lines: fn(&R) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if args.json { output::json(report) } else { lines(report) }
}

fn session_lines(report: &SessionReport) -> anyhow::Result<()> {
    output::line(format!("session   {} of network {}", report.session, report.network));
    output::line(format!("receipts  {}, each recomputed with every signature", report.receipts));
    output::line(format!("runs      {}, of which {} have ended", report.executions, report.ended));
    output::line(format!("charged   {} USDC of {}", report.charged, report.ceiling.as_deref().unwrap_or("nothing reserved")));
    sums(&report.total_cost, &report.provider_payout, &report.platform_fee, &report.reserve);
    output::line(match &report.closed_at {
        Some(total) => format!("closed    by the payee at {total} USDC"),
        None => "closed    not yet".to_owned(),
    });
    report.findings.iter().for_each(|finding| output::line(format!("WRONG     {}: {}", finding.about, finding.text)));
    report.notes.iter().for_each(output::note);
    verdict(report.network_compared, report.clean());
    Ok(())
}

fn batch_lines(report: &AuditReport) -> anyhow::Result<()> {
    output::line(format!("batch     {} of network {}", report.batch, report.network));
    output::line(format!("entries   {}, each recomputed with every signature", report.entries));
    sums(&report.total_cost, &report.provider_payout, &report.platform_fee, &report.reserve);
    output::line(format!("root      {}", report.merkle_root));
    for finding in &report.findings {
        let entry = finding.entry.map(|entry| format!("entry {entry}, ")).unwrap_or_default();
        output::line(format!("WRONG     {entry}{}: {}", finding.about, finding.text));
    }
    verdict(report.network_compared, report.clean());
    Ok(())
}

fn sums(total: &str, provider: &str, platform: &str, reserve: &str) {
    output::line(format!("total     {total} USDC"));
    output::line(format!("provider  {provider} USDC"));
    output::line(format!("platform  {platform} USDC"));
    output::line(format!("reserve   {reserve} USDC"));
}

fn verdict(network_compared: bool, clean: bool) {
    if !network_compared {
        output::note("the settlement keys were taken from the file itself; pass --network to compare them with your own");
    }
    output::line(if clean { "clean: the evidence gives exactly these sums" } else { "NOT clean" });
}

fn session_facts(network: &Network) -> evidence::Facts {
    evidence::Facts { network: network.id().clone(), domain: network.domain(), signer: network.settlement().signer }
}

fn batch_facts(network: &Network) -> NetworkFacts {
    let settlement = network.settlement();
    NetworkFacts { network: network.id().clone(), domain: network.domain(), signer: settlement.signer, peer: settlement.peer }
}
