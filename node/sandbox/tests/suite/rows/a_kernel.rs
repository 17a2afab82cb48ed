//! Into the kernel: namespaces, mounts, other identities, devices, calls, and programs of one's own.

use libc::{EACCES, EINVAL, ENOENT, ENOSYS, EPERM, SIGSYS};

use crate::verdict::Is;
use crate::world::row;

const FORBIDDEN: Is = Is::Refused(&[EPERM]);
const SHUT: Is = Is::Refused(&[EACCES]);
const ABSENT: Is = Is::Refused(&[ENOSYS]);

#[test]
fn a21_no_namespace_is_made_or_entered() {
    row(async |world| {
        world.judge(&["A21"], &[("control", Is::Done), ("clone3", ABSENT), ("", FORBIDDEN)]).await;
    });
}

#[test]
fn a22_no_mount_and_no_root_is_changed() {
    row(async |world| {
        world.judge(&["A22"], &[("control", Is::Done), ("", FORBIDDEN)]).await;
    });
}

#[test]
fn a23_set_user_id_programs_stay_the_tool() {
    row(async |world| {
        let table = [
            ("control", Is::Done),
            ("set-user-id programs that are there", Is::Done),
            ("/usr/bin/", Is::Not),
            ("run a set-user-id file", SHUT),
        ];
        let told = world.judge(&["A23"], &table).await;
        let tried = told.tries.iter().filter(|tried| tried.text.starts_with("user 1000 1000 1000 1000, capabilities 0000000000000000"));
        assert!(tried.count() >= 3, "{told:#?}");
    });
}

#[test]
fn a24_nobody_else_can_be_become() {
    row(async |world| {
        let table = [
            ("control", Is::Done),
            ("setuid 0", Is::Refused(&[EINVAL])),
            ("setgid 0", Is::Refused(&[EINVAL])),
            ("setresuid 0", Is::Refused(&[EINVAL])),
            ("setreuid to another", Is::Refused(&[EINVAL])),
            ("take new privileges again", Is::Refused(&[EINVAL])),
            ("setgroups", FORBIDDEN),
            ("setfsuid 0", FORBIDDEN),
            ("capset all", FORBIDDEN),
            ("securebits", FORBIDDEN),
            ("ambient capability", FORBIDDEN),
            ("drop from the bounding set", FORBIDDEN),
            ("", Is::Done),
        ];
        let told = world.judge(&["A24"], &table).await;
        let is = |name: &str| told.of(name).text.as_str();
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert!(is(name).bytes().all(|digit| digit == b'0') && !is(name).is_empty(), "{name} {}", is(name));
        }
        assert_eq!((is("Uid:"), is("Gid:")), ("1000 1000 1000 1000", "1000 1000 1000 1000"));
        assert_eq!((is("NoNewPrivs:"), is("Seccomp:")), ("1", "2"));
        // The kernel shows whatever the node's own user had, as nobody's, where they could not be taken away.
        assert!(is("Groups:").split(' ').all(|group| group.is_empty() || group == "65534" || group == "1000"), "{}", is("Groups:"));
    });
}

#[test]
fn a25_no_device_is_made_and_only_five_are_there() {
    row(async |world| {
        let table = [
            ("mknodat fifo", Is::Done),
            ("mknodat socket", Is::Done),
            ("mknodat file", Is::Done),
            ("mknod", FORBIDDEN),
            ("open /dev/null", Is::Done),
            ("open /dev/zero", Is::Done),
            ("open /dev/full", Is::Done),
            ("open /dev/random", Is::Done),
            ("open /dev/urandom", Is::Done),
            ("open /dev/", Is::Refused(&[ENOENT])),
            ("handle of /dev/", Is::Refused(&[ENOENT])),
        ];
        world.judge(&["A25"], &table).await;
    });
}

#[test]
fn a26_calls_that_no_tool_has_business_with_do_nothing() {
    row(async |world| {
        world.judge(&["A26"], &[("control", Is::Done), ("", FORBIDDEN)]).await;
    });
}

#[test]
fn a27_a_call_by_another_convention_kills() {
    row(async |world| {
        let table = if cfg!(target_arch = "x86_64") { ("int 0x80", Is::Killed(SIGSYS)) } else { ("int 0x80", Is::Not) };
        world.judge(&["A27"], &[("control", Is::Done), table]).await;
    });
}

#[test]
fn a28_numbers_beyond_the_known_ones_do_not_exist() {
    row(async |world| {
        world.judge(&["A28"], &[("control", Is::Done), ("", ABSENT)]).await;
    });
}

#[test]
fn a29_nothing_is_typed_into_a_terminal() {
    row(async |world| {
        world.judge(&["A29"], &[("control", Is::Done), ("FIONREAD", Is::Done), ("TIOC", FORBIDDEN)]).await;
    });
}

#[test]
fn a30_the_personality_stays() {
    row(async |world| {
        world.judge(&["A30"], &[("control", Is::Done), ("as it is", Is::Done), ("", FORBIDDEN)]).await;
    });
}

#[test]
fn a31_what_a_tool_writes_is_not_executed() {
    row(async |world| {
        let table = [("control", Is::Done), ("have a shell read it", Is::Done), ("execute ", SHUT)];
        world.judge(&["A31"], &table).await;
    });
}

#[test]
fn a32_nor_through_the_loader_or_a_mapping() {
    row(async |world| {
        let table = [("control", Is::Done), ("plant in ", Is::Done), ("/lib", Is::Not), ("map a file in ", Is::Refused(&[EPERM, EACCES]))];
        world.judge(&["A32"], &table).await;
    });
}

#[test]
fn a33_nor_as_a_file_in_memory() {
    row(async |world| {
        let table = [
            ("control", Is::Done),
            ("memory file, sealed against execution", Is::Done),
            ("memory file, ", FORBIDDEN),
            ("make it executable, ", FORBIDDEN),
            ("write and execute it, ", SHUT),
        ];
        world.judge(&["A33"], &table).await;
    });
}
