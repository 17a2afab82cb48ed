//! Attacks over sockets.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use crate::attack::Attack;
use crate::raw::{self, Arg};

/// Documentation's own addresses, so that a sandbox that leaks reaches nobody; the clouds' metadata service; this machine.
const TARGETS: &[&str] = &["192.0.2.1:443", "[2001:db8::1]:443", "169.254.169.254:80"];
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn abstract_sockets(attack: &mut Attack) {
    attack.control(UnixStream::pair().map(drop));
    for name in attack.values("abstract") {
        let connected = UnixAddr::from_abstract_name(&name).and_then(|address| UnixStream::connect_addr(&address));
        attack.note(format!("connect to @{name}"), connected);
    }
    for path in attack.values("path") {
        attack.note(format!("connect to {path}"), UnixStream::connect(&path));
    }
}

pub(crate) fn connect(attack: &mut Attack) {
    attack.control(UnixStream::pair().map(drop));
    let mut targets: Vec<String> = TARGETS.iter().map(|target| (*target).to_owned()).collect();
    targets.extend(attack.values("address"));
    for port in attack.values("port") {
        targets.extend([format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("[::ffff:127.0.0.1]:{port}")]);
    }
    for target in targets {
        let connected = target.parse::<SocketAddr>().map_err(io::Error::other);
        attack.note(format!("TCP to {target}"), connected.and_then(|address| TcpStream::connect_timeout(&address, PATIENCE)));
    }
    attack.note("listen", std::net::TcpListener::bind("127.0.0.1:0"));
    attack.note("UDP", UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"out", "192.0.2.1:53")));
}

/// Name, family, type, protocol.
const SOCKETS: &[(&str, u64, u64, u64)] = &[
    ("UDP", 2, 2, 0),
    ("UDP, IPv6", 10, 2, 0),
    ("ICMP", 2, 2, 1),
    ("ICMP, IPv6", 10, 2, 58),
    ("raw", 2, 3, 255),
    ("raw, IPv6", 10, 3, 58),
    ("SCTP", 2, 1, 132),
    ("MPTCP", 2, 1, 262),
    ("packet by its old name", 2, 10, 0x0300),
    ("packet", 17, 3, 0x0300),
    ("netlink", 16, 3, 0),
    ("netlink of netfilter", 16, 3, 12),
    ("vsock", 40, 1, 0),
    ("vsock, datagrams", 40, 2, 0),
    ("ALG", 38, 5, 0),
    ("XDP", 44, 3, 0),
    ("TIPC", 30, 5, 0),
    ("Bluetooth", 31, 3, 1),
    ("key", 15, 3, 2),
    ("CAN", 29, 3, 1),
    ("RDS", 21, 5, 0),
    ("KCM", 41, 5, 0),
    ("SMC", 43, 1, 0),
    ("family with high bits", 0xffff_ffff_0000_0010, 3, 0),
];

pub(crate) fn families(attack: &mut Attack) {
    attack.control(UnixStream::pair().map(drop));
    for (name, family, kind, protocol) in SOCKETS {
        let args = &mut [Arg::Number(*family), Arg::Number(*kind), Arg::Number(*protocol)];
        attack.call(*name, libc::SYS_socket, args);
    }
    for (name, kind) in [("TCP", 1), ("TCP, flags", 1 | 0x8_0800)] {
        attack.call(name, libc::SYS_socket, &mut [Arg::Number(2), Arg::Number(kind), Arg::Number(0)]);
    }
    // Whatever this kernel has that has no line above: every family but the local one, in every type.
    let mut open = Vec::new();
    for family in (0..64).filter(|family| *family != 1) {
        for kind in 1..=10 {
            if raw::call(libc::SYS_socket, &mut [Arg::Number(family), Arg::Number(kind), Arg::Number(0)]).is_ok() {
                open.push(format!("{family}/{kind}"));
            }
        }
    }
    attack.says("any other", !open.is_empty(), open.join(" "));
    let mut pair = [0_u8; 8];
    attack.call("socketpair of TIPC", libc::SYS_socketpair, &mut [Arg::Number(30), Arg::Number(1), Arg::Number(0), Arg::Out(&mut pair)]);
}
