//! The processes that a storm goes over, and the storm itself: who is killed when, and started again.
//!
//! Every role comes back at the ports it had. A process that ends without having been killed is a failure of its own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::chance::Chance;
use crate::kit::{Role, run_json};

/// Two providers, at different prices, one of which never comes out even; the call fee is charged once per run that began.
pub(crate) const TOOLS: &str = r#"{
  "providerId": "PROVIDER", "name": "Storm bench", "pricePerMinute": PRICE, "meteringIntervalSeconds": 1, "minimumCharge": MINIMUM,
  "capacity": { "sessions": 16, "runsPerSession": 4 },
  "tools": [
    { "id": "wait", "command": "sleep {seconds} {mark}", "maxDuration": 120, "resourceLimits": { "cpu": "1", "memory": "256MB" },
      "args": [{ "name": "seconds", "type": "integer", "required": true, "min": 0, "max": 100 }, { "name": "mark", "type": "text", "required": true }] },
    { "id": "count_words", "command": "wc {input_file}", "workspaceRequired": true, "callFee": 0.0007, "resourceLimits": { "cpu": "1", "memory": "256MB" },
      "args": ["input_file"] },
    { "id": "say", "command": "echo {words}", "callFee": 0.0011, "resourceLimits": { "cpu": "1", "memory": "256MB" },
      "args": [{ "name": "words", "type": "text", "required": true }] }
  ]
}"#;

/// Name, price of a minute and minimum of a session, in micro-USDC.
pub(crate) const PROVIDERS: [(&str, u64, u64); 2] = [("storm_even", 600_000, 10_000), ("storm_odd", 470_001, 7_834)];
/// What a run costs beside its time, in micro-USDC.
pub(crate) const FEES: [(&str, u64); 3] = [("wait", 0), ("count_words", 700), ("say", 1_100)];
/// What each agent was granted, in micro-USDC.
pub(crate) const GRANT: u64 = 5_000_000_000;
const GRANT_TEXT: &str = "5000";

/// How often a role is hit, by its place in [`Field::roles`].
const TARGETS: [usize; 12] = [BOOTSTRAP, SETTLEMENT, SETTLEMENT, SETTLEMENT, 2, 2, 3, 3, 4, 4, 5, 5];
pub(crate) const BOOTSTRAP: usize = 0;
pub(crate) const SETTLEMENT: usize = 1;

/// All processes: bootstrap, settlement, two nodes, two gateways.
pub(crate) struct Field {
    pub(crate) root: TempDir,
    pub(crate) roles: Vec<Role>,
    pub(crate) kills: BTreeMap<String, usize>,
    log: Vec<String>,
    begun: Instant,
}

