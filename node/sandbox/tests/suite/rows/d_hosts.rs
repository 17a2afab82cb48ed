//! Hosts that lack something, and what a tool can learn of the one it is on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use orien_sandbox::{Layer, OpenError, Sandbox, SandboxConfig, SessionSpec};

use crate::verdict::Is;
use crate::world::{World, helper, is_root, row, row_with, run, sh, user};

/// Somebody who may not do more than make a user namespace.
const SOMEBODY: &str = "65532";

/// Opens a sandbox in another world than this, which the words before make for it, and runs `touch` in it.
fn elsewhere(world: &World, name: &str, level: &str, words: &[&str]) -> Output {
    let base = world.path(name);
    std::fs::create_dir(&base).unwrap();
    let mut all: Vec<String> = Vec::new();
    if is_root() {
        let id: u32 = SOMEBODY.parse().unwrap();
        std::os::unix::fs::chown(&base, Some(id), Some(id)).unwrap();
        all.extend(["setpriv", "--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups"].map(String::from));
    }
    all.extend(words.iter().map(|word| (*word).to_owned()));
    // The test program's own directory may be nobody else's to enter.
    let program = Path::new(&base).join("helper");
    std::fs::copy(helper(), &program).unwrap();
    all.extend([program.to_str().unwrap().to_owned(), "open".into(), format!("{base}/root"), level.into()]);
    all.extend(["/usr/bin/touch", "/workspace/it-ran"].map(String::from));
    Command::new(&all[0]).args(&all[1..]).stdin(Stdio::null()).current_dir(&base).output().unwrap()
}

/// In a new user namespace with all rights in it, to begin with.
const APART: [&str; 4] = ["unshare", "-U", "--map-current-user", "--keep-caps"];

fn said(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

#[test]
fn d00_a_host_that_lacks_nothing_confines() {
    row(async |world| {
        let done = elsewhere(world, "whole", "S2", &["env"]);
        assert_eq!(said(&done), "level S2\nended Exited(0)\n", "so what the other rows see is what they changed");
    });
}

#[test]
fn d01_without_user_namespaces_the_sandbox_does_not_open_and_says_why() {
    row(async |world| {
        let off = ["sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"", "sh"];
        let done = elsewhere(world, "none", "S2", &[&APART[..], &off].concat());
        let text = said(&done);
        assert!(!done.status.success() && text.contains("S2 is asked for") && text.contains("namespaces"), "{text}");
        assert!(text.contains("user.max_user_namespaces"), "with a remedy: {text}");
        // And does what it can where that is asked for.
        let done = elsewhere(world, "less", "S1", &[&APART[..], &off].concat());
        assert_eq!(said(&done).lines().next(), Some("level S1"), "{}", said(&done));
    });
}

#[test]
fn d02_with_a_masked_proc_the_sandbox_does_not_open_and_says_why() {
    row(async |world| {
        // As containers do it: something lies over a part of it.
        let mask = ["unshare", "-U", "--map-root-user", "-m", "sh", "-c", "mount -t tmpfs none /proc/sys && exec \"$@\"", "sh"];
        // Root in there would need further users; the session is somebody again.
        let back = ["unshare", "-U", "--map-user=1001", "--map-group=1001"];
        let done = elsewhere(world, "masked", "S2", &[&mask[..], &back].concat());
        let text = said(&done);
        assert!(!done.status.success() && text.contains("S2 is asked for") && text.contains("/proc"), "{text}");
    });
}

/// Installs a filter that answers one call with an error, and becomes what follows.
const LACKING: &str = "
import ctypes, os, struct, sys
numbers = [int(n) for n in sys.argv[1].split(',')]
code = [(0x20, 0, 0, 0)]
for i, n in enumerate(numbers): code.append((0x15, len(numbers) - i, 0, n))
code += [(0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x00050000 | 38)]
program = b''.join(struct.pack('HBBI', *line) for line in code)
space = ctypes.create_string_buffer(program, len(program))
C = ctypes.CDLL(None, use_errno=True)
fprog = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code), ctypes.addressof(space)), 16)
assert C.prctl(38, 1, 0, 0, 0) == 0
assert C.prctl(22, 2, fprog, 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[2], sys.argv[2:])
";

