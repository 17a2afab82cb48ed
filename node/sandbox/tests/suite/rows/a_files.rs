//! Out of the workspace by path names.

use libc::{EACCES, ENOENT, EROFS, EXDEV};
use orien_sandbox::{Cause, Profile, Storage, View};

use crate::verdict::{Is, Told};
use crate::world::{exists, program, python, row, run, sh, small, tells_secret};

const GONE: Is = Is::Refused(&[ENOENT]);
const SHUT: Is = Is::Refused(&[EACCES]);
const READ_ONLY: Is = Is::Refused(&[EROFS]);

fn tells_nothing(told: &Told) {
    assert!(told.tries.iter().all(|tried| !tells_secret(tried.text.as_bytes())), "{told:#?}");
}

#[test]
fn a01_host_secrets_do_not_exist() {
    row(async |world| {
        let own = std::env::current_exe().unwrap();
        let root = world.sandbox.root().to_str().unwrap();
        let secrets = [world.canary(), world.path("host/below/canary"), root.to_owned(), own.to_str().unwrap().to_owned()];
        let words: Vec<String> = secrets.iter().map(|secret| format!("secret={secret}")).collect();
        let words: Vec<&str> = std::iter::once("A01").chain(words.iter().map(String::as_str)).collect();
        let told = world.judge(&words, &[("control", Is::Done), ("read ", GONE)]).await;
        tells_nothing(&told);
    });
}

#[test]
fn a02_climbing_ends_at_the_session_s_own_root() {
    row(async |world| {
        let secret = format!("secret={}", world.canary());
        let table = [
            ("control", Is::Done),
            ("read ../..", GONE),
            ("climb, then read ", GONE),
            ("list ", Is::Done),
            ("openat with a directory's handle", GONE),
        ];
        let told = world.judge(&["A02", &secret], &table).await;
        assert_eq!(told.of("list ../..").text, told.of("list /").text);
        let names: Vec<&str> = told.of("list /").text.split(' ').collect();
        let own = ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "nix", "proc", "sbin", "tmp", "usr", "var", "workspace"];
        assert!(names.iter().all(|name| own.contains(name)), "{names:?}");
        tells_nothing(&told);
    });
}

#[test]
fn a03_links_out_of_the_workspace_lead_nowhere() {
    row(async |world| {
        let secret = format!("secret={}", world.canary());
        let told = world.judge(&["A03", &secret], &[("control", Is::Done), ("link ", Is::Refused(&[ENOENT, EACCES]))]).await;
        tells_nothing(&told);
        assert!(told.of("link to /proc/1/root/etc/shadow").is(SHUT));
    });
}

/// Archives whose members leave, by climbing, by absolute names, through a link of their own, and as a device; and bombs.
const ARCHIVES: &str = "
import io, tarfile, zipfile
def add(t, name, data=b'x', kind=tarfile.REGTYPE, to=''):
    m = tarfile.TarInfo(name); m.size = len(data) if kind == tarfile.REGTYPE else 0
    m.type = kind; m.linkname = to; m.devmajor, m.devminor = 1, 3
    t.addfile(m, io.BytesIO(data) if m.size else None)
with tarfile.open('slip.tar', 'w') as t:
    add(t, '../../../../escaped-climbing'); add(t, '/etc/escaped-absolute'); add(t, '/usr/escaped-absolute')
    add(t, 'way', kind=tarfile.SYMTYPE, to='/etc'); add(t, 'way/escaped-link')
    add(t, 'device', kind=tarfile.CHRTYPE); add(t, 'hard', kind=tarfile.LNKTYPE, to='/etc/passwd')
with zipfile.ZipFile('slip.zip', 'w') as z:
    for name in ('../../../../escaped-climbing', '/etc/escaped-absolute', '/usr/escaped-absolute'): z.writestr(name, 'x')
zeros = bytes(24 << 20)
with tarfile.open('bomb.tar', 'w:gz', compresslevel=1) as t:
    for i in range(5): add(t, f'zeros{i}', zeros)
