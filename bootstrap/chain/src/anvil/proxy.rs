//! A node that cannot be relied on: a proxy before a real one that delays, breaks off, refuses, garbles and lies as it is told.
//!
//! Always true: without orders it passes everything on unchanged; a fault that comes "after" is one where the real node has done what was asked and nobody hears of
//! it. It does not know who asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::AnvilError;
use super::rewrite::Lies;
use crate::facts::RpcUrl;
use crate::types::{EscrowAccount, EscrowChannel};

/// Connections at once.
const CONNECTIONS: usize = 64;

/// Longest line of a request's head.
const LINE_LIMIT: u64 = 16 * 1024;

/// Largest body of a request.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// A way to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers late.
    Delay(Duration),
    /// Breaks off before the real node hears of it.
    Drop,
    /// Breaks off after the real node has done it.
    DropAfter,
    /// Does it twice, and answers what came the second time.
    Twice,
    /// An HTTP status, perhaps with a wish for patience in seconds.
    Status(u16, Option<u64>),
    /// A JSON-RPC error.
    Error(i64, String),
    /// Half of the answer.
    Truncate,
    /// So many bytes of answer.
    Oversize(usize),
    /// Not JSON.
    Garbage,
    /// Whatever it is, null.
    Null,
    /// Answers, and before that is heard so many of anvil's last blocks are others.
    Reorganise(u64),
}

/// Faults that pass by themselves, for storms.
const PASSING: &[Fault] = &[
    Fault::Delay(Duration::from_millis(40)),
    Fault::Drop,
    Fault::DropAfter,
    Fault::Twice,
    Fault::Status(429, None),
    Fault::Status(503, None),
    Fault::Truncate,
    Fault::Garbage,
];

#[derive(Debug)]
struct Order {
    method: Option<String>,
    fault: Fault,
    left: u64,
}

/// What a storm is made of.
#[derive(Debug)]
struct Storm {
    state: u64,
    per_mille: u64,
}

#[derive(Debug, Default)]
struct Orders {
    queue: Vec<Order>,
    storm: Option<Storm>,
    lies: Lies,
    counts: BTreeMap<String, u64>,
    faults: u64,
}

/// The proxy. It ends with its value.
#[derive(Debug)]
pub struct FaultyRpc {
    rpc: RpcUrl,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: RpcUrl,
    client: Client,
    orders: Mutex<Orders>,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultyRpc {
    /// A proxy before a node.
    pub async fn start(upstream: &RpcUrl) -> Result<Self, AnvilError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let rpc = format!("http://{}", listener.local_addr()?).parse()?;
        let client = Client::builder().no_proxy().build().map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared { upstream: upstream.clone(), client, orders: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { rpc, shared, _tasks: tasks })
    }

    /// Where it is spoken to.
    pub const fn rpc(&self) -> &RpcUrl {
        &self.rpc
    }

    /// Lets the next requests for a method fail, or of all methods.
    pub fn fail_next(&self, method: Option<&str>, fault: Fault, times: u64) {
        self.shared.orders().queue.push(Order { method: method.map(str::to_owned), fault, left: times });
    }

    /// Lets so many of a thousand requests fail in one way or another, decided by a seed.
    pub fn storm(&self, seed: u64, per_mille: u64) {
        self.shared.orders().storm = Some(Storm { state: seed | 1, per_mille });
    }

    /// Ends storm, orders and lies.
    pub fn calm(&self) {
        let mut orders = self.shared.orders();
        (orders.queue, orders.storm, orders.lies) = (Vec::new(), None, Lies::default());
    }

    /// As if the node had seen no block after this one.
    pub fn stand_still(&self, at: Option<u64>) {
        self.shared.orders().lies.head = at;
    }

    /// Says that this block is the final one, whatever is true.
    pub fn claim_final(&self, block: Option<u64>) {
        self.shared.orders().lies.finalized = block;
    }

    /// Says that others tip so much per gas, in wei.
    pub fn claim_tip(&self, tip: Option<u64>) {
        self.shared.orders().lies.tip = tip;
    }

    /// Says another hash for this block.
    pub fn claim_other_hash(&self, block: Option<u64>) {
        self.shared.orders().lies.other_hash = block;
    }

    /// Leaves the last log out of every answer, and the last receipt out of a block's.
    pub fn hide_logs(&self, on: bool) {
        self.shared.orders().lies.hide_logs = on;
    }

    /// Answers with an error, as public nodes do, where there are more logs than this.
    pub fn limit_logs(&self, most: Option<usize>) {
        self.shared.orders().lies.log_limit = most;
    }

    /// Says of the receipts of this block that they are of another.
    pub fn move_receipts(&self, block: Option<u64>) {
        self.shared.orders().lies.moved = block;
    }

