//! A whole network of processes, each with its own data directory, started as four operators would.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{Door, Role, micros, run_json, wait_for};

/// Tools that the tests use, beside the example ones.
const TOOLS: &str = r#"{
  "providerId": "test_bench", "name": "Test bench", "pricePerMinute": 0.6, "meteringIntervalSeconds": 1,
  "capacity": { "sessions": 8, "runsPerSession": 4 },
  "workspace": { "maxBytes": "64MB", "storage": "disk" },
  "tools": [
    { "id": "wait", "command": "sleep {seconds}", "maxDuration": 120, "resourceLimits": { "cpu": "1", "memory": "256MB" },
      "args": [{ "name": "seconds", "type": "integer", "required": true, "min": 0, "max": 100 }] },
    { "id": "count_words", "command": "wc {input_file}", "workspaceRequired": true, "resourceLimits": { "cpu": "1", "memory": "256MB" }, "args": ["input_file"] },
    { "id": "sort", "command": "sort", "resourceLimits": { "cpu": "1", "memory": "256MB" } },
    { "id": "upper", "command": "tr a-z A-Z", "maxDuration": 120, "maxOutputBytes": "32MB", "resourceLimits": { "cpu": "1", "memory": "256MB" } },
    { "id": "first", "command": "head -c 5", "resourceLimits": { "cpu": "1", "memory": "256MB" } },
    { "id": "say", "command": "echo {words}", "resourceLimits": { "cpu": "1", "memory": "256MB" }, "args": [{ "name": "words", "type": "text", "required": true }] },
    { "id": "show_file", "command": "cat {input_file}", "workspaceRequired": true, "resourceLimits": { "cpu": "1", "memory": "256MB" }, "args": ["input_file"] },
    { "id": "copy_file", "command": "cp {input_file} {output_path}", "workspaceRequired": true, "resourceLimits": { "cpu": "1", "memory": "256MB" }, "args": ["input_file", "output_path"] },
    { "id": "find_words", "command": "grep -F {words} {input_file}", "workspaceRequired": true, "resourceLimits": { "cpu": "1", "memory": "256MB" },
      "args": [{ "name": "words", "type": "text", "required": true }, "input_file"] },
    { "id": "count_slowly", "command": "python3 -u -c 'import sys, time; [(print(i), time.sleep(0.02)) for i in range(int(sys.argv[1]))]' {lines}",
      "resourceLimits": { "cpu": "1", "memory": "256MB" }, "args": [{ "name": "lines", "type": "integer", "required": true, "min": 0, "max": 10000 }] }
  ]
}"#;

pub(crate) struct Cast {
    pub(crate) root: TempDir,
    pub(crate) network: PathBuf,
    pub(crate) bootstrap_address: String,
    pub(crate) bootstrap: Role,
    pub(crate) settlement: Role,
    pub(crate) nodes: Vec<Role>,
    pub(crate) gateways: Vec<Role>,
}

