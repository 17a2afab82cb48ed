//! A helper that is spoken to in nonsense: it ends, and neither panics nor hangs.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use serde_json::json;

use crate::world::{PATIENCE, World, descendants, helper, is_root, limits, row, state};

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

    /// Orders a run of that profile, says this on its own socket, and hears all that comes back until its end.
    fn order(&self, profile: usize, words: &[u8]) -> String {
        let (mut control, theirs) = UnixStream::pair().unwrap();
        let (output, outputs_end) = std::io::pipe().unwrap();
        let order = json!({"Run": {"profile": profile, "input": false}}).to_string();
        self.say_with(order.as_bytes(), &[theirs.as_fd(), outputs_end.as_fd(), outputs_end.as_fd()]);
        drop((theirs, outputs_end));
        let _ = control.write_all(words);
        control.set_read_timeout(Some(PATIENCE / 4)).unwrap();
        if !words.ends_with(b"}") {
            // What is only begun ends with its sender.
            control.shutdown(Shutdown::Write).unwrap();
        }
        let (mut said, mut printed) = (Vec::new(), Vec::new());
        let _ = control.read_to_end(&mut said);
        { output }.read_to_end(&mut printed).unwrap();
        assert!(printed.is_empty());
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Tells it that its owner is gone, and waits for its end.
    fn let_go(self) {
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).unwrap();
        self.ends();
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

impl Drop for ByHand {
    /// Also when a row fails: the next one looks for what is left.
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
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
            b"{\"Run\":{\"profile\":0,\"input\":false}}",
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
        let by_hand = ByHand::start();
        rustix::net::shutdown(&by_hand.socket, rustix::net::Shutdown::Both).unwrap();
        assert_eq!(by_hand.ends().code(), Some(0));
    });
}

/// A job that is one.
fn job() -> Vec<u8> {
    let limits = serde_json::to_value(limits()).unwrap();
    framed(
        json!({"Run": {"program": "/usr/bin/true", "args": [], "env": [], "directory": "/workspace", "limits": limits}})
            .to_string()
            .as_bytes(),
    )
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

#[test]
fn d09_a_session_that_hears_nonsense_ends() {
    row(async |world| {
        let again = opening(world).to_string();
        for nonsense in [
            &b"\xff\xfe{"[..],
            b"{}",
            b"{\"Run\":{\"profile\":-1,\"input\":false}}",
            b"{\"Run\":{}}",
            &vec![b' '; 70_000],
            again.as_bytes(),
        ] {
            let mut by_hand = ByHand::open(world);
            assert!(by_hand.order(0, &job()).contains("{\"Exited\":0}"));
            by_hand.begun = descendants(by_hand.child.id().cast_signed());
            by_hand.say(nonsense);
            by_hand.ends();
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        let many: Vec<_> = (0..200).map(|_| null.as_fd()).collect();
        let by_hand = ByHand::open(world);
        // An order without what belongs to it is nobody's.
        for given in [&many[..0], &many[..2]] {
            by_hand.say_with(b"{\"Run\":{\"profile\":0,\"input\":false}}", given);
            assert!(by_hand.order(0, &job()).contains("{\"Exited\":0}"), "the session goes on");
        }
        by_hand.say_with(b"{\"Run\":{\"profile\":0,\"input\":true}}", &many[..3]);
        assert!(by_hand.order(0, &job()).contains("{\"Exited\":0}"), "nor one without its input");
        // One with more than anybody has use for is none.
        by_hand.say_with(b"{\"Run\":{\"profile\":0,\"input\":false}}", &many);
        by_hand.ends();
    });
}

#[test]
fn d09_a_stub_that_hears_nonsense_ends_and_starts_nothing() {
    row(async |world| {
        let incomplete = json!({"Run": {"program": "/usr/bin/sleep", "args": ["1000"], "env": [], "directory": "/workspace"}}).to_string();
        let words = [
            b"\xff\xff\xff\xff".to_vec(),
            framed(b"\xff{"),
            framed(b"\"Pause\""),
            framed(b"{\"Kill\":\"OutputLimit\"}"),
            framed(incomplete.as_bytes()),
            framed(b"{}"),
            vec![0; 64],
            job()[..100].to_vec(),
        ];
        let by_hand = ByHand::open(world);
        for profile in [0, 7] {
            for word in &words {
                let said = by_hand.order(profile, word);
                assert!(!said.contains("Started") && !said.contains("Exited"), "{word:?}: {said}");
            }
        }
        let said = by_hand.order(7, &job());
        assert!(said.contains("SetupFailed") && said.contains("profile"), "a kind of run that there is not: {said}");
        // A second job while the first runs is an end of it, and not a second run.
        let twice = [job(), job()].concat();
        let said = by_hand.order(0, &twice);
        assert!(said.contains("Lost") || said.contains("{\"Exited\":0}"), "{said}");
        by_hand.let_go();
    });
}
