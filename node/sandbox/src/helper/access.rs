//! A tool's access rules (Landlock): what it may read, execute and write, whom it may signal and reach.
//!
//! Always true: rules only ever take rights away from what namespaces and file modes leave. Where namespaces are missing, every
//! right of Landlock version 6 is required; with them version 3 is enough, and what newer kernels can do is used where it is there.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, Scope,
};

use super::root;
use crate::limits::Level;
use crate::policy::{RunProfile, WORKSPACE};

/// What newer versions add is used when the kernel has it.
const NEWEST: ABI = ABI::V6;
/// With namespaces: since this version truncation is covered too.
const FLOOR: ABI = ABI::V3;

/// A place and the kind of access to it.
struct Rule<'a> {
    path: &'a Path,
    access: BitFlags<AccessFs>,
}

/// The rules of one kind of run, ready to be applied. Places are resolved now: inside the session's root at [`Level::S2`] and above,
/// on the host below it (`work` and `temporary` are the session's directories there).
pub(super) fn ruleset(level: Level, profile: &RunProfile, work: &Path, temporary: &Path) -> Result<OwnedFd, String> {
    let rules = create(level, profile.port).map_err(|error| error.to_string())?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let execute = read | AccessFs::Execute;
    let mut own = AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    if profile.execute_workspace {
        own |= AccessFs::Execute;
    }
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let mut places: Vec<Rule<'_>> = vec![Rule { path: work, access: own }, Rule { path: temporary, access: own }];
    // A rule on the root covers what is mounted later below it, as each run's own /proc is; one on /proc would not.
    let readable: &[&str] = if level >= Level::S2 { &["/"] } else { &["/proc", "/etc"] };
    places.extend(readable.iter().map(|path| Rule { path: Path::new(path), access: read }));
    places.extend(root::SYSTEM.iter().map(|path| Rule { path: Path::new(path), access: execute }));
    places.extend(root::DEVICES.iter().map(|path| Rule { path: Path::new(path), access: device }));
    places.extend(profile.views.iter().map(|view| Rule { path: &view.path, access: if view.execute { execute } else { read } }));
    add(rules, &places).map_err(|error| error.to_string())
}

fn create(level: Level, port: Option<u16>) -> Result<RulesetCreated, landlock::RulesetError> {
    let required = if level >= Level::S2 { FLOOR } else { NEWEST };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(required))?
        .set_compatibility(if level >= Level::S2 { CompatLevel::BestEffort } else { CompatLevel::HardRequirement })
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    if let Some(port) = port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    Ok(rules)
}

fn add(mut rules: RulesetCreated, places: &[Rule<'_>]) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    for place in places {
        // What this host does not have needs no rule.
        let Ok(handle) = PathFd::new(place.path) else { continue };
        let is_directory = std::fs::metadata(place.path).is_ok_and(|found| found.is_dir());
        let access = if is_directory { place.access } else { place.access & AccessFs::from_file(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(handle, access))?;
    }
    let rules: Option<OwnedFd> = rules.into();
    rules.ok_or_else(|| "the kernel has no Landlock".into())
}

/// Where the session's own directories are at [`Level::S2`] and above.
pub(super) fn inner_places() -> (&'static Path, &'static Path) {
    (Path::new(WORKSPACE), Path::new("/tmp"))
}
