//! `orien audit`: recomputes a settlement batch from its published evidence alone. Works offline and needs no data directory.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use orien_bootstrap::Network;
use orien_settlement::audit::{FILE_BYTES_MAX, audit};
use orien_settlement::house::NetworkFacts;

use crate::cli::AuditArgs;
use crate::output;

pub(crate) fn run(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    if args.file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(&args.file).with_context(|| format!("cannot read {name}"))?;
        file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    }
    let expected = args.network.as_deref().map(|path| Network::load(path).map(|network| facts(&network))).transpose()?;
    let report = audit(&bytes, expected.as_ref())?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(format!("batch     {} of network {}", report.batch, report.network));
        output::line(format!("entries   {}, each recomputed with every signature", report.entries));
        output::line(format!("total     {} USDC", report.total_cost));
        output::line(format!("provider  {} USDC", report.provider_payout));
        output::line(format!("platform  {} USDC", report.platform_fee));
        output::line(format!("reserve   {} USDC", report.reserve));
        output::line(format!("root      {}", report.merkle_root));
        for finding in &report.findings {
            let entry = finding.entry.map(|entry| format!("entry {entry}, ")).unwrap_or_default();
            output::line(format!("WRONG     {entry}{}: {}", finding.about, finding.text));
        }
        if !report.network_compared {
            output::note("the settlement keys were taken from the file itself; pass --network to compare them with your own");
        }
        output::line(if report.clean() { "clean: the evidence gives exactly these sums" } else { "NOT clean" });
    }
    Ok(if report.clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn facts(network: &Network) -> NetworkFacts {
    let settlement = network.settlement();
    NetworkFacts { network: network.id().clone(), domain: network.domain(), signer: settlement.signer, peer: settlement.peer }
}