    /// Says this of every account of the escrow, whatever is true.
    pub fn claim_account(&self, held: Option<EscrowAccount>) {
        self.shared.orders().lies.account = held;
    }

    /// Says this of every channel of the escrow, whatever is true.
    pub fn claim_channel(&self, known: Option<EscrowChannel>) {
        self.shared.orders().lies.channel = known;
    }

    /// How often a method was asked for.
    pub fn requests(&self, method: &str) -> u64 {
        self.shared.orders().counts.get(method).copied().unwrap_or_default()
    }

    /// How many requests failed on purpose.
    pub fn faults(&self) -> u64 {
        self.shared.orders().faults
    }
}

impl Orders {
    /// What is to happen to a request.
    fn next(&mut self, method: &str) -> Option<Fault> {
        *self.counts.entry(method.to_owned()).or_default() += 1;
        let place = self.queue.iter().position(|order| order.method.as_deref().is_none_or(|wanted| wanted == method));
        let fault = match place {
            Some(place) => {
                let order = &mut self.queue[place];
                let fault = order.fault.clone();
                order.left = order.left.saturating_sub(1);
                if order.left == 0 {
                    self.queue.remove(place);
                }
                Some(fault)
            }
            None => self.storm.as_mut().and_then(Storm::next),
        };
        self.faults += u64::from(fault.is_some());
        fault
    }
}

impl Storm {
    fn next(&mut self) -> Option<Fault> {
        // Xorshift: the same seed is the same storm.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let kinds = PASSING.len() as u64;
        let kind = usize::try_from(self.state / 1000 % kinds).unwrap_or_default();
        (self.state % 1000 < self.per_mille).then(|| PASSING[kind].clone())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _place = place;
            let _ = converse(stream, &shared).await;
        });
    }
}

/// One connection: request after request, until either side has enough.
async fn converse(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(body) = read_request(&mut stream).await? {
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let fault = shared.orders().next(&method);
        let forward = || forward(shared, request.clone());
        match fault {
            None => answer(&mut stream, 200, "", &forward().await).await?,
            Some(Fault::Delay(time)) => {
                sleep(time).await;
                answer(&mut stream, 200, "", &forward().await).await?;
            }
            Some(Fault::Drop) => return Ok(()),
            Some(Fault::DropAfter) => {
                forward().await;
                return Ok(());
            }
            Some(Fault::Twice) => {
                forward().await;
                answer(&mut stream, 200, "", &forward().await).await?;
            }
            Some(Fault::Status(status, patience)) => {
                let head = patience.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
                answer(&mut stream, status, &head, b"try again later").await?;
            }
            Some(Fault::Error(code, message)) => {
                let body = json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": message } });
                answer(&mut stream, 200, "", body.to_string().as_bytes()).await?;
            }
            Some(Fault::Truncate) => {
                let whole = forward().await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", whole.len());
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&whole[..whole.len() / 2]).await?;
                return stream.flush().await;
            }
            Some(Fault::Oversize(bytes)) => answer(&mut stream, 200, "", &vec![b' '; bytes]).await?,
            Some(Fault::Garbage) => answer(&mut stream, 200, "", b"<html>502 Bad Gateway</html>").await?,
            Some(Fault::Reorganise(depth)) => {
                let body = forward().await;
                self::forward(shared, json!({ "jsonrpc": "2.0", "id": 1, "method": "anvil_reorg", "params": [depth, []] })).await;
                answer(&mut stream, 200, "", &body).await?;
            }
            Some(Fault::Null) => {
                let body = json!({ "jsonrpc": "2.0", "id": request["id"], "result": null });
                answer(&mut stream, 200, "", body.to_string().as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// The body of the next request; nothing when there is none.
async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    let mut first = true;
    loop {
        let mut line = String::new();
        if (&mut *stream).take(LINE_LIMIT).read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() && !first {
            break;
        }
        first = false;
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    if length > BODY_LIMIT {
        return Ok(None);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}

async fn answer(stream: &mut BufReader<TcpStream>, status: u16, head: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{head}Content-Length: {}\r\n\r\n", body.len());
    // In one piece: the second of two waits until the first is acknowledged, which takes 40 ms.
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    stream.flush().await
}

/// What the real node answers, as it is to be seen.
async fn forward(shared: &Shared, request: Value) -> Vec<u8> {
    let lies = shared.orders().lies.clone();
    let asked = lies.question(request);
    let sent =
        shared.client.post(shared.upstream.url().clone()).header("content-type", "application/json").body(asked.to_string()).send().await;
    let body = match sent {
        Ok(answer) => answer.bytes().await.map(Vec::from),
        Err(error) => Err(error),
    };
    let Ok(body) = body else { return Vec::new() };
    if lies == Lies::default() {
        return body;
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    lies.answer(&asked, answer).to_string().into_bytes()
}
