//! The suite once more, as an ordinary user, when it was started by root.
//!
//! Always true: the other life runs every test of this one, so that no row can be left out of it by forgetting.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{PATIENCE, alone, attacker, helper, is_root};

/// Nobody else's, and not `nobody`'s either, who may own things.
pub(crate) const USER: u32 = 65_533;

fn give(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_whole_suite_holds_for_an_ordinary_user_too() {
    if !is_root() || std::env::var_os("ORIEN_SUITE_ATTACKER").is_some() {
        // Then this is it.
        return;
    }
    let own = std::env::current_exe().unwrap();
    let (directory, mut other) = alone(|| {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(&own, &at("suite"));
        give(&helper(), &at("helper"));
        give(&attacker(), &at("attacker"));
        fs::create_dir(at("tmp")).unwrap();
        chown(at("tmp"), Some(USER), Some(USER)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
        command.arg(at("suite")).args(["--test-threads", "1"]).current_dir(at("tmp"));
        command.env("TMPDIR", at("tmp")).env("ORIEN_SUITE_HELPER", at("helper")).env("ORIEN_SUITE_ATTACKER", at("attacker"));
        command.stdin(Stdio::null()).stdout(fs::File::create(at("out")).unwrap()).stderr(fs::File::create(at("err")).unwrap());
        (directory, command.spawn().unwrap())
    });
    let ended = loop {
        if let Some(ended) = alone(|| other.try_wait().unwrap()) {
            break ended;
        }
        std::thread::sleep(PATIENCE / 600);
    };
    let (out, err, listed) = alone(|| {
        let listed = Command::new(&own).arg("--list").output().unwrap().stdout;
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        (read("out"), read("err"), String::from_utf8(listed).unwrap())
    });
    assert!(ended.success(), "{out}\n{err}");
    let tests = listed.lines().filter(|line| line.ends_with(": test")).count();
    let summary = format!("test result: ok. {tests} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    assert!(tests > 80 && out.contains(&summary), "{tests} tests here, and there: {out}");
}
