//! Paths of this machine that tools see besides their workspace: read-only, and at the same place as here.
//!
//! Always true of a path that is read: the provider wrote it down, it is no place that holds keys, accounts or the kernel's own files, and it passed
//! [`Paths::look`]. A tool whose program is outside the usual folders has it below a path whose programs may be executed.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use jsonc_parser::ast::Value;

use super::findings::{Findings, closest, quote};
use super::paths::Paths;
use super::source::{Field, Fields};
use crate::command::{CommandTemplate, Part};

/// More than a person can answer for; each is looked through at every start.
const SHARED_MAX: usize = 32;
/// Longest path that is read.
const PATH_LIMIT_BYTES: usize = 1024;
/// Never shared as a whole, because of what else is in them: everybody's files, accounts and passwords, and every service's data.
const NEVER_WHOLE: [&str; 6] = ["/", "/home", "/root", "/etc", "/usr", "/var"];
/// Never shared, nor anything below: the kernel's own files, running services, what anybody may replace, and the tool's own places.
const NEVER: [&str; 7] = ["/proc", "/sys", "/dev", "/run", "/var/run", "/tmp", "/workspace"];
/// Where every tool sees programs and what belongs to them.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// What else is there for every tool, though perhaps not with this machine's content.
const ALWAYS_THERE: [&str; 5] = ["/etc", "/dev", "/proc", "/tmp", "/workspace"];

/// One path that a tool sees as it is here, and can only read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedPath {
    /// A directory or a file; absolute, and free of links when it was looked at.
    pub path: PathBuf,
    /// Whether programs in it may be started.
    pub execute: bool,
}

/// What the provider shares at all, and what was found when it was looked at.
pub(super) struct Catalogue<'p> {
    paths: &'p dyn Paths,
    entries: Vec<Entry>,
    looked: HashMap<String, Result<(), (String, String)>>,
}

struct Entry {
    /// What tools call it, besides its path.
    name: Option<String>,
    /// Nothing if it was faulty.
    path: Option<String>,
    execute: bool,
    used: bool,
    at: usize,
    place: String,
}

impl<'p> Catalogue<'p> {
    /// Reads `[{"name": "scripts", "path": "/srv/scripts", "execute": true}, "/srv/data"]`.
    pub(super) fn read(provider: &Fields<'_, '_>, paths: &'p dyn Paths, findings: &mut Findings<'_>) -> Self {
        let mut catalogue = Self { paths, entries: Vec::new(), looked: HashMap::new() };
        let list = provider.get("shared").and_then(|field| field.list(findings, SHARED_MAX)).unwrap_or_default();
        for entry in &list {
            catalogue.add(entry, findings);
        }
        catalogue
    }

    fn add(&mut self, entry: &Field<'_, '_>, findings: &mut Findings<'_>) {
        let mut read = Entry { name: None, path: None, execute: false, used: false, at: entry.at(), place: entry.path.clone() };
        if let Value::StringLit(_) = entry.value {
            read.path = self.path(entry, findings);
        } else if let Some(fields) = entry.object(findings, &["name", "path", "execute"]) {
            read.name = fields.get("name").and_then(|field| field.id(findings)).map(str::to_owned);
            read.path = fields.required(findings, "path", "\"/srv/scripts\"").and_then(|field| self.path(field, findings));
            read.execute = fields.get("execute").and_then(|field| field.flag(findings)).unwrap_or(false);
        }
        let twice = |other: &Entry| other.name.is_some() && other.name == read.name || other.path.is_some() && other.path == read.path;
        if self.entries.iter().any(twice) {
            entry.fault(findings, "an earlier entry has the same name or the same path", "keep one of them");
        }
        self.entries.push(read);
    }

