//! What a run is started with: arguments, environment, place, and nothing that is inherited.

use orien_sandbox::{Cause, EnvError, Profile, StartError, Storage, VARIABLES_MAX};

use crate::verdict::Is;
use crate::world::{exists, program, row, run, sh, small, tells_secret};

#[test]
fn c03_arguments_that_cannot_be_passed_start_nothing() {
    row(async |world| {
        let session = world.session().await;
        let huge = "x".repeat(2 << 20);
        let many = vec!["x"; 100_000];
        for (words, why) in [(vec!["a\0b"], "NUL"), (vec![huge.as_str()], "96 KiB"), (many, "1024")] {
            match session.start(program("/bin/echo", &words)).await {
                Err(StartError::Args(said)) => assert!(said.contains(why), "{said}"),
                other => panic!("{other:?}"),
            }
        }
        for path in ["sh", "", "./sh", "bin/sh", "/bin/s\0h"] {
            assert!(matches!(session.start(program(path, &[])).await, Err(StartError::Program(_))), "{path:?}");
        }
        // The name that a program is called by is its path: there is no empty list of arguments.
        assert_eq!(run(&session, program("/bin/cat", &["/proc/self/cmdline"])).await.text(), "/bin/cat\0/proc/self/cmdline\0");
        let longest = "y".repeat(90_000);
        assert_eq!(run(&session, program("/bin/echo", &["-n", &longest])).await.text(), longest);
        for odd in ["", " ", "-", "--", "$(id)", "`id`", ";id", "|id", "*", "~", "a\nb", "\\", "'\"", "@/etc/passwd", "%s%n"] {
            assert_eq!(run(&session, program("/usr/bin/printf", &["%s", odd])).await.text(), odd, "there is no shell");
        }
        world.close(session).await;
    });
}

#[test]
fn c07_programs_that_a_repository_brings_run_inside_or_not_at_all() {
    if !exists("/usr/bin/git") {
        assert!(std::env::var_os("ORIEN_EVERY_TOOL").is_none(), "git is not installed");
        println!("SKIP: git is not installed");
        return;
    }
    row(async |world| {
        let script = format!(
            "/usr/bin/git init -q r && cd r && /usr/bin/git config user.email t@example.org && /usr/bin/git config user.name t
            printf '#!/bin/sh\necho ran as $(id -u) >> /workspace/ran; cat {} >> /workspace/ran\n' > .git/hooks/pre-commit
            chmod 755 .git/hooks/pre-commit
            cp .git/hooks/pre-commit /workspace/hook && /usr/bin/git config core.fsmonitor /workspace/hook
            /usr/bin/git config core.editor /workspace/hook
            /usr/bin/git commit -q --allow-empty; /usr/bin/git status >/dev/null
            cat /workspace/ran || echo nothing ran",
            world.canary()
        );
        for execute_workspace in [false, true] {
            let profile = Profile { execute_workspace, ..world.profile() };
            let session = world.session_of(Storage::Memory, small(), profile).await;
            let done = run(&session, sh(&script)).await;
            if execute_workspace {
                assert!(done.text().contains("ran as 1000") && !tells_secret(&done.stdout), "{done:?}");
            } else {
                assert_eq!(done.text(), "nothing ran\n", "{done:?}");
            }
            world.close(session).await;
        }
    });
}

