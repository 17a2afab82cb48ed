//! A helper that is spoken to in nonsense: it ends, and neither panics nor hangs.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use serde_json::json;

use crate::world::{PATIENCE, World, descendants, helper, is_root, row, state};

/// The other end of a helper that this test started by hand.
struct ByHand {
    socket: OwnedFd,
    child: Child,
    begun: Vec<i32>,
}

impl ByHand {
    fn start() -> Self {
        let (socket, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut command = Command::new(helper());
        command.arg("sandbox-init").env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { socket, child: command.spawn().unwrap(), begun: Vec::new() }
    }

    /// With a session that is built.
    fn open(world: &World) -> Self {
        let by_hand = Self::start();
        by_hand.say(opening(world).to_string().as_bytes());
        let answer = by_hand.hear();
        assert_eq!(answer, b"\"Ready\"", "{}", String::from_utf8_lossy(&answer));
        by_hand
    }

    fn say(&self, bytes: &[u8]) {
        self.say_with(bytes, &[]);
    }

    fn say_with(&self, bytes: &[u8], descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        // A helper that is gone already has made up its mind.
        let _ = rustix::net::sendmsg(&self.socket, &[std::io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    }

    fn hear(&self) -> Vec<u8> {
        let mut answer = vec![0; 4096];
        let (got, _) = rustix::net::recv(&self.socket, &mut answer[..], rustix::net::RecvFlags::empty()).unwrap();
        answer.truncate(got);
        answer
    }

    /// Waits for its end, which must be one of its own accord.
    fn ends(mut self) -> ExitStatus {
        self.begun.extend(descendants(self.child.id().cast_signed()));
        let begun = Instant::now();
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            if begun.elapsed() > PATIENCE / 4 {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("it hangs");
            }
            std::thread::sleep(PATIENCE / 30_000);
        };
        let mut said = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut said).unwrap();
        assert!(said.is_empty() && ended.code().is_some_and(|code| code < 2), "{ended} {said}");
        for pid in &self.begun {
            assert!(matches!(state(*pid), None | Some('Z' | 'X')), "{pid} is left");
        }
        ended
    }
}

fn opening(world: &World) -> serde_json::Value {
    json!({
        "level": "S2", "directory": null, "bytes": 1 << 20, "entries": 64, "user": is_root().then_some(world.first_user), "views": [],
        "profiles": [{ "views": [], "execute_workspace": false, "port": null }], "parallel_runs": 1, "groups": false, "without": [],
    })
}

#[test]
fn d09_a_helper_that_hears_nonsense_ends() {
    row(async |world| {
        let deep = [b"[".repeat(30_000), b"]".repeat(30_000)].concat();
        let wrong_level = opening(world).to_string().replace("S2", "S9");
        let cut = opening(world).to_string().replace("parallel_runs", "parallel");
        for nonsense in [
            &b"\xff\xfe{"[..],
            b"{}",
            b"null",
            b"{\"Run\":{\"profile\":0}}",
            &deep,
            &vec![b' '; 70_000],
            wrong_level.as_bytes(),
            cut.as_bytes(),
        ] {
            let by_hand = ByHand::start();
            by_hand.say(nonsense);
            assert_eq!(by_hand.ends().code(), Some(1), "{}", String::from_utf8_lossy(&nonsense[..nonsense.len().min(80)]));
        }
        // And one whose owner goes without a word.
        let ByHand { socket, child, begun } = ByHand::start();
        let (ours, _theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        drop(socket);
        assert_eq!(ByHand { socket: ours, child, begun }.ends().code(), Some(0));
    });
}

#[test]
fn d09_a_holder_that_hears_nonsense_ends_with_its_session() {
    row(async |world| {
        let again = opening(world).to_string();
        for nonsense in [&b"\xff\xfe{"[..], b"{}", b"{\"Run\":{\"profile\":-1}}", b"{\"Run\":{}}", &vec![b' '; 70_000], again.as_bytes()] {
            let mut by_hand = ByHand::open(world);
            by_hand.begun = descendants(by_hand.child.id().cast_signed());
            assert!(!by_hand.begun.is_empty());
            by_hand.say(nonsense);
            by_hand.ends();
        }
        // Too many descriptors, and a run without any: the one is no message, the other no run.
        let by_hand = ByHand::open(world);
        let null = std::fs::File::open("/dev/null").unwrap();
        let many: Vec<_> = (0..200).map(|_| std::os::fd::AsFd::as_fd(&null)).collect();
        by_hand.say(b"{\"Run\":{\"profile\":0}}");
        by_hand.say_with(b"{\"Run\":{\"profile\":0}}", &many);
        by_hand.ends();
    });
}

#[test]
fn d09_a_stub_that_hears_nonsense_ends_and_starts_nothing() {
    row(async |world| {
        let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
        let job = json!({"Run": {"program": "/usr/bin/sleep", "args": ["1000"], "env": [], "directory": "/workspace"}}).to_string();
        let words = [
            b"\xff\xff\xff\xff".to_vec(),
            framed(b"\xff{"),
            framed(b"\"Pause\""),
            framed(b"{\"Kill\":\"OutputLimit\"}"),
            framed(job.as_bytes()),
            framed(b"{}"),
            vec![0; 64],
            framed(&b"x".repeat(1000))[..500].to_vec(),
        ];
        let by_hand = ByHand::open(world);
        for profile in [0, 7] {
            for word in &words {
                let (mut control, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
                let (output, outputs_end) = std::io::pipe().unwrap();
                let order = json!({"Run": {"profile": profile}}).to_string();
                let given =
                    [std::os::fd::AsFd::as_fd(&theirs), std::os::fd::AsFd::as_fd(&outputs_end), std::os::fd::AsFd::as_fd(&outputs_end)];
                by_hand.say_with(order.as_bytes(), &given);
                drop((theirs, outputs_end));
                let _ = std::io::Write::write_all(&mut control, word);
                // What is only begun ends with its sender.
                control.shutdown(std::net::Shutdown::Write).unwrap();
                control.set_read_timeout(Some(PATIENCE / 4)).unwrap();
                let mut said = Vec::new();
                let _ = std::io::Read::read_to_end(&mut control, &mut said);
                let text = String::from_utf8_lossy(&said).into_owned();
                assert!(!text.contains("Started"), "{word:?}: {text}");
                assert!(profile == 0 || text.contains("SetupFailed"), "a kind of run that there is not: {text}");
                let mut printed = Vec::new();
                std::io::Read::read_to_end(&mut { output }, &mut printed).unwrap();
                assert!(printed.is_empty());
            }
        }
        rustix::net::shutdown(&by_hand.socket, rustix::net::Shutdown::Both).unwrap();
        by_hand.ends();
    });
}