with zipfile.ZipFile('bomb.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as z:
    for i in range(5): z.writestr(f'zeros{i}', zeros)
";

#[test]
fn a10_hostile_archives_stay_inside_and_bombs_fill_only_the_workspace() {
    row(async |world| {
        let escapes = ["/escaped-climbing", "/etc/escaped-absolute", "/usr/escaped-absolute", "/etc/escaped-link"];
        let escapes = escapes.map(|path| format!("escape={path}"));
        for (kind, name) in [("tar", "slip.tar"), ("zip", "slip.zip"), ("tar", "bomb.tar"), ("zip", "bomb.zip")] {
            let session = world.session().await;
            let mut making = python(ARCHIVES);
            making.limits.memory_bytes = 1 << 30;
            assert!(run(&session, making).await.report.success());
            let archive = format!("{kind}={name}");
            let words: Vec<&str> = ["A10", &archive].into_iter().chain(escapes.iter().map(String::as_str)).collect();
            let told = world.attack(&session, &words).await;
            let unpacked = if kind == "tar" { "tar " } else { "unzip " };
            told.judge(&[("control", Is::Done), (unpacked, Is::Aside), ("escaped to ", GONE)]);
            for tried in told.tries.iter().filter(|tried| tried.what.starts_with(unpacked)) {
                // A host without that program has nothing to attack.
                assert!(tried.is(GONE) || !tried.text.starts_with("exit status: 0 "), "{tried:?}");
            }
            for path in ["/escaped-climbing", "/etc/escaped-absolute", "/usr/escaped-absolute", "/etc/escaped-link"] {
                assert!(!exists(path), "{path} of the host");
            }
            if name == "bomb.tar" {
                let full = session.start(sh("exit 0")).await;
                assert!(matches!(full, Err(orien_sandbox::StartError::WorkspaceFull)), "what it filled was the workspace");
            }
            world.close(session).await;
        }
    });
}

#[test]
fn a11_nothing_outside_of_the_workspace_can_be_written() {
    row(async |world| {
        let (shared, file) = (format!("shared={}", world.path("tools")), format!("file={}", world.path("tools/data")));
        let table = [
            ("control", Is::Done),
            ("create in /proc", GONE),
            ("make a directory in /proc", GONE),
            ("link into /proc", GONE),
            ("hard link into /proc", Is::Refused(&[ENOENT, EXDEV])),
            ("create in ", READ_ONLY),
            ("make a directory in ", READ_ONLY),
            ("link into ", READ_ONLY),
            ("rename into ", Is::Refused(&[EXDEV, EROFS])),
            ("hard link into ", Is::Refused(&[EROFS, EXDEV])),
            ("open ", Is::Refused(&[EACCES, EROFS])),
            ("truncate ", Is::Refused(&[EROFS, EACCES])),
            ("change the mode of ", READ_ONLY),
            ("hard link of ", Is::Refused(&[EXDEV])),
            ("rename ", Is::Refused(&[EROFS, EXDEV])),
            ("remove ", READ_ONLY),
        ];
        world.judge(&["A11", &shared, &file], &table).await;
    });
}

#[test]
fn a12_the_kernel_s_settings_are_not_there_and_its_own_cannot_be_changed() {
    row(async |world| {
        let table = [("control", Is::Done), ("open /proc/1/", SHUT), ("open ", GONE), ("write /proc/self/", SHUT)];
        world.judge(&["A12"], &table).await;
    });
}

#[test]
fn a34_a_tool_s_program_stays_the_provider_s_whatever_runs_before_it() {
    row(async |world| {
        // A view of the file itself is of that file, also when the provider puts another one in its place.
        let tools = world.path("tools");
        let pinned = world.path("pinned");
        std::fs::copy(world.path("tools/attacker"), &pinned).unwrap();
        std::fs::set_permissions(&pinned, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let view = |path: &str| View { path: path.into(), execute: true };
        for execute_workspace in [false, true] {
            let profile = Profile { views: vec![view(&tools), view(&pinned)], execute_workspace, network: None };
            let session = world.session_of(Storage::Memory, small(), profile).await;
            let real = world.path("tools/attacker");
            let replace = format!(
                "cp /bin/false attacker; cp /bin/false /tmp/attacker; cp -f attacker {real}; mv -f attacker {real}; ln -sf $PWD/attacker {real}
                 mv {tools} {tools}-away; mkdir -p {tools}; cp /bin/false {real}; chmod 755 {real}
                 above=$(dirname {tools}); mv $above $above-away; mkdir -p {tools}; cp /bin/false {real}; chmod 755 {real}; exit 0"
            );
            assert!(run(&session, sh(&replace)).await.report.success());
            let done = run(&session, program(&real, &["A27"])).await;
            assert_eq!(done.report.cause, Cause::Exited(0), "the provider's own still runs, {execute_workspace}: {done:?}");
            assert_eq!(Told::read(&done.stdout).row, "A27");
            let planted = run(&session, program("/workspace/attacker", &["A27"])).await.report.cause;
            assert!(matches!(planted, Cause::SetupFailed { .. }) || execute_workspace, "{planted:?}");
            std::fs::rename(world.path("pinned"), world.path("moved")).unwrap();
            std::fs::copy("/bin/false", world.path("pinned")).unwrap();
            assert!(run(&session, program(&pinned, &["A27"])).await.report.success(), "it was pinned when the session opened");
            std::fs::rename(world.path("moved"), world.path("pinned")).unwrap();
            world.close(session).await;
        }
    });
}

#[test]
fn the_ground_itself_is_what_rows_take_it_for() {
    row(async |world| {
        assert!(world.sandbox.level() >= orien_sandbox::Level::S2, "{:#?}", world.sandbox.survey());
        assert!(tells_secret(&std::fs::read(world.canary()).unwrap()));
    });
}

#[test]
fn a_shared_place_may_lie_where_something_of_the_session_s_own_would_be() {
    row(async |world| {
        let shared = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(shared.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(shared.path().join("file"), "shown").unwrap();
        let view = |path: &std::path::Path| View { path: path.into(), execute: false };
        let views = vec![view(shared.path()), view(std::path::Path::new("/etc/hosts"))];
        let session = world.session_of(Storage::Memory, small(), Profile { views, ..Profile::default() }).await;
        let done = run(&session, sh(&format!("cat {}/file; cat /etc/hosts", shared.path().display()))).await;
        assert_eq!(done.text(), format!("shown{}", std::fs::read_to_string("/etc/hosts").unwrap()));
        world.close(session).await;
    });
}