impl Cast {
    /// Bootstrap and settlement run; nodes and gateways are added.
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let made = run_json(&["init", "settlement", "--name", "test", "--json", "--data-dir", at("settlement").to_str().unwrap()]);
        let network = PathBuf::from(made["networkFile"].as_str().unwrap());
        let file = network.to_str().unwrap();
        let bootstrap = Role::start("bootstrap", &at("bootstrap"), &["--network", file]);
        let health = bootstrap.door().get("/health").ok();
        let bootstrap_address = health["addresses"][0].as_str().unwrap().to_owned();
        let settlement = Role::start("settlement", &at("settlement"), &["--bootstrap", &bootstrap_address, "--batch-seconds", "1"]);
        Self { network, bootstrap_address, bootstrap, settlement, nodes: Vec::new(), gateways: Vec::new(), root }
    }

    /// One of each, with credit for the gateway's account.
    pub(crate) fn small() -> Self {
        let mut cast = Self::start();
        cast.add_node();
        cast.add_gateway("10");
        cast
    }

    pub(crate) fn add_node(&mut self) -> &Role {
        self.add_node_with("", "")
    }

    /// A node that has `new` in its configuration where the others have `old`.
    pub(crate) fn add_node_with(&mut self, old: &str, new: &str) -> &Role {
        let name = format!("node{}", self.nodes.len());
        let tools = self.root.path().join(format!("{name}.json"));
        assert!(TOOLS.contains(old), "{old}");
        let config = if old.is_empty() { TOOLS.to_owned() } else { TOOLS.replace(old, new) };
        std::fs::write(&tools, config.replace("test_bench", &format!("test_bench_{}", self.nodes.len()))).unwrap();
        let role = self.role("node", &name, &["--tools", tools.to_str().unwrap()]);
        self.nodes.push(role);
        self.nodes.last().unwrap()
    }

    pub(crate) fn add_gateway(&mut self, credit: &str) -> &Role {
        self.add_gateway_at(credit, 0)
    }

    /// A gateway whose door is found at the same port after a restart.
    pub(crate) fn add_gateway_at(&mut self, credit: &str, door: u16) -> &Role {
        self.add_gateway_with(credit, door, &[])
    }

    /// A gateway that is told more.
    pub(crate) fn add_gateway_with(&mut self, credit: &str, door: u16, more: &[&str]) -> &Role {
        let name = format!("gateway{}", self.gateways.len());
        let role = self.role_at("gateway", &name, door, more);
        let account =
            run_json(&["keys", "--json", "--data-dir", role.folder.to_str().unwrap()])["moneyAddress"].as_str().unwrap().to_owned();
        let settlement = self.settlement.folder.to_str().unwrap();
        if credit != "0" {
            run_json(&["settlement", "grant", &account, credit, "--json", "--data-dir", settlement]);
        }
        self.gateways.push(role);
        self.gateways.last().unwrap()
    }

    fn role(&self, role: &'static str, name: &str, more: &[&str]) -> Role {
        self.role_at(role, name, 0, more)
    }

    fn role_at(&self, role: &'static str, name: &str, door: u16, more: &[&str]) -> Role {
        let mut words = vec!["--network", self.network.to_str().unwrap(), "--bootstrap", &self.bootstrap_address];
        words.extend(more);
        Role::start_at(role, &self.root.path().join(name), [door, 0], &words)
    }

    pub(crate) fn gateway(&self) -> Door {
        self.gateways[0].door()
    }

    /// Every provider that a gateway knows.
    pub(crate) fn providers(door: &Door) -> Vec<Value> {
        door.get("/api/providers").ok()["providers"].as_array().unwrap().clone()
    }

    /// Opens a session with whoever takes it.
    pub(crate) fn open(&self, budget: &str) -> String {
        let door = self.gateway();
        wait_for("a provider", || (!Self::providers(&door).is_empty()).then_some(()));
        let order = json!({ "providerId": "auto", "budgetAllowance": budget, "tools": ["wait"], "failover": false });
        door.post("/api/sessions", &order).ok()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn start_run(&self, session: &str, tool: &str, args: Value) -> String {
        let run = self.gateway().post("/tools/run", &json!({ "sessionId": session, "toolId": tool, "args": args })).ok();
        run["executionId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn execution(&self, id: &str) -> Value {
        self.gateway().get(&format!("/executions/{id}")).ok()
    }

    /// Waits until an execution has ended.
    pub(crate) fn ended(&self, id: &str) -> Value {
        wait_for("the end of an execution", || {
            let state = self.execution(id);
            (state["status"] == "completed" || state["status"] == "failed").then_some(state)
        })
    }

    pub(crate) fn end(&self, session: &str) -> Value {
        self.gateway().post(&format!("/api/sessions/{session}/end"), &json!({})).ok()
    }

    pub(crate) fn ledger(&self) -> Value {
        self.settlement.door().get("/api/ledger").ok()
    }

    /// Waits until a session is settled and checks every sum of the ledger: nothing lost, nothing made.
    pub(crate) fn settled(&self, session: &str) -> Value {
        let door = self.settlement.door();
        let settled = wait_for("the settlement", || {
            let all = door.get("/api/settlements").ok();
            let mine = all["settlements"].as_array().unwrap().iter().find(|settled| settled["sessionId"] == session).cloned();
            mine.filter(|_| self.ledger()["liveChannels"] == 0)
        });
        let part = |name: &str| micros(&settled[name]);
        assert_eq!(part("providerPayout") + part("platformFee") + part("reserve"), part("totalCost"), "{settled}");
        let ledger = self.ledger();
        assert_eq!(ledger["balanced"], true, "{ledger}");
        let sums: u64 =
            ["available", "reserved", "earned", "platform", "reserve", "settled"].iter().map(|name| micros(&ledger[*name])).sum();
        assert_eq!(sums, micros(&ledger["granted"]), "{ledger}");
        assert_eq!(micros(&ledger["reserved"]), 0, "{ledger}");
        settled
    }
}
