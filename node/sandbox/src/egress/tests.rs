//! The way out against real sockets: hosts of this machine through grants that name their address, and a stated network for names.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

use super::*;

/// A network as a test states it; connections really go to `host`.
#[derive(Debug, Default)]
struct Stated {
    /// What the name server says, answer by answer; the last one stays.
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
    connected: Mutex<Vec<SocketAddr>>,
    /// Where a connection leads; nowhere and never without it.
    host: Option<SocketAddr>,
    own: Option<IpAddr>,
    /// Addresses that refuse.
    closed: Vec<IpAddr>,
    /// Addresses that never answer.
    silent: Vec<IpAddr>,
}

impl Outside for Arc<Stated> {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.connected.lock().unwrap().push(address);
        if self.closed.contains(&address.ip()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        match self.host {
            Some(host) if !self.silent.contains(&address.ip()) => TcpStream::connect(host).await,
            _ => std::future::pending().await,
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own == Some(address)
    }
}

const QUICK: Limits = Limits {
    connections: 2,
    place: Duration::from_secs(1),
    head: Duration::from_secs(1),
    resolve: Duration::from_secs(1),
    connect: Duration::from_secs(1),
    attempt: Duration::from_millis(100),
    idle: Duration::from_secs(20),
    answer: Duration::from_secs(2),
};

struct Served {
    at: SocketAddr,
    counters: Arc<EgressCounters>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

/// As the node serves it.
async fn serve_really(rules: &[&str]) -> Served {
    let (listener, at, grant) = prepare(rules).await;
    let (stop, counters) = (CancellationToken::new(), Arc::new(EgressCounters::default()));
    let served = tokio::spawn(serve(listener, grant, Arc::clone(&counters), stop.clone()));
    Served { at, counters, stop, served }
}

async fn prepare(rules: &[&str]) -> (TcpListener, SocketAddr, Arc<NetworkGrant>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at, Arc::new(NetworkGrant { hosts: rules.iter().map(|rule| rule.parse().unwrap()).collect() }))
}

async fn serve_stated<O: Outside>(rules: &[&str], outside: O, limits: Limits, bytes: u64) -> Served {
    let (listener, at, grant) = prepare(rules).await;
    let (stop, counters) = (CancellationToken::new(), Arc::new(EgressCounters::new(bytes)));
    let proxy = Proxy { grant, counters: Arc::clone(&counters), outside, limits };
    let served = tokio::spawn(serve_through(listener, proxy, stop.clone()));
    Served { at, counters, stop, served }
}

impl Served {
    async fn send(&self, request: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.at).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// The whole answer to a request that is refused.
    async fn answer(&self, request: &str) -> String {
        let mut client = self.send(request).await;
        let mut answer = String::new();
        within(client.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    async fn connect(&self, target: &str) -> String {
        self.answer(&format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await
    }

    /// An open tunnel.
    async fn tunnel(&self, target: &str) -> TcpStream {
        let mut client = self.send(&format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
        client
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(15), future).await.unwrap()
}

async fn head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(client.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A host that sends back what it gets until its caller has finished, and then says goodbye.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.write_all(b"bye").await;
            });
        }
    });
    at
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn stated(answers: &[&[&str]], host: Option<SocketAddr>) -> Stated {
    let answers = answers.iter().map(|answer| answer.iter().map(|text| ip(text)).collect()).collect();
    Stated { answers: Mutex::new(answers), host, ..Stated::default() }
}

#[tokio::test]
async fn a_granted_address_is_reached_and_bytes_go_both_ways_and_are_counted() {
    let host = echo().await;
    let served = serve_really(&[&host.to_string()]).await;
    // The first bytes come with the request, as some programs send them.
    let mut client = served.send(&format!("CONNECT {host} HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\nearly ")).await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
    let long = vec![b'x'; 300_000];
    let (mut reads, mut writes) = client.split();
    let mut echoed = Vec::new();
    let (_, sent) = tokio::join!(within(reads.read_to_end(&mut echoed)), async {
        writes.write_all(&long).await?;
        // The other way stays open after this one has ended.
        writes.shutdown().await
    });
    sent.unwrap();
    assert_eq!(echoed, [b"early ", &long[..], b"bye"].concat());
    let usage = EgressUsage { connections: 1, refused: 0, up_bytes: 300_006, down_bytes: 300_009 };
    assert_eq!(served.counters.usage(), usage);
}

#[tokio::test]
async fn what_no_rule_names_is_refused_without_being_looked_up_or_called() {
    let outside = Arc::new(stated(&[&["93.184.216.34"]], Some(echo().await)));
    let served = serve_stated(&["pypi.org:443", "*.example.org:443"], Arc::clone(&outside), QUICK, 1 << 30).await;
    for target in ["secret.evil.test:443", "pypi.org:80", "example.org:443", "127.0.0.1:443", "[::1]:443", "169.254.169.254:80"] {
        let answer = served.connect(target).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 403 {target} is not granted: ")), "{answer}");
    }
    assert!(outside.asked.lock().unwrap().is_empty() && outside.connected.lock().unwrap().is_empty());
    assert_eq!(served.counters.usage(), EgressUsage { refused: 6, ..EgressUsage::default() });
}

#[tokio::test]
async fn a_name_is_resolved_once_and_only_the_checked_address_is_called() {
    let host = echo().await;
    // The name server changes its mind after the check.
    let outside = Arc::new(stated(&[&["93.184.216.34"], &["127.0.0.1"]], Some(host)));
    let served = serve_stated(&["*.example.org:443"], Arc::clone(&outside), QUICK, 1 << 30).await;
    let mut client = served.tunnel("a.B.example.org.:443").await;
    client.shutdown().await.unwrap();
    let mut text = String::new();
    within(client.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "bye");
    assert_eq!(*outside.asked.lock().unwrap(), ["a.b.example.org"]);
    assert_eq!(*outside.connected.lock().unwrap(), ["93.184.216.34:443".parse().unwrap()]);
    // A second request gets the second answer, and is refused.
    assert!(served.connect("a.b.example.org:443").await.starts_with("HTTP/1.1 403 "));
    assert_eq!(outside.connected.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_never_leads_into_a_private_network_nor_to_this_machine() {
    let private = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:192.168.0.1", "fd00::1", "64:ff9b::7f00:1", "198.51.100.1"];
    for address in private.into_iter().chain(["8.8.4.4", "::ffff:8.8.4.4"]) {
        let outside = Stated { own: Some(ip("8.8.4.4")), ..stated(&[&[address]], Some(echo().await)) };
        let outside = Arc::new(outside);
        // A private address in the grant opens nothing for a name.
        let served = serve_stated(&["a.example:443", "10.0.0.1:443"], Arc::clone(&outside), QUICK, 1 << 30).await;
        let answer = served.connect("a.example:443").await;
        assert!(answer.starts_with("HTTP/1.1 403 a.example is granted, but none of its addresses"), "{address}: {answer}");
        assert!(!answer.contains(address));
        assert!(outside.connected.lock().unwrap().is_empty(), "{address}");
    }
}

#[tokio::test]
async fn of_several_addresses_only_public_ones_are_tried_one_after_the_other_and_not_many() {
    let many: Vec<String> = (1..=200).map(|n| format!("8.8.8.{n}")).collect();
    let answer: Vec<&str> = ["10.0.0.1", "8.8.8.1", "8.8.8.1"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let closed = many.iter().map(|text| ip(text)).collect();
    let outside = Arc::new(Stated { closed, ..stated(&[&answer], None) });
    let served = serve_stated(&["a.example:443"], Arc::clone(&outside), QUICK, 1 << 30).await;
    assert!(served.connect("a.example:443").await.starts_with("HTTP/1.1 502 a.example:443 cannot be connected to"));
    let tried: Vec<String> = outside.connected.lock().unwrap().iter().map(SocketAddr::to_string).collect();
    assert_eq!(tried, (1..=8).map(|n| format!("8.8.8.{n}:443")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_reached_says_whether_it_refused_or_was_silent() {
    let silent = Arc::new(stated(&[&["8.8.8.8"]], None));
    let served = serve_stated(&["a.example:443", "10.0.0.1:1"], Arc::clone(&silent), QUICK, 1 << 30).await;
    assert!(served.connect("a.example:443").await.starts_with("HTTP/1.1 504 a.example:443 did not answer in time"));
    assert!(served.connect("10.0.0.1:1").await.starts_with("HTTP/1.1 504 10.0.0.1:1 did not"));
    let nobody = { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap() };
    let served = serve_stated(&[&nobody.to_string()], Internet::default(), QUICK, 1 << 30).await;
    assert!(served.connect(&nobody.to_string()).await.starts_with("HTTP/1.1 502 "));
    let nameless = Arc::new(stated(&[], None));
    let served = serve_stated(&["a.example:443"], nameless, QUICK, 1 << 30).await;
    assert!(served.connect("a.example:443").await.starts_with("HTTP/1.1 502 the name a.example has no address"));
    assert_eq!(served.counters.usage(), EgressUsage::default(), "a failure is no refusal");
}

#[tokio::test]
async fn a_silent_address_leaves_time_for_the_next_but_not_for_any_number() {
    let limits = Limits { connect: Duration::from_secs(2), attempt: Duration::from_millis(100), ..QUICK };
    let one = Stated { silent: vec![ip("8.8.8.1")], ..stated(&[&["8.8.8.1", "8.8.8.2"]], Some(echo().await)) };
    drop(serve_stated(&["a.example:443"], Arc::new(one), limits, 1 << 30).await.tunnel("a.example:443").await);
    let limits = Limits { connect: Duration::from_millis(250), ..limits };
    let all = Arc::new(stated(&[&["8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4", "8.8.8.5"]], None));
    let served = serve_stated(&["a.example:443"], Arc::clone(&all), limits, 1 << 30).await;
    assert!(served.connect("a.example:443").await.starts_with("HTTP/1.1 504 "));
    let tried = all.connected.lock().unwrap().len();
    assert!((2..=3).contains(&tried), "250 ms are at most two whole attempts and a part: {tried}");
}

#[tokio::test]
async fn a_refused_tool_that_still_speaks_is_heard_out_so_that_it_can_read_why() {
    let served = serve_stated(&["a.example:443"], Internet::default(), QUICK, 1 << 30).await;
    let mut client = served.send("POST http://a.example/ HTTP/1.1\r\nContent-Length: 2000\r\n\r\n").await;
    for _ in 0..4 {
        // A connection that was closed at once answers the first of these with a reset, which makes the next one fail.
        sleep(Duration::from_millis(100)).await;
        client.write_all(&[b'x'; 500]).await.unwrap();
    }
    let mut answer = String::new();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_request_of_another_form_is_refused_and_one_that_never_ends_is_not_waited_for() {
    let served = serve_stated(&["a.example:443"], Internet::default(), QUICK, 1 << 30).await;
    let answer = served.answer(&format!("POST http://a.example/ HTTP/1.1\r\nContent-Length: 50000\r\n\r\n{}", "x".repeat(50_000))).await;
    assert!(answer.starts_with("HTTP/1.1 405 only CONNECT is served here") && answer.contains("Allow: CONNECT"), "{answer}");
    assert!(served.connect("2130706433:443").await.starts_with("HTTP/1.1 400 the host of the target looks like an address"));
    let long = format!("CONNECT a.example:443 HTTP/1.1\r\nA: {}", "a".repeat(9000));
    assert!(served.answer(&long).await.starts_with("HTTP/1.1 431 "));
    assert!(served.answer("CONNECT a.example:443 HTTP/1.1\r\n").await.starts_with("HTTP/1.1 408 "));
    assert_eq!(served.counters.usage().refused, 4);
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed_and_one_in_which_something_does_is_not() {
    let host = echo().await;
    let limits = Limits { idle: Duration::from_secs(1), ..QUICK };
    let served = serve_stated(&[&host.to_string()], Internet::default(), limits, 1 << 30).await;
    let mut client = served.tunnel(&host.to_string()).await;
    let begun = Instant::now();
    for _ in 0..8 {
        sleep(Duration::from_millis(150)).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(within(client.read_u8()).await.unwrap(), b'x');
    }
    assert!(begun.elapsed() > limits.idle);
    assert!(within(client.read_u8()).await.is_err(), "closed without a word");
}

#[tokio::test]
async fn a_session_that_used_up_its_bytes_is_cut_off_and_then_refused() {
    let host = echo().await;
    let served = serve_stated(&[&host.to_string()], Internet::default(), QUICK, 100_000).await;
    let mut client = served.tunnel(&host.to_string()).await;
    let (mut reads, mut writes) = client.split();
    let mut echoed = Vec::new();
    // The end may be a reset while bytes are on their way.
    let _ = tokio::join!(within(reads.read_to_end(&mut echoed)), writes.write_all(&[b'x'; 1_000_000]));
    let usage = served.counters.usage();
    assert!(usage.up_bytes + usage.down_bytes <= 100_000, "{usage:?}");
    assert!(served.connect(&host.to_string()).await.starts_with("HTTP/1.1 403 this session has transferred all"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place_and_are_refused_if_none_comes_free() {
    let host = echo().await;
    let target = host.to_string();
    let served = serve_stated(&[&target], Internet::default(), QUICK, 1 << 30).await;
    let first = served.tunnel(&target).await;
    let _second = served.tunnel(&target).await;
    assert!(served.connect(&target).await.starts_with("HTTP/1.1 503 this tool already has 2 connections open"));
    let (_third, ()) = tokio::join!(served.tunnel(&target), async {
        sleep(Duration::from_millis(100)).await;
        drop(first);
    });
    let usage = served.counters.usage();
    assert_eq!((usage.connections, usage.refused), (3, 0));
}

#[tokio::test]
async fn when_it_returns_every_connection_has_ended_whatever_it_was_doing() {
    let host = echo().await;
    let limits =
        Limits { connections: 3, place: Duration::from_mins(1), head: Duration::from_mins(1), connect: Duration::from_mins(1), ..QUICK };
    let outside = Arc::new(stated(&[&["8.8.8.8"]], None));
    let target = host.to_string();
    let one = serve_stated(&[&target], Internet::default(), limits, 1 << 30).await;
    let other = serve_stated(&["a.example:443"], Arc::clone(&outside), limits, 1 << 30).await;
    let mut clients = vec![one.tunnel(&target).await, one.tunnel(&target).await, one.send("CONN").await];
    // This one finds no place, and that one's host is silent.
    clients.extend([one.send("CONN").await, other.send("CONNECT a.example:443 HTTP/1.1\r\n\r\n").await]);
    while outside.connected.lock().unwrap().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    for served in [one, other] {
        served.stop.cancel();
        timeout(Duration::from_secs(2), served.served).await.unwrap().unwrap();
        assert!(TcpStream::connect(served.at).await.is_err(), "nobody listens any more");
        assert_eq!(Arc::strong_count(&served.counters), 1, "nothing counts any more");
    }
    for mut client in clients {
        assert!(matches!(within(client.read(&mut [0; 64])).await, Ok(0) | Err(_)));
    }
}
