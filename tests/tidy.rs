//! The house rules that a machine can check: sizes, headers, who depends on whom, and where a word may stand.
#![expect(clippy::panic, reason = "a panic is the test failing")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file beyond this is two subjects.
const LINES_LIMIT: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the tree that git would keep, with its path from the root.
fn files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push((from_root(&path), std::fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} files below {}", root().display());
    found.sort();
    found
}

fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn complain(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_file_is_longer_than_one_subject() {
    let long = |(path, text): &(String, String)| {
        let lines = text.lines().count();
        (lines > LINES_LIMIT).then(|| format!("{path} has {lines} lines; {LINES_LIMIT} is the end"))
    };
    complain(files(".rs").iter().filter_map(long).collect());
}

#[test]
fn every_module_says_what_it_is() {
    let silent = |(path, text): &(String, String)| (!text.starts_with("//! ")).then(|| format!("{path} does not open with a //! header"));
    complain(files(".rs").iter().filter_map(silent).collect());
}

#[test]
fn source_is_ascii_and_has_no_unfinished_marks_or_silent_exceptions() {
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "#[".to_owned() + "allow(", "#![".to_owned() + "allow("];
    let mut faults = Vec::new();
    for (path, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            if !line.is_ascii() {
                faults.push(format!("{path}:{}: not ASCII", number + 1));
            }
            if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{path}:{}: {mark}", number + 1));
            }
        }
    }
    complain(faults);
}

/// Our crates, each with the ones it may name in its manifest. Arrows point down only; roles never import each other.
const MAY_USE: &[(&str, &[&str])] = &[
    // Itself, with the simulator, for its tests.
    ("protocol", &["orien-protocol"]),
    ("bootstrap/net", &["orien-protocol"]),
    ("bootstrap/door", &[]),
    // Itself, with the local chain, for its tests.
    ("bootstrap/chain", &["orien-protocol", "orien-chain"]),
    ("bootstrap", &["orien-protocol", "orien-net", "orien-door", "orien-chain"]),
    ("node/sandbox", &[]),
    ("node", &["orien-protocol", "orien-bootstrap", "orien-net", "orien-door", "orien-chain", "orien-sandbox"]),
    ("gateway", &["orien-protocol", "orien-bootstrap", "orien-net", "orien-door", "orien-chain"]),
    ("settlement", &["orien-protocol", "orien-bootstrap", "orien-net", "orien-door", "orien-chain"]),
    // No part of the product: it stands above everything, and nothing stands on it.
    ("tests/fuzz", &["orien-protocol", "orien-bootstrap", "orien-node", "orien-sandbox", "orien-gateway", "orien-settlement"]),
];

#[test]
fn dependencies_point_down_only() {
    let manifests: BTreeMap<String, String> = files("Cargo.toml").into_iter().collect();
    let mut faults = Vec::new();
    let mut seen = 1;
    for (folder, allowed) in MAY_USE {
        let path = format!("{folder}/Cargo.toml");
        let Some(manifest) = manifests.get(&path) else { panic!("{path} is missing") };
        seen += 1;
        for line in manifest.lines().filter(|line| line.starts_with("orien-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&name) {
                faults.push(format!("{path} may not depend on {name}"));
            }
        }
    }
    assert_eq!(seen, manifests.len(), "a crate is not in the plan of this test");
    complain(faults);
}

#[test]
fn the_protocol_has_no_io_no_clock_and_no_random_source() {
    let words = ["std::fs", "std::net", "SystemTime", "Instant::now", "tokio", "getrandom", "rand::"];
    let mut faults = Vec::new();
    for (path, text) in files(".rs").iter().filter(|(path, _)| path.starts_with("protocol/src/")) {
        for word in words.iter().filter(|word| text.contains(**word)) {
            faults.push(format!("{path} names {word}"));
        }
    }
    complain(faults);
}

/// A word and the places where it may stand.
type Place = (&'static str, fn(&str) -> bool);

const PLACES: &[Place] = &[
    ("libp2p::", |path| path.starts_with("bootstrap/net/")),
    ("redb::", |path| path.ends_with("/store.rs") || path.contains("/store/")),
    ("axum::", |path| path.starts_with("bootstrap/door/") || path.contains("/http/") || path.ends_with("/http.rs")),
    ("alloy_", |path| path.starts_with("bootstrap/chain/") || path.starts_with("settlement/") || path.starts_with("protocol/src/signing")),
    ("bincode::", |path| path == "protocol/src/codec.rs"),
    ("rlimit::", |path| path.starts_with("node/sandbox/")),
    ("anyhow::", |path| path.starts_with("src/") || path.contains("tests/")),
];

#[test]
fn libraries_stay_in_their_rooms() {
    let mut faults = Vec::new();
    for (path, text) in files(".rs").iter().filter(|(path, _)| path != "tests/tidy.rs") {
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (word, allowed) in PLACES {
            if !allowed(path) && code.iter().any(|line| line.contains(word)) {
                faults.push(format!("{path} names {word}"));
            }
        }
    }
    complain(faults);
}

#[test]
fn unsafe_code_stands_nowhere_but_in_the_sandbox() {
    let mut faults = Vec::new();
    for (path, text) in files(".rs").iter().filter(|(path, _)| path != "tests/tidy.rs" && !path.starts_with("node/sandbox/")) {
        if text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn")) {
            faults.push(format!("{path} has unsafe code"));
        }
    }
    complain(faults);
}

#[test]
fn documents_do_not_name_the_machine_they_were_written_on() {
    let here = root().to_string_lossy();
    let mut faults = Vec::new();
    for (path, text) in files(".md") {
        for (number, line) in text.lines().enumerate() {
            if line.contains(here.as_ref()) || ["/root/", "/home/"].iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: a path of a machine", number + 1));
            }
        }
    }
    complain(faults);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in files(".md") {
        let folder = root().join(&path).parent().map_or_else(PathBuf::new, Path::to_path_buf);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                faults.push(format!("{path}: {target} does not exist"));
            }
        }
    }
    complain(faults);
}