    /// Reads the `shared` of one tool: names of the provider's entries, or paths.
    pub(super) fn of_tool(&mut self, tool: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Vec<SharedPath> {
        let list = tool.get("shared").and_then(|field| field.list(findings, SHARED_MAX)).unwrap_or_default();
        let mut shared: Vec<SharedPath> = Vec::new();
        for field in &list {
            let Some(words) = field.words(findings, PATH_LIMIT_BYTES) else { continue };
            let Some(path) = self.find(field, words, findings) else { continue };
            if shared.iter().any(|other| other.path == path.path) {
                field.fault(findings, format!("{} is shared twice", quote(words)), "keep one of them");
            } else {
                shared.push(path);
            }
        }
        // What lies deeper comes later, as it has to when they are put in place.
        shared.sort();
        shared
    }

    fn find(&mut self, field: &Field<'_, '_>, words: &str, findings: &mut Findings<'_>) -> Option<SharedPath> {
        let known = |entry: &&mut Entry| entry.name.as_deref() == Some(words) || entry.path.as_deref() == Some(words);
        if let Some(entry) = self.entries.iter_mut().find(known) {
            entry.used = true;
            return entry.path.as_ref().map(|path| SharedPath { path: path.into(), execute: entry.execute });
        }
        if words.starts_with('/') {
            return self.path(field, findings).map(|path| SharedPath { path: path.into(), execute: false });
        }
        let names = self.entries.iter().filter_map(|entry| entry.name.as_deref());
        let fix = closest(words, names).map_or_else(
            || format!("write a path, or add {{\"name\": {words:?}, \"path\": ...}} to \"shared\" of the provider"),
            |near| format!("did you mean `{near}`?"),
        );
        field.fault(findings, format!("nothing shared is named {}", quote(words)), fix);
        None
    }

    /// Says which entries no tool uses.
    pub(super) fn finish(&self, findings: &mut Findings<'_>) {
        for entry in self.entries.iter().filter(|entry| !entry.used && entry.path.is_some()) {
            findings.warn(entry.at, &entry.place, "no tool lists this in its own \"shared\", so none sees it");
        }
    }

    fn path(&mut self, field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<String> {
        let text = field.words(findings, PATH_LIMIT_BYTES)?;
        let paths = self.paths;
        let looked = self.looked.entry(text.to_owned()).or_insert_with(|| {
            check(text)?;
            paths.look(Path::new(text)).map_err(|fault| (fault.to_string(), fault.fix()))
        });
        match looked {
            Ok(()) => Some(text.to_owned()),
            Err((why, fix)) => {
                field.fault(findings, format!("{} cannot be shared: {why}", quote(text)), fix.clone());
                None
            }
        }
    }

    /// Says so if a tool's program is where the tool cannot see or start it. `real` is the file that the program's path leads to.
    pub(super) fn check_program(
        &self,
        command: &Field<'_, '_>,
        program: &Path,
        real: &Path,
        shared: &[SharedPath],
        findings: &mut Findings<'_>,
    ) {
        let is_seen = |path: &Path| {
            let below = |shared: &SharedPath| shared.execute && path.starts_with(&shared.path);
            is_below(path, &SYSTEM) || shared.iter().any(below)
        };
        let Some(hidden) = [program, real].into_iter().find(|path| !is_seen(path)) else { return };
        let what = if hidden == program {
            format!("its program {}", quote(&program.to_string_lossy()))
        } else {
            format!("its program {} leads to {}, and that", quote(&program.to_string_lossy()), quote(&hidden.to_string_lossy()))
        };
        if let Some(known) = shared.iter().find(|shared| hidden.starts_with(&shared.path)) {
            let problem = format!("{what} is below {}, which is shared for reading only", quote(&known.path.to_string_lossy()));
            command.fault(findings, problem, self.grant_fix(&known.path));
            return;
        }
        let problem = format!("{what} is not below /usr, /bin, /sbin or /lib, and the tool sees nothing else of this machine");
        let ready = self.entries.iter().find(|entry| entry.execute && entry.path.as_ref().is_some_and(|path| hidden.starts_with(path)));
        let fix = match ready {
            Some(entry) => {
                format!("add \"shared\": [{:?}] to this tool", entry.name.as_ref().or(entry.path.as_ref()).map_or("", |word| word))
            }
            None => self.grant_fix(&home(hidden)),
        };
        command.fault(findings, problem, fix);
    }

    /// What to write so that a tool may start what is in a path.
    fn grant_fix(&self, path: &Path) -> String {
        let shown = path.to_string_lossy();
        let entry = self.entries.iter().find(|entry| entry.path.as_deref() == Some(&*shown));
        if let Some(entry) = entry {
            let name = entry.name.as_ref().or(entry.path.as_ref()).map_or("", |word| word);
            return format!("make its entry at the top level {}, and list it in this tool's \"shared\"", object(name, &shown));
        }
        let last = shown.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let name: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        let name = if name.is_empty() { "programs" } else { &name };
        format!("add \"shared\": [{}] at the top level and \"shared\": [{name:?}] to this tool", object(name, &shown))
    }

    /// Says so if the command names a path of this machine that the tool will not see.
    pub(super) fn check_words(
        &self,
        command: &Field<'_, '_>,
        template: &CommandTemplate,
        shared: &[SharedPath],
        findings: &mut Findings<'_>,
    ) {
        for word in template.words() {
            let [Part::Literal(text)] = word.parts() else { continue };
            let path = text.rsplit_once('=').map_or(text.as_str(), |(_, value)| value);
            let seen = |path: &Path| is_below(path, &SYSTEM) || is_below(path, &ALWAYS_THERE);
            let path = Path::new(path);
            let is_plain = path.is_absolute() && check(&path.to_string_lossy()).is_ok();
            if !is_plain || seen(path) || shared.iter().any(|shared| path.starts_with(&shared.path)) {
                continue;
            }
            // What only looks like a path, such as an expression of `sed`, is on no machine.
            if self.paths.is_there(path) {
                let shown = quote(&path.to_string_lossy());
                command.warn(
                    findings,
                    format!("the tool will not see {shown}: list it, or the folder that holds it, in the tool's \"shared\""),
                );
            }
        }
    }
}

fn object(name: &str, path: &str) -> String {
    format!("{{\"name\": {name:?}, \"path\": {path:?}, \"execute\": true}}")
}

/// The folder that a program was probably installed in.
fn home(program: &Path) -> PathBuf {
    let folder = program.parent().unwrap_or(program);
    let above = folder.parent().filter(|_| folder.ends_with("bin") || folder.ends_with("sbin"));
    let mut candidates = above.into_iter().chain([folder]);
    candidates.find(|path| check(&path.to_string_lossy()).is_ok()).unwrap_or(program).to_owned()
}

/// Whether a path is one of these or below it.
fn is_below(path: &Path, tops: &[&str]) -> bool {
    tops.iter().any(|top| path.starts_with(top))
}

/// What can be said against a path without looking at it: why, and what to do.
fn check(text: &str) -> Result<(), (String, String)> {
    let refuse = |why: &str, fix: &str| Err((why.to_owned(), fix.to_owned()));
    let path = Path::new(text);
    if !path.is_absolute() {
        return refuse("it is not absolute", "write the whole path, beginning with /");
    }
    // Rebuilt from its parts, a path has no doubled slashes, no `.` and no slash at its end.
    let rebuilt: PathBuf = path.components().collect();
    if path.components().any(|part| part == Component::ParentDir) || rebuilt.as_os_str() != path.as_os_str() {
        return refuse("it has `.` or `..` or a slash too many", "write it plainly, such as \"/srv/scripts\"");
    }
    if NEVER_WHOLE.contains(&text) {
        return refuse("it holds far more than a tool needs", "share only the folder in it that the tool needs");
    }
    if is_below(path, &NEVER) {
        return refuse("services, devices and other programs' files are there", "put what tools need into a folder such as /srv/scripts");
    }
    if path.parent() == Some(Path::new("/home")) {
        return refuse("it is the home of a person, and holds keys", "share only the folder in it that the tool needs");
    }
    Ok(())
}