#[test]
fn c05_variables_that_load_code_start_nothing() {
    row(async |world| {
        let session = world.session().await;
        let with = |pairs: &[(&str, &str)]| {
            let mut spec = sh("env");
            spec.env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            spec
        };
        let denied = [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "GLIBC_TUNABLES",
            "GIT_SSH_COMMAND",
            "GIT_DIR",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PS4",
            "PROMPT_COMMAND",
            "JAVA_TOOL_OPTIONS",
            "GCONV_PATH",
            "HOSTALIASES",
            "MALLOC_CHECK_",
            "BASH_FUNC_ls",
        ];
        for name in denied {
            let refused = session.start(with(&[(name, "x")])).await;
            assert!(matches!(refused, Err(StartError::Env(EnvError::Denied(_)))), "{name}");
        }
        for name in ["", "A=B", "A B", "1A", "A\0", "BASH_FUNC_ls%%", "\u{391}"] {
            assert!(matches!(session.start(with(&[(name, "x")])).await, Err(StartError::Env(EnvError::Name(_)))), "{name:?}");
        }
        for name in ["HOME", "TMPDIR"] {
            assert!(matches!(session.start(with(&[(name, "/")])).await, Err(StartError::Env(EnvError::Fixed(_)))), "{name}");
        }
        assert!(matches!(session.start(with(&[("A", "1"), ("A", "2")])).await, Err(StartError::Env(EnvError::Twice(_)))));
        assert!(matches!(session.start(with(&[("A", "x\0LD_PRELOAD=y")])).await, Err(StartError::Env(EnvError::Value(..)))));
        assert!(matches!(session.start(with(&[("PATH", ".:/usr/bin")])).await, Err(StartError::Env(EnvError::Value(..)))));
        let names: Vec<String> = (0..=VARIABLES_MAX).map(|index| format!("A{index}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert!(matches!(session.start(with(&many)).await, Err(StartError::Env(EnvError::TooMany))));
        let done = run(&session, with(&[("A", "B=C")])).await;
        assert!(done.text().lines().any(|line| line == "A=B=C"), "a value is a value: {}", done.text());
        world.close(session).await;
    });
}

#[test]
fn c06_nothing_of_the_node_is_inherited() {
    row(async |world| {
        // What the node has: variables and open files. They are those of the test program, whatever started it.
        let own: Vec<String> =
            std::env::vars().filter(|(name, _)| name.starts_with("CARGO") || name == "PWD").map(|(_, value)| value).collect();
        let open = std::fs::File::open(world.canary()).unwrap();
        rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
        let mut words = vec!["C06".to_owned(), format!("secret={}", crate::world::SECRET)];
        words.extend(own.iter().filter(|value| value.len() > 8).map(|value| format!("secret={value}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let table = [
            ("environment has ", Is::Not),
            ("/proc/self/environ has ", Is::Not),
            ("environment", Is::Done),
            ("descriptor 0", Is::Done),
            ("descriptor 1", Is::Done),
            ("descriptor 2", Is::Done),
            ("session keyring", Is::Refused(&[libc::EPERM])),
            ("search a key", Is::Refused(&[libc::EPERM])),
            ("/proc/keys", Is::Refused(&[libc::ENOENT])),
            ("identity", Is::Done),
        ];
        let told = world.judge(&words, &table).await;
        let names: Vec<&str> = told.of("environment").text.lines().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(names, ["HOME", "LANG", "PATH", "TMPDIR"]);
        let descriptors = told.tries.iter().filter(|tried| tried.what.starts_with("descriptor "));
        assert_eq!(descriptors.count(), 3, "{told:#?}");
        drop(open);
    });
}

#[test]
fn c08_a_run_begins_in_the_workspace_whatever_an_earlier_one_did() {
    row(async |world| {
        for session in [world.session().await, world.on_disk().await] {
            for spoil in [
                "rm -rf /workspace; rmdir /workspace; mv /workspace /tmp/x; exit 0",
                "rmdir ../workspace; ln -s /etc /workspace; touch /workspace; cd ..; exit 0",
                "mkdir a && cd a && rmdir ../a && exit 0",
                "chmod 000 /workspace /tmp; exit 0",
            ] {
                assert!(run(&session, sh(spoil)).await.report.success(), "{spoil}");
                let here = run(&session, program("/bin/pwd", &["-P"])).await;
                match here.report.cause {
                    Cause::Exited(0) => assert_eq!(here.text(), "/workspace\n"),
                    // A place that its own user has shut is no place to begin in.
                    Cause::SetupFailed { ref stage, .. } => assert_eq!((stage.as_str(), spoil.contains("chmod")), ("directory", true)),
                    ref other => panic!("{other:?}"),
                }
            }
            world.close(session).await;
        }
    });
}
