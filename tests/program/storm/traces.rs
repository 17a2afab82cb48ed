//! What may be left of a run outside the stores: processes of tools, helpers of the sandbox, workspaces.

use std::path::{Path, PathBuf};

use super::field::Field;

/// First arguments of the program when it is a sandbox's helper.
const HELPERS: [&str; 2] = ["sandbox-init", "sandbox-exec"];

/// Everything that is there although nothing runs, in words.
pub(crate) fn left_behind(field: &Field) -> Vec<String> {
    let mut left = processes(field);
    for node in field.nodes() {
        left.extend(workspaces(&node.folder));
    }
    left
}

fn workspaces(node: &Path) -> Vec<String> {
    let inside = |folder: PathBuf| -> Vec<PathBuf> {
        std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    let mut left = inside(node.join("workspaces"));
    left.retain(|path| !path.ends_with(".trash"));
    left.extend(inside(node.join("workspaces/.trash")));
    left.into_iter().map(|path| format!("workspace {}", path.display())).collect()
}

/// Tools at home below the field's root, and helpers of this very program that belong to one of its roles or to nobody.
fn processes(field: &Field) -> Vec<String> {
    let own: Vec<u32> = field.roles.iter().map(crate::kit::Role::pid).collect();
    let home = format!("HOME={}/", field.root.path().display());
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let look = |pid: u32| {
        let words = words(pid, "cmdline");
        let is_tool = self::words(pid, "environ").iter().any(|word| word.starts_with(&home));
        let is_helper = is_program(pid) && words.get(1).is_some_and(|word| HELPERS.contains(&word.as_str()));
        let parent = parent(pid)?;
        let is_ours = own.contains(&parent) || !is_program(parent);
        (is_tool || (is_helper && is_ours)).then(|| format!("process {pid} of parent {parent}: {}", words.join(" ")))
    };
    pids.filter_map(look).collect()
}

fn words(pid: u32, file: &str) -> Vec<String> {
    let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn is_program(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == Path::new(env!("CARGO_BIN_EXE_orien")))
}

/// Its parent; none once it has ended, also while it waits to be collected.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.next()?.parse().ok()).flatten()
}
