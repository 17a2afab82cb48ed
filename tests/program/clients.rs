//! The clients of agents that the tests drive, where `tests/clients/install` puts them.
//!
//! A client that is not there makes its test say so loudly and pass; with `ORIEN_EVERY_CLIENT=1`, as in CI, it is a failure.

use std::path::PathBuf;

/// Where the clients are.
fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("ORIEN_CLIENTS") {
        return PathBuf::from(folder);
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("orien-clients")
}

/// A file of an installed client, such as `python/bin/python`.
#[expect(clippy::print_stderr, reason = "whoever runs the tests has to see that a part of them did not run")]
pub(crate) fn client(file: &str) -> Option<PathBuf> {
    let path = folder().join(file);
    if path.exists() {
        return Some(path);
    }
    let advice = format!("{} is missing; run tests/clients/install", path.display());
    assert!(std::env::var_os("ORIEN_EVERY_CLIENT").is_none_or(|value| value != "1"), "{advice}");
    eprintln!("NOT TESTED: {advice}");
    None
}

#[test]
fn the_installed_clients_are_the_ones_that_are_written_down() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    if let Some(python) = client("python/bin/python") {
        let wanted = std::fs::read_to_string(format!("{here}/python/requirements.txt")).unwrap();
        let show = "import importlib.metadata as m; [print(f'{n}=={m.version(n)}') for n in ('mcp', 'schemathesis')]";
        let output = std::process::Command::new(python).args(["-c", show]).output().unwrap();
        let versions = String::from_utf8(output.stdout).unwrap();
        assert!(versions.lines().count() == 2 && versions.lines().all(|line| wanted.lines().any(|other| other == line)), "{versions}");
    }
    for part in ["typescript", "chain"] {
        let Some(installed) = client(&format!("{part}/package-lock.json")) else { continue };
        let wanted = std::fs::read_to_string(format!("{here}/{part}/package-lock.json")).unwrap();
        assert!(std::fs::read_to_string(installed).unwrap() == wanted, "run tests/clients/install");
        assert!(!wanted.contains("\"resolved\""), "a lock file that names a registry ties everybody to it");
    }
}
