//! A process of the storm from outside: started, watched, killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use orien_bootstrap::door::DoorFile;
use orien_chain::{RpcUrl, Wei};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::child::{AIM, AT, FEE_CAP, FOLDER, GRACE, RPC, STEP};
use super::place::{Leg, Place, Spot};
use crate::door::try_http;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// All of settlement, whose door is asked where it is. It is killed by us.
    WholeRole,
    /// The driver alone: it says where it is, and kills itself there.
    Driver(Place, u64),
}

/// What was seen of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) spot: Spot,
    /// Whether it has said anything.
    pub(super) speaks: bool,
    /// Looks at the chain that it has finished.
    pub(super) steps: u64,
}

pub(super) struct Process {
    child: Child,
    folder: PathBuf,
    kind: Kind,
    seen: Arc<Mutex<Seen>>,
    /// When the whole role last looked at the chain.
    seen_at: Value,
    reader: JoinHandle<()>,
}

impl Process {
    pub(super) fn start(kind: Kind, folder: PathBuf, rpc: &RpcUrl, fee_cap: Option<Wei>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "onchain::storm::a_process_of_the_storm", "--ignored", "--nocapture"])
            .env(FOLDER, &folder)
            .env(RPC, rpc.as_str())
            .env_remove(AIM)
            .env_remove(FEE_CAP)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Kind::Driver(aim, grace) = kind {
            command.env(AIM, aim.name()).env(GRACE, grace.to_string());
        }
        if let Some(cap) = fee_cap {
            command.env(FEE_CAP, cap.0.to_string());
        }
        let mut child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = tokio::spawn(listen(child.stdout.take().unwrap(), Arc::clone(&seen)));
        Self { child, folder, kind, seen, seen_at: Value::Null, reader }
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    pub(super) const fn kills_itself(&self) -> bool {
        matches!(self.kind, Kind::Driver(..))
    }

    pub(super) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Asks the whole role where it is; the driver says so by itself.
    pub(super) async fn look(&mut self) {
        if self.kills_itself() {
            return;
        }
        // It may not be there yet.
        let Some((status, newest)) = self.ask().await else { return };
        let mut seen = self.seen.lock().unwrap();
        let ended = || Some(newest["transactions"][0]["state"].as_str()?.to_owned());
        seen.spot = seen.spot.moved(leg_of(&status["transaction"]).as_ref(), ended);
        seen.speaks = !status["seenAt"].is_null();
        if status["seenAt"] != self.seen_at {
            self.seen_at = status["seenAt"].clone();
            seen.steps += 1;
        }
    }

    /// What the door says of the chain, and of the newest transaction.
    async fn ask(&self) -> Option<(Value, Value)> {
        // The file of an earlier process leads nowhere.
        let door = DoorFile::read(&self.folder).ok().filter(|door| Some(door.pid) == self.child.id())?;
        let status = try_http(&door, "GET /api/chain", None, "").await?.1;
        let newest = try_http(&door, "GET /api/transactions?limit=1", None, "").await?.1;
        Some((serde_json::from_str(&status).ok()?, serde_json::from_str(&newest).ok()?))
    }

    /// Kills it if it lives, and gives what was seen of it last. One that ended in another way is a failure.
    pub(super) async fn end(mut self) -> Spot {
        // It may die by its own hand meanwhile.
        drop(self.child.start_kill());
        let status = self.child.wait().await.unwrap();
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        assert!(killed, "a process of the storm ended by itself: {status}");
        self.reader.await.unwrap();
        self.seen.lock().unwrap().spot
    }
}

fn leg_of(line: &Value) -> Option<Leg<'_>> {
    let attempts = line["attempts"].as_array()?;
    let is_empty = attempts.last().is_some_and(|attempt| attempt["carriesNothing"] == true);
    Some(Leg { nonce: line["nonce"].as_u64()?, stage: line["state"].as_str()?, attempts: attempts.len(), is_empty })
}

/// Takes note of what a driver says, until it is dead.
async fn listen(out: ChildStdout, seen: Arc<Mutex<Seen>>) {
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut seen = seen.lock().unwrap();
        seen.speaks |= line.starts_with("storm ");
        if line == STEP {
            seen.steps += 1;
        } else if let Some((nonce, place)) = line.strip_prefix(AT).and_then(|rest| rest.split_once(' ')) {
            seen.spot = Spot::said(Place::named(place).unwrap(), nonce.parse().ok());
        }
    }
}