fn lacking(numbers: &str) -> [&str; 4] {
    ["/usr/bin/python3", "-c", LACKING, numbers]
}

#[test]
fn d03_without_landlock_the_sandbox_does_not_open_and_says_why() {
    row(async |world| {
        let numbers = format!("{},{}", libc::SYS_landlock_create_ruleset, libc::SYS_landlock_restrict_self);
        let done = elsewhere(world, "landless", "S2", &lacking(&numbers));
        let text = said(&done);
        assert!(!done.status.success() && text.contains("S2 is asked for") && text.contains("landlock"), "{text}");
        let done = elsewhere(world, "landless-unchecked", "unchecked", &lacking(&numbers));
        assert!(said(&done).contains("cannot be confined: landlock"), "not even unchecked: {}", said(&done));
        let restrict = libc::SYS_landlock_restrict_self.to_string();
        let done = elsewhere(world, "landless-late", "unchecked", &lacking(&restrict));
        assert!(said(&done).contains("SetupFailed { stage: \"landlock\""), "the tool does not start: {}", said(&done));
    });
}

#[test]
fn d04_a_filter_that_cannot_be_installed_starts_nothing() {
    row(async |world| {
        let numbers = libc::SYS_seccomp.to_string();
        let done = elsewhere(world, "filterless", "S2", &lacking(&numbers));
        let text = said(&done);
        assert!(!done.status.success() && text.contains("S2 is asked for") && text.contains("seccomp"), "{text}");
        let done = elsewhere(world, "filterless-unchecked", "unchecked", &lacking(&numbers));
        assert!(said(&done).contains("SetupFailed { stage: \"seccomp\""), "the tool does not start: {}", said(&done));
    });
}

#[test]
fn d04_a_layer_that_is_left_out_is_noticed_by_the_checks() {
    row(async |world| {
        for layer in [Layer::Seccomp, Layer::Capabilities] {
            let mut config = SandboxConfig::new(world.path("left-out").into());
            (config.helper, config.without) = (helper(), vec![layer]);
            let opened = Sandbox::open(config).await;
            assert!(matches!(opened, Err(OpenError::Weak { .. })), "{layer:?}: {opened:?}");
        }
    });
}

#[test]
fn d05_tools_are_never_root() {
    row(async |world| {
        let open = async |first_user| {
            let mut config = SandboxConfig::new(world.path("root").into());
            (config.helper, config.first_user) = (helper(), first_user);
            Sandbox::open(config).await
        };
        for first in [0, u32::MAX, u32::MAX - 10] {
            let opened = open(first).await;
            assert!(matches!(opened, Err(OpenError::Users(_))) || !is_root(), "{first}: {opened:?}");
        }
        let session = world.session().await;
        let mut tool = session.start(sh("sleep 1000")).await.unwrap();
        assert!(tool.started().await);
        let tree = crate::world::descendants(session.helper_process().unwrap().cast_signed());
        assert!(tree.len() >= 3 && tree.iter().all(|pid| user(*pid) != Some(0)), "{tree:?}");
        tool.kill("done").await;
        tool.wait().await;
        world.close(session).await;
    });
}

