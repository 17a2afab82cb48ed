//! Runs one target under libFuzzer: the one that the environment variable `ORIEN_FUZZ` names. With `ORIEN_FUZZ_SEEDS` it writes first inputs below that folder instead.
#![no_main]

mod targets;

use std::path::Path;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    if let Ok(folder) = std::env::var("ORIEN_FUZZ_SEEDS") {
        write_seeds(Path::new(&folder)).expect("the seeds are written");
        std::process::exit(0);
    }
    let wanted = std::env::var("ORIEN_FUZZ").unwrap_or_default();
    let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    let found = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, run)| *run).unwrap_or_else(|| panic!("set ORIEN_FUZZ to one of {}", names.join(", ")))
});

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    for (target, name, bytes) in targets::seeds() {
        std::fs::create_dir_all(folder.join(target))?;
        std::fs::write(folder.join(target).join(name), bytes)?;
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
