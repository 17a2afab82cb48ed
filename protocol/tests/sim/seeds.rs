//! Many seeds, on all cores, with the worst losses found beside their bounds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use orien_protocol::sim::{Adversary, Counts, Losses, Report, Scenario, Stage, run};

/// Worlds of an ordinary test run.
const SEEDS: u64 = 300;
/// Lines of the story that are shown of a world that broke a rule.
const STORY: usize = 120;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The world of a scenario with the plain settlement.
pub(crate) fn world(scenario: &Scenario, traced: bool) -> Report {
    let stage = Stage::new().unwrap();
    run(scenario, &stage, &mut stage.plain_house().unwrap(), traced)
}

/// Fails with the story of a world that broke a rule.
#[track_caller]
pub(crate) fn expect_clean(scenario: &Scenario) -> Report {
    let report = world(scenario, false);
    if !report.breaches.is_empty() {
        let told = world(scenario, true);
        let from = told.trace.len().saturating_sub(STORY);
        panic!(
            "{scenario:#?}\n{}\n\nseed {} broke a rule (run it alone with ORIEN_SEED={}):\n{}",
            told.trace[from..].join("\n"),
            scenario.seed,
            scenario.seed,
            report.breaches.join("\n")
        );
    }
    report
}

#[derive(Default)]
struct Tally {
    counts: Counts,
    losses: BTreeMap<Option<Adversary>, (u64, Losses, Losses)>,
}

impl Tally {
    fn add(&mut self, scenario: &Scenario, report: &Report) {
        let (sum, one) = (&mut self.counts, report.counts);
        for (sum, one) in [
            (&mut sum.events, one.events),
            (&mut sum.sessions, one.sessions),
            (&mut sum.runs, one.runs),
            (&mut sum.crashes, one.crashes),
            (&mut sum.cuts, one.cuts),
            (&mut sum.claims, one.claims),
            (&mut sum.payments, one.payments),
        ] {
            *sum += one;
        }
        let losses = report.losses;
        let (worlds, agent, provider) = self.losses.entry(scenario.adversary).or_default();
        *worlds += 1;
        // The worst is the one that comes nearest to its bound.
        if losses.agent * agent.agent_bound.max(1) >= agent.agent * losses.agent_bound.max(1) {
            *agent = losses;
        }
        if losses.provider * provider.provider_bound.max(1) >= provider.provider * losses.provider_bound.max(1) {
            *provider = losses;
        }
        agent.settlement = agent.settlement.max(losses.settlement);
    }

    fn print(&self) {
        println!("{:?}", self.counts);
        println!("worst losses in micro-USDC, of the world that came nearest to its bound:");
        println!("{:<20} {:>7} {:>25} {:>25} {:>11}", "who cheats", "worlds", "agent / budget", "provider / cap", "settlement");
        for (adversary, (worlds, agent, provider)) in &self.losses {
            let name = adversary.map_or("nobody".to_owned(), |adversary| format!("{adversary:?}"));
            let agents = format!("{} / {}", agent.agent, agent.agent_bound);
            let providers = format!("{} / {}", provider.provider, provider.provider_bound);
            println!("{name:<20} {worlds:>7} {agents:>25} {providers:>25} {:>11}", agent.settlement);
        }
    }
}

#[test]
fn every_world_keeps_every_rule() {
    if let Some(seed) = number("ORIEN_SEED") {
        let scenario = Scenario::of_seed(seed);
        println!("{scenario:#?}\n{}", world(&scenario, true).trace.join("\n"));
        expect_clean(&scenario);
        return;
    }
    let seeds = number("ORIEN_SEEDS").unwrap_or(SEEDS);
    let first = number("ORIEN_FIRST_SEED").unwrap_or(0);
    let (next, tally, begun) = (AtomicU64::new(first), Mutex::new(Tally::default()), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    let scenario = Scenario::of_seed(seed);
                    let report = expect_clean(&scenario);
                    assert!(report.counts.crashes > 0, "a world without a crash: {seed}");
                    tally.lock().unwrap().add(&scenario, &report);
                    if (seed - first) % 10_000 == 9_999 {
                        println!("{} worlds in {:.0} s", seed - first + 1, begun.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seeds} worlds in {seconds:.1} s: {:.0} a second", seeds as f64 / seconds);
    tally.lock().unwrap().print();
}