#[test]
fn d06_a_session_whose_control_group_is_gone_runs_nothing() {
    row_with(
        |config| config.count_in_groups = true,
        async |world| {
            let session = world.sandbox.session("grouped", SessionSpec::default()).await.unwrap();
            let helper = session.helper_process().unwrap();
            let own = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let Some(group) = group_of(&own(helper)).filter(|group| group.ends_with("grouped/holder")) else {
                println!("D06: SKIP control groups are not this user's to divide here");
                world.close(session).await;
                return;
            };
            assert!(run(&session, sh("exit 0")).await.report.success());
            // Everything of it is moved away, and it is removed.
            let (holder, above) = (Path::new(&group), Path::new(&group).parent().unwrap());
            for pid in std::fs::read_to_string(holder.join("cgroup.procs")).unwrap().lines() {
                std::fs::write(above.parent().unwrap().join("cgroup.procs"), pid).unwrap();
            }
            std::fs::remove_dir(holder).unwrap();
            for entry in std::fs::read_dir(above).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
                crate::world::until("a run's group is free", || std::fs::remove_dir(entry.path()).is_ok() || !entry.path().exists()).await;
            }
            std::fs::remove_dir(above).unwrap();
            let refused = session.start(sh("touch /workspace/it-ran")).await;
            assert!(matches!(refused, Err(orien_sandbox::StartError::System(_))), "{refused:?}");
            let path = orien_sandbox::WorkPath::parse("it-ran").unwrap();
            assert!(matches!(session.files().stat(&path).await, Err(orien_sandbox::FileError::Missing)));
            world.close(session).await;
        },
    );
}

/// The directory of a process's group in the hierarchy of version 2.
fn group_of(told: &str) -> Option<String> {
    let own = told.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    Some(format!("{mount}{own}"))
}

#[test]
fn d08_a_node_whose_program_was_replaced_goes_on_with_its_own() {
    row(async |world| {
        let (program, root) = (world.path("program"), world.path("upgraded"));
        std::fs::copy(helper(), &program).unwrap();
        let mut node = Command::new(&program);
        node.args(["open", &root, "S2", "/usr/bin/true"]).env("ORIEN_TEST_WAIT", "1");
        let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(node.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "level S2\n");
        // As packages do it: another file by the same name. Started as a helper it would fail at once.
        std::fs::copy("/bin/false", world.path("newer")).unwrap();
        std::fs::rename(world.path("newer"), &program).unwrap();
        node.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), node.wait().unwrap().success()), ("ended Exited(0)\n", true));
    });
}

#[test]
fn d10_nothing_names_the_host_or_the_node() {
    row(async |world| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let root = world.sandbox.root().to_str().unwrap().to_owned();
        let mut needles = vec![host.trim().to_owned(), boot.trim().to_owned(), "workspaces".into(), world.path("host"), "row-".into()];
        needles.extend(std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned()));
        needles.extend(std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned)));
        needles.push(root);
        needles.push(helper().to_str().unwrap().to_owned());
        // A name as short as that is a part of other words.
        needles.retain(|needle| needle.len() > 3);
        let words: Vec<String> = needles.iter().map(|needle| format!("needle={needle}")).collect();
        let words: Vec<&str> = std::iter::once("D10").chain(words.iter().map(String::as_str)).collect();
        let told = world.judge(&words, &[("something names ", Is::Not), ("", Is::Aside)]).await;
        assert!(told.of("names of the system").text.starts_with("Linux\norien\n"), "{told:#?}");
        assert!(told.of("/proc/1/cmdline").is(Is::Done) && told.of("/proc/1/cmdline").text == "orien\0sandbox-init\0");
        for file in ["/proc/sys/kernel/hostname", "/proc/cmdline", "/proc/version", "/proc/net/unix", "/proc/keys", "/etc/machine-id"] {
            assert!(told.of(file).is(Is::Refused(&[libc::ENOENT])), "{file}");
        }
        // On disk as well, but for the place itself, which is a mount like others.
        let session = world.on_disk().await;
        let on_disk = world.attack(&session, &words).await;
        let named: Vec<_> =
            on_disk.tries.iter().filter(|tried| tried.what.starts_with("something names ") && tried.ok == Some(true)).collect();
        println!("D10: of a workspace on disk a tool can read: {named:?}");
        world.close(session).await;
    });
}
