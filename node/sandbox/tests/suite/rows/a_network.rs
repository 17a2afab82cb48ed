//! Over sockets: to the host, to the internet, and through the one way out.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use libc::{EACCES, EAFNOSUPPORT, ECONNREFUSED, ENOENT, EPERM};
use orien_sandbox::{NetworkGrant, Profile, SessionSpec, Storage};
use serde::Deserialize;

use crate::verdict::Is;
use crate::world::{PATIENCE, World, abstract_name, python, row, run, small};

const NO_FAMILY: Is = Is::Refused(&[EAFNOSUPPORT]);

/// The attack program's view, and a way to these.
fn granted(world: &World, hosts: &[&str]) -> Profile {
    let grant = NetworkGrant { hosts: hosts.iter().map(|host| host.parse().unwrap()).collect() };
    Profile { network: Some(Arc::new(grant)), ..world.profile() }
}

#[test]
fn a16_sockets_of_host_processes_are_out_of_reach() {
    row(async |world| {
        let (name, path) = (abstract_name(), world.path("host/socket"));
        let words = [format!("abstract={name}"), format!("path={path}")];
        let by_name = format!("connect to @{name}");
        let by_path = format!("connect to {path}");
        let table = [("control", Is::Done), (by_name.as_str(), Is::Refused(&[ECONNREFUSED])), (by_path.as_str(), Is::Refused(&[ENOENT]))];
        world.judge(&["A16", &words[0], &words[1]], &table).await;
    });
}

#[test]
fn a18_without_a_grant_there_is_no_internet() {
    row(async |world| {
        let port = format!("port={}", world.port());
        let table = [("control", Is::Done), ("TCP to ", NO_FAMILY), ("listen", NO_FAMILY), ("UDP", NO_FAMILY)];
        world.judge(&["A18", &port], &table).await;
    });
}

#[test]
fn a18_with_a_grant_only_the_way_out_is_connected_to() {
    row(async |world| {
        let session = world.session_of(Storage::Memory, small(), granted(world, &["192.0.2.7:443"])).await;
        let port = format!("port={}", world.port());
        let told = world.attack(&session, &["A18", &port]).await;
        let table = [
            ("control", Is::Done),
            ("TCP to ", Is::Refused(&[EACCES])),
            ("listen", Is::Refused(&[EACCES])),
            ("UDP", Is::Refused(&[EPERM])),
        ];
        told.judge(&table);
        world.close(session).await;
    });
}

#[test]
fn a19_no_family_of_sockets_but_the_local_one() {
    row(async |world| {
        let table = [("control", Is::Done), ("any other", Is::Not), ("", NO_FAMILY)];
        world.judge(&["A19"], &table).await;
    });
}

#[test]
fn a19_with_a_grant_only_tcp_is_added() {
    row(async |world| {
        let session = world.session_of(Storage::Memory, small(), granted(world, &["192.0.2.7:443"])).await;
        let told = world.attack(&session, &["A19"]).await;
        let forbidden = Is::Refused(&[EPERM, EAFNOSUPPORT]);
        told.judge(&[("control", Is::Done), ("TCP", Is::Done), ("any other", Is::Done), ("", forbidden)]);
        assert_eq!(told.of("any other").text, "2/1 10/1");
        for name in ["packet", "netlink", "vsock", "ALG", "XDP", "family with high bits"] {
            assert!(told.of(name).is(NO_FAMILY), "{name}");
        }
        world.close(session).await;
    });
}

/// Speaks to the way out by hand, in every form that might be taken for the granted host, and past it.
const TALK: &str = r#"
import json, os, socket, sys
granted, other = sys.argv[1:3]
way = int(os.environ['HTTPS_PROXY'].rsplit(':', 1)[1])
def ask(request):
    s = socket.create_connection(('127.0.0.1', way), 5); s.settimeout(20)
    s.sendall(request.encode('latin-1'))
    got = b''
    try:
        while b'\r\n\r\n' not in got:
            more = s.recv(4096)
            if not more: break
            got += more
        if got.split(b' ', 2)[1:2] == [b'200']:
            s.sendall(b'ping'); s.settimeout(5)
            return '200 ' + s.recv(4).decode()
    except OSError as e: return 'error ' + str(e)
    return got.split(b'\r\n')[0].decode('latin-1')[9:] or 'closed'
def connect(target, more=''): return ask(f'CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n')
out = {'granted': connect(f'127.0.0.1:{granted}')}
for t in (f'127.0.0.1:{other}', f'localhost:{granted}', f'127.1:{granted}', f'0x7f000001:{granted}', f'2130706433:{granted}',
          f'127.0.0.1.:{granted}', f'[::1]:{granted}', f'[::ffff:127.0.0.1]:{granted}', f'0.0.0.0:{granted}', f'127.0.0.2:{granted}',
          f'017700000001:{granted}', f'127.0.0.1:{granted}@127.0.0.1:{other}', f'user@127.0.0.1:{other}', f'127.0.0.1:{granted}#:{other}',
          f'127.0.0.1:0{granted}', f'127.0.0.1:{int(granted) + 65536}', f'127.0.0.1:{other}%00:{granted}', '169.254.169.254:80', '10.0.0.1:443',
          'metadata.google.internal:80', 'localtest.me:443', 'example.org:443', '127.0.0.1.nip.io:' + granted, ':' + granted, '127.0.0.1', ''):
    out['CONNECT ' + t] = connect(t)
