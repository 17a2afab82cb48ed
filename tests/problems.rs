//! The table of codes in docs/PROBLEMS.md is the one in the code, and what the API's description promises is in both.
#![expect(clippy::panic, reason = "a panic is the test failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use orien_protocol::fault::FaultCode;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Members of a problem that descriptions name, which are no codes.
const MEMBERS: [&str; 3] = ["missing", "problems", "successor"];
/// Where something else is built: errors of MCP, whose codes its own document has, and tests.
const OTHERS: [&str; 2] = ["mcp", "crashes.rs"];

/// Each code of the table, with the statuses that it comes with.
fn table() -> BTreeMap<String, Vec<String>> {
    let text = read(&root().join("docs/PROBLEMS.md"));
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let code = cells.next()?.trim_end_matches('`').to_owned();
        Some((code, cells.next()?.split(", ").map(str::to_owned).collect()))
    };
    let rows: Vec<(String, Vec<String>)> = text.lines().filter_map(row).collect();
    assert!(rows.is_sorted(), "the table is in alphabetical order");
    rows.into_iter().collect()
}

/// Every code that our sources build a problem with: the first text after one of the constructors, if it can be one.
fn in_sources() -> BTreeSet<String> {
    // What the door makes of an answer without a body, and of a token that has a date; written beside the constructor and not in it.
    let mut found: BTreeSet<String> = ["method_not_allowed", "token_expired"].map(str::to_owned).into();
    found.extend(FaultCode::ALL.iter().map(|code| code.name().to_owned()));
    let mut folders: Vec<PathBuf> = ["gateway/src", "node/src", "settlement/src", "bootstrap/src", "bootstrap/door/src"]
        .iter()
        .map(|folder| root().join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.extend(Some(path).filter(|_| !OTHERS.contains(&name.as_str())));
                continue;
            }
            if OTHERS.contains(&name.as_str()) {
                continue;
            }
            let text = read(&path);
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for constructor in [
                "Refusal::new(",
                "Problem::new(",
                "Self::new(",
                "not_found(",
                "Refusal::invalid(",
                "Self::invalid(",
                "refused(StatusCode::",
                " bad(",
            ] {
                for (at, _) in product.match_indices(constructor) {
                    let call: String = product[at..].chars().take(300).collect();
                    let first = call.split(';').next().and_then(|call| call.split('"').nth(1)).unwrap_or_default();
                    if is_code(first) {
                        found.insert(first.to_owned());
                    }
                }
            }
        }
    }
    found
}

#[test]
fn the_table_of_codes_is_the_one_in_the_code() {
    let (table, sources) = (table(), in_sources());
    let missing: Vec<&String> = sources.iter().filter(|code| !table.contains_key(*code)).collect();
    let left: Vec<&String> = table.keys().filter(|code| !sources.contains(*code)).collect();
    assert!(table.len() > 40 && missing.is_empty() && left.is_empty(), "not in the table: {missing:?}; in no source: {left:?}");
}

#[test]
fn every_code_in_the_description_of_the_api_is_in_the_table_with_that_status() {
    let table = table();
    let api: Value = serde_json::from_str(&read(&root().join("docs/openapi.json"))).unwrap_or_else(|error| panic!("{error}"));
    let (mut faults, mut seen) = (Vec::new(), 0);
    let operations = api["paths"].as_object().into_iter().flatten().flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (format!("{method} {path}"), operation))
    });
    for (what, operation) in operations {
        for (status, response) in
            operation["responses"].as_object().into_iter().flatten().filter(|(status, _)| status.starts_with(['4', '5']))
        {
            let description = response["description"].as_str().unwrap_or_default();
            for code in description.split('`').skip(1).step_by(2).filter(|word| is_code(word) && !MEMBERS.contains(word)) {
                seen += 1;
                if !table.get(code).is_some_and(|statuses| statuses.contains(status)) {
                    faults.push(format!("{what}: {code} with {status}, in the table {:?}", table.get(code)));
                }
            }
        }
    }
    assert!(seen > 200 && faults.is_empty(), "{seen} codes\n{}", faults.join("\n"));
}
