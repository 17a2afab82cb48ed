//! Processes of the program, and a client for their doors.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for something that must happen; never a measure of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn orien() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orien"));
    for name in ["DATA_DIR", "NETWORK", "BOOTSTRAP", "GATEWAY", "TOKEN", "TOKEN_FILE", "BUDGET"] {
        command.env_remove(format!("ORIEN_{name}"));
    }
    command
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    orien().args(arguments).output().unwrap()
}

/// Runs a command that must succeed and reads its JSON.
pub(crate) fn run_json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Looks again and again until something is there.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One running role.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) folder: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Role {
    /// Starts a role in its folder, on ports that happen to be free, and waits for its door.
    pub(crate) fn start(name: &'static str, folder: &Path, more: &[&str]) -> Self {
        Self::start_at(name, folder, [0, 0], more)
    }

    /// Starts a role that is found at the same ports after a restart: its door's, and the one for peers.
    pub(crate) fn start_at(name: &'static str, folder: &Path, [door, peers]: [u16; 2], more: &[&str]) -> Self {
        let data = folder.to_str().unwrap();
        let mut arguments: Vec<String> = [name, "--data-dir", data].map(str::to_owned).to_vec();
        arguments.extend(["--http".to_owned(), format!("127.0.0.1:{door}")]);
        arguments.extend(["--listen".to_owned(), format!("/ip4/127.0.0.1/tcp/{peers}")]);
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        let child = spawn(&arguments, folder);
        let mut role = Self { name, folder: folder.to_owned(), arguments, child };
        role.wait_until_open();
        role
    }

    /// Waits for its door; a process that ends instead is a failure.
    pub(crate) fn wait_until_open(&mut self) {
        let (pid, log) = (self.child.id(), self.folder.with_extension("log"));
        wait_for("an open door", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status}: {}", self.name, std::fs::read_to_string(&log).unwrap_or_default());
            }
            let door: Value = serde_json::from_slice(&std::fs::read(self.folder.join("door.json")).ok()?).ok()?;
            (door["pid"] == pid).then_some(())
        });
    }

    /// Kills the process as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with the same words.
    pub(crate) fn restart(&mut self) {
        self.begin();
        self.wait_until_open();
    }

    /// Starts it again with the same words and waits for nothing.
    pub(crate) fn begin(&mut self) {
        self.child = spawn(&self.arguments, &self.folder);
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks the process to stop, as an operator would.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }

    /// Lets the process do nothing until it is thawed or killed.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    pub(crate) fn door(&self) -> Door {
        Door::of(&self.folder)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.with_extension("log")).unwrap();
    orien().args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// A client for one door.
pub(crate) struct Door {
    pub(crate) base: String,
    pub(crate) token: String,
    agent: ureq::Agent,
}

/// An answer: status and JSON.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Said {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    /// The stable code of a refusal.
    #[track_caller]
    pub(crate) fn code(&self) -> &str {
        assert!(self.status >= 400, "{} {}", self.status, self.body);
        self.body["code"].as_str().unwrap()
    }
}

impl Door {
    pub(crate) fn of(folder: &Path) -> Self {
        let file: Value = serde_json::from_slice(&std::fs::read(folder.join("door.json")).unwrap()).unwrap();
        let token = std::fs::read_to_string(file["tokenFile"].as_str().unwrap()).unwrap();
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE * 2)).build();
        Self { base: format!("http://{}", file["address"].as_str().unwrap()), token: token.trim().to_owned(), agent: config.into() }
    }

    /// As [`Door::of`], while the files may be half there.
    pub(crate) fn try_of(folder: &Path) -> Option<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(folder.join("door.json")).ok()?).ok()?;
        let token = std::fs::read_to_string(file["tokenFile"].as_str()?).ok()?;
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Some(Self { base: format!("http://{}", file["address"].as_str()?), token: token.trim().to_owned(), agent })
    }

    /// Asks; no answer when the process dies meanwhile, or takes longer.
    pub(crate) fn try_get(&self, path: &str, longest: Duration) -> Option<Said> {
        let request = self.agent.get(format!("{}{path}", self.base)).header("Authorization", self.bearer());
        try_said(request.config().timeout_global(Some(longest)).build().call())
    }

    /// As [`Door::try_get`], for what acts.
    pub(crate) fn try_post(&self, path: &str, body: &Value, key: &str, longest: Duration) -> Option<Said> {
        let request = self.agent.post(format!("{}{path}", self.base)).header("Authorization", self.bearer());
        try_said(request.header("Idempotency-Key", key).config().timeout_global(Some(longest)).build().send_json(body))
    }

    /// As [`Door::try_get`], for a file.
    pub(crate) fn try_put(&self, path: &str, bytes: &[u8], longest: Duration) -> Option<Said> {
        let request = self.agent.put(format!("{}{path}", self.base)).header("Authorization", self.bearer());
        try_said(request.config().timeout_global(Some(longest)).build().send(bytes))
    }

    pub(crate) fn get(&self, path: &str) -> Said {
        said(self.agent.get(format!("{}{path}", self.base)).header("Authorization", self.bearer()).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Said {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.post_with_key(path, body, &format!("test-{}-{count}", std::process::id()))
    }

    pub(crate) fn post_with_key(&self, path: &str, body: &Value, key: &str) -> Said {
        let request = self.agent.post(format!("{}{path}", self.base)).header("Authorization", self.bearer());
        said(request.header("Idempotency-Key", key).send_json(body))
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> Said {
        said(self.agent.put(format!("{}{path}", self.base)).header("Authorization", self.bearer()).send(bytes))
    }

    /// Sends raw bytes.
    pub(crate) fn post_bytes(&self, path: &str, bytes: &[u8]) -> Said {
        said(self.agent.post(format!("{}{path}", self.base)).header("Authorization", self.bearer()).send(bytes))
    }

    pub(crate) fn download(&self, path: &str) -> (u16, Vec<u8>) {
        let response = self.agent.get(format!("{}{path}", self.base)).header("Authorization", self.bearer()).call().unwrap();
        let (status, mut bytes) = (response.status().as_u16(), Vec::new());
        response.into_body().into_reader().read_to_end(&mut bytes).unwrap();
        (status, bytes)
    }

    /// Bytes that are held of an upload that broke off.
    pub(crate) fn held(&self, path: &str) -> Option<u64> {
        let request = self.agent.head(format!("{}{path}?upload=true", self.base)).header("Authorization", self.bearer());
        request.call().unwrap().headers().get("upload-offset")?.to_str().ok()?.parse().ok()
    }

    /// Every log line of an execution, until it ends.
    pub(crate) fn log(&self, execution: &str) -> Vec<String> {
        let url = format!("{}/logs/{execution}", self.base);
        let response = self.agent.get(url).header("Authorization", self.bearer()).call().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.unwrap();
            if line == "event: end" {
                break;
            }
            if let Some(data) = line.strip_prefix("data:") {
                let data: Value = serde_json::from_str(data).unwrap();
                lines.extend(data["line"].as_str().map(str::to_owned));
            }
        }
        lines
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

fn said(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Said {
    let mut response = response.unwrap();
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap();
    Said { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

fn try_said(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Said> {
    let mut response = response.ok()?;
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().ok()?;
    Some(Said { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
}

/// An amount of USDC in JSON, as micro-USDC. A small one may come as a number with an exponent.
#[track_caller]
pub(crate) fn micros(amount: &Value) -> u64 {
    let text = amount.as_f64().map_or_else(|| amount.to_string(), |number| format!("{number:.6}"));
    text.trim_matches('"').parse::<orien_protocol::money::Usdc>().unwrap().micros()
}