out['another in the header'] = ask(f'CONNECT 127.0.0.1:{other} HTTP/1.1\r\nHost: 127.0.0.1:{granted}\r\n\r\n')
out['two headers'] = connect(f'127.0.0.1:{other}', f'Host: 127.0.0.1:{granted}\r\n')
out['a line in the target'] = ask(f'CONNECT 127.0.0.1:{other}\r\nCONNECT 127.0.0.1:{granted} HTTP/1.1\r\n\r\n')
out['GET through'] = ask(f'GET http://127.0.0.1:{other}/ HTTP/1.1\r\nHost: 127.0.0.1:{granted}\r\n\r\n')
out['GET of the granted one'] = ask(f'GET http://127.0.0.1:{granted}/ HTTP/1.1\r\nHost: 127.0.0.1:{granted}\r\n\r\n')
out['nonsense'] = ask('\x00\xff\r\n\r\n')
for what, family, kind, to in (('TCP past it', 2, 1, ('127.0.0.1', int(other))), ('TCP past it to the granted', 2, 1, ('127.0.0.1', int(granted))),
                               ('TCP past it outside', 2, 1, ('192.0.2.1', 443)), ('IPv6 past it', 10, 1, ('::1', int(other))),
                               ('UDP', 2, 2, ('192.0.2.1', 53))):
    try: s = socket.socket(family, kind); s.settimeout(5); s.connect(to); out[what] = '200 connected'
    except OSError as e: out[what] = 'errno ' + str(e.errno)
try: out['names'] = '200 ' + str(socket.getaddrinfo('secret.example.org', 443))
except OSError as e: out['names'] = 'error'
print(json.dumps(out))
"#;

/// Answers `ping` to so many, then counts whoever else comes, and answers how many came when it is told to stop.
fn serve(listener: TcpListener, expected: usize) -> (Arc<AtomicBool>, JoinHandle<usize>) {
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let serving = std::thread::spawn(move || {
        let mut served = 0;
        listener.set_nonblocking(true).unwrap();
        while !until.load(Ordering::SeqCst) || served < expected {
            let Ok((mut stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            served += 1;
            let mut asked = [0; 4];
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if stream.read_exact(&mut asked).is_ok() && &asked == b"ping" {
                let _ = stream.write_all(b"pong");
            }
        }
        served
    });
    (stop, serving)
}

#[derive(Deserialize)]
struct Talked(std::collections::BTreeMap<String, String>);

#[test]
fn a20_the_way_out_leads_to_what_is_granted_and_nowhere_else() {
    row(async |world| {
        let friend = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = friend.local_addr().unwrap().port();
        let (stop, serving) = serve(friend, 2);
        let grant = format!("127.0.0.1:{port}");
        let session = world.session_of(Storage::Memory, small(), granted(world, &[&grant])).await;
        let mut talk = python(TALK);
        // The one that is not granted is the world's own, where a call fails the row.
        talk.args.extend([port.to_string(), world.port().to_string()]);
        let done = run(&session, talk).await;
        assert!(done.report.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let Talked(mut said) = serde_json::from_str(done.text()).unwrap();
        // The other is the same address in another spelling, and so the granted one.
        for same in ["granted".to_owned(), format!("CONNECT [::ffff:127.0.0.1]:{port}")] {
            assert_eq!(said.remove(&same).as_deref(), Some("200 pong"), "{same}");
        }
        let through: Vec<_> = said.iter().filter(|(_, answer)| answer.starts_with("200")).collect();
        assert!(through.is_empty(), "{through:?}");
        assert!(said["CONNECT example.org:443"].starts_with("403"), "what is not granted is not looked up: {said:?}");
        assert_eq!(said["UDP"], format!("errno {EPERM}"));
        for past in ["TCP past it", "TCP past it to the granted", "TCP past it outside", "IPv6 past it"] {
            assert_eq!(said[past], format!("errno {EACCES}"), "{past}");
        }
        stop.store(true, Ordering::SeqCst);
        assert_eq!(serving.join().unwrap(), 2);
        let usage = session.egress();
        assert_eq!((usage.connections, usage.up_bytes, usage.down_bytes), (2, 8, 8), "what went through was counted");
        world.close(session).await;
    });
}

/// Sends with the connection instead of after it, which is a way to connect that is not `connect`.
const FAST: &str = r"
import json, socket, sys
out = {}
for what, call in (('connect', lambda s, to: s.connect(to)), ('send', lambda s, to: s.sendto(b'x', 0x20000000, to)),
                   ('message', lambda s, to: s.sendmsg([b'x'], [], 0x20000000, to))):
    s = socket.socket()
    try: call(s, ('127.0.0.1', int(sys.argv[1]))); s.getpeername(); out[what] = 'connected'
    except OSError as e: out[what] = 'errno ' + str(e.errno)
print(json.dumps(out))
";

#[test]
fn a20_the_way_out_of_another_tool_is_out_of_reach() {
    row(async |world| {
        let kinds = [granted(world, &["192.0.2.7:443"]), granted(world, &["192.0.2.8:443"])];
        let spec = SessionSpec { limits: small(), profiles: kinds.to_vec(), ..SessionSpec::default() };
        let session = world.sandbox.session("two", spec).await.unwrap();
        for (way, expected) in [("3129", "errno 13"), ("3128", "connected")] {
            let mut fast = python(FAST);
            fast.args.push(way.to_owned());
            let done = run(&session, fast).await;
            assert!(done.report.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let Talked(said) = serde_json::from_str(done.text()).unwrap();
            assert_eq!(said["connect"], expected, "{way}");
            let refused = format!("errno {}", libc::EOPNOTSUPP);
            assert!(said["send"] == refused && said["message"] == refused, "{way}: {said:?}");
        }
        world.close(session).await;
    });
}