impl Field {
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let made = run_json(&["init", "settlement", "--name", "storm", "--json", "--data-dir", text(&at("settlement"))]);
        let network = PathBuf::from(made["networkFile"].as_str().unwrap());
        let mut ports = Ports::default();
        let bootstrap = Role::start_at("bootstrap", &at("bootstrap"), ports.pair(), &["--network", text(&network)]);
        let address = bootstrap.door().get("/health").ok()["addresses"][0].as_str().unwrap().to_owned();
        let words = ["--bootstrap", address.as_str(), "--batch-seconds", "1"];
        let mut roles = vec![bootstrap, Role::start_at("settlement", &at("settlement"), ports.pair(), &words)];
        let words = ["--network", text(&network), "--bootstrap", address.as_str()];
        for (number, (name, price, minimum)) in PROVIDERS.iter().enumerate() {
            let tools = at(&format!("node{number}.json"));
            let filled = TOOLS.replace("PROVIDER", name).replace("PRICE", &usdc(*price)).replace("MINIMUM", &usdc(*minimum));
            std::fs::write(&tools, filled).unwrap();
            let words = [&words[..], &["--tools", text(&tools)]].concat();
            roles.push(Role::start_at("node", &at(&format!("node{number}")), ports.pair(), &words));
        }
        for number in 0..2 {
            let role = Role::start_at("gateway", &at(&format!("gateway{number}")), ports.pair(), &words);
            let account = account(&role);
            run_json(&["settlement", "grant", &account, GRANT_TEXT, "--json", "--data-dir", text(&at("settlement"))]);
            roles.push(role);
        }
        Self { root, roles, kills: BTreeMap::new(), log: Vec::new(), begun: Instant::now() }
    }

    pub(crate) fn settlement(&self) -> &Role {
        &self.roles[SETTLEMENT]
    }

    pub(crate) fn nodes(&self) -> &[Role] {
        &self.roles[2..4]
    }

    pub(crate) fn gateways(&self) -> &[Role] {
        &self.roles[4..6]
    }

    /// Squalls of kills, and between them time for work to get somewhere. Nobody is waited for: a role is also hit while it starts.
    pub(crate) fn storm(&mut self, chance: &mut Chance, kills: usize, stop: &AtomicBool) {
        while self.killed() < kills && !stop.load(Ordering::Relaxed) {
            for _ in 0..chance.between(5, 12) {
                chance.pause(400);
                self.check_running();
                let mut hit = vec![chance.pick(&TARGETS)];
                if chance.one_in(5) {
                    hit.push(chance.pick(&TARGETS));
                    hit.dedup();
                }
                hit.iter().for_each(|&role| self.kill(role, "killed"));
                let longest_down = if chance.one_in(4) { 1_500 } else { 100 };
                chance.pause(longest_down);
                hit.iter().for_each(|&role| self.roles[role].begin());
                if chance.one_in(5) {
                    chance.pause(150);
                    self.kill(hit[0], "killed while starting");
                    self.roles[hit[0]].begin();
                }
            }
            std::thread::sleep(Duration::from_millis(chance.between(1_500, 4_000)));
        }
    }

    pub(crate) fn killed(&self) -> usize {
        self.kills.values().sum()
    }

    fn kill(&mut self, role: usize, how: &str) {
        let name = folder_name(&self.roles[role]);
        self.check_alive(role);
        self.roles[role].kill();
        self.note(&format!("{name} {how}"));
        *self.kills.entry(name).or_default() += 1;
    }

    fn check_running(&mut self) {
        (0..self.roles.len()).for_each(|role| self.check_alive(role));
    }

    fn check_alive(&mut self, role: usize) {
        if let Some(status) = self.roles[role].ended() {
            let name = folder_name(&self.roles[role]);
            self.note(&format!("{name} ended by itself"));
            panic!("{name} ended by itself with {status}");
        }
    }

    /// Every door is open again.
    pub(crate) fn wait_until_open(&mut self) {
        self.roles.iter_mut().for_each(Role::wait_until_open);
        self.note("everything is up");
    }

    /// Stops every role as an operator would, agents first, and starts it again on what it left.
    pub(crate) fn reopen(&mut self) {
        for role in self.roles.iter_mut().rev() {
            let status = role.stop();
            assert!(status.success(), "{} stopped with {status}", folder_name(role));
        }
        self.note("everything stopped in order");
        self.roles.iter_mut().for_each(Role::restart);
        self.note("everything was opened again");
    }

    /// A panic is a bug also where a restart makes up for it.
    pub(crate) fn check_logs(&self) {
        for role in &self.roles {
            let log = std::fs::read_to_string(role.folder.with_extension("log")).unwrap();
            let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
            assert!(panics.is_empty(), "{}: {panics:?}", folder_name(role));
        }
    }

    pub(crate) fn note(&mut self, what: &str) {
        self.log.push(format!("{:8.3} s  {what}", self.begun.elapsed().as_secs_f64()));
    }

    /// What happened, for whoever has to find out why: every kill, and how each role's log ends.
    pub(crate) fn account(&self) -> String {
        const TAIL: usize = 60;
        let mut text = format!("kills:\n{}\n", self.log.join("\n"));
        for role in &self.roles {
            let log = std::fs::read_to_string(role.folder.with_extension("log")).unwrap_or_default();
            // What the test itself looked at says nothing.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("request method=GET")).collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            text += &format!("\n--- {} ({} lines of log)\n{}\n", folder_name(role), lines.len(), tail.join("\n"));
        }
        text
    }
}

pub(crate) fn folder_name(role: &Role) -> String {
    role.folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// The address of the account that a gateway pays from.
pub(crate) fn account(gateway: &Role) -> String {
    run_json(&["keys", "--json", "--data-dir", text(&gateway.folder)])["moneyAddress"].as_str().unwrap().to_owned()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn usdc(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// Ports that nobody listens at and that the system gives to nobody by itself, so that a role finds its own again.
#[derive(Default)]
struct Ports {
    tried: u16,
}

impl Ports {
    fn pair(&mut self) -> [u16; 2] {
        [self.free(), self.free()]
    }

    fn free(&mut self) -> u16 {
        let first = u16::try_from(std::process::id() % 10_000).unwrap();
        loop {
            let port = 20_000 + (first + self.tried) % 10_000;
            self.tried += 1;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    }
}
